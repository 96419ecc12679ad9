"""`lender doctor`: what keeps a machine from lending well, and a revocation that it rehearses."""

import contextlib
import re
import time
from pathlib import Path

import pytest
from owner_machine import Machine, grant, machine, until

from lender.cli.checks import kernel, runtimes
from lender.cli.checks.check import Check
from lender.state.consent_files import read_intent
from lender.state.folder import StateFolder

__all__ = ["machine"]


def check(machine: Machine, name: str) -> dict[str, str]:
    (found,) = (c for c in machine.json("doctor")[1]["checks"] if c["name"] == name)
    return dict(found)


def actors() -> set[str]:
    """Processes that sleep as a rehearsal's do."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == b"sleep\x0060\x00":
                found.add(path.parent.name)
    return found


def test_it_rehearses_a_revocation_and_leaves_nothing_of_it(machine: Machine) -> None:
    before = actors()
    grant(machine.state, "G-1")
    record = machine.attempt("one", grant(machine.state, "G-2"))
    found = check(machine, "rehearsal")
    assert found["level"] == "ok"
    assert re.search(r"killed (9|1\d) processes after [\d.]+ ms, and wiped", found["text"])
    assert machine.json("grants")[1]["grants"][0]["state"] == "holds"
    assert record.scratch.exists()
    assert actors() == before


@pytest.mark.parametrize(
    ("comfort", "level", "text"),
    [
        ({"sources": ["mutter", "logind"]}, "ok", "told by mutter, logind"),
        ({"sources": [], "desktop": True}, "warning", "so you count as present"),
        ({"sources": [], "desktop": False}, "ok", "nobody sits at this machine"),
    ],
)
def test_it_says_which_source_tells_presence(
    machine: Machine, comfort: dict[str, object], level: str, text: str
) -> None:
    machine.daemon(status={"comfort": comfort})
    found = check(machine, "presence")
    assert found["level"] == level
    assert text in found["text"]


@pytest.mark.parametrize(
    ("setting", "value", "mend"),
    [
        ("kernel/unprivileged_userns_clone", "0", "unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "max_user_namespaces=15000"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor"),
        ("kernel/apparmor_restrict_unprivileged_userns", "0", "container"),
    ],
)
def test_the_mend_names_the_setting_that_keeps_sandboxes_away(
    tmp_path: Path, setting: str, value: str, mend: str
) -> None:
    (tmp_path / setting).parent.mkdir()
    (tmp_path / setting).write_text(f"{value}\n")
    assert mend in runtimes._namespaces_mend(tmp_path)


def cgroups(tmp_path: Path, controllers: str, cmdline: str = "quiet") -> list[Check]:
    (tmp_path / "cgroup.controllers").write_text(controllers)
    (tmp_path / "cmdline").write_text(cmdline)
    return list(
        kernel.cgroups(StateFolder(tmp_path / "none"), mount=tmp_path, cmdline=tmp_path / "cmdline")
    )


def test_a_pi_with_its_memory_cgroup_off_is_told_how_to_switch_it_on(tmp_path: Path) -> None:
    (found,) = cgroups(tmp_path, "cpuset cpu io pids\n", "coherent_pool=1M cgroup_disable=memory")
    assert (found.name, found.level) == ("cgroup.memory", "info")
    assert "cgroup_disable=memory" in found.text
    assert "cgroup_enable=memory" in found.mend


def test_a_kernel_with_all_controllers_is_well(tmp_path: Path) -> None:
    (found,) = cgroups(tmp_path, "cpu memory pids\n")
    assert found.level == "ok"


def test_a_kernel_without_pressure_is_told_how_to_report_it(tmp_path: Path) -> None:
    (found,) = kernel.pressure(tmp_path)
    assert (found.level, found.mend.split(" ")[0]) == ("info", "psi=1")


def test_a_pause_that_has_ended_by_itself_is_none(machine: Machine) -> None:
    machine.lender("pause", "--for", "2s")
    assert check(machine, "intent")["level"] == "info"
    until(lambda: not read_intent(machine.state).holds(time.time()), "the end of the pause")
    names = {c["name"] for c in machine.json("doctor")[1]["checks"]}
    assert "intent" not in names
