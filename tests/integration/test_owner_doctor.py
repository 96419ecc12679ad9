"""`lender doctor`: what keeps a machine from lending well, and a revocation that it rehearses."""

import contextlib
import math
import re
import time
from pathlib import Path

import pytest
from owner_machine import Machine, grant, machine, until
from sandboxes import needs_bubblewrap

from lender.cli.checks import examine, files, kernel, runtimes
from lender.cli.checks.check import Check
from lender.cli.owner import Told
from lender.core.consent import Intent
from lender.state.consent_files import write_intent
from lender.state.folder import StateFolder

__all__ = ["machine"]


def check(machine: Machine, name: str) -> dict[str, str]:
    (found,) = (c for c in machine.json("doctor")[1]["checks"] if c["name"] == name)
    return dict(found)


def actors() -> set[str]:
    """Processes that a rehearsal started."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"ready." in path.read_bytes():
                found.add(path.parent.name)
    return found


def test_it_rehearses_a_revocation_and_leaves_nothing_of_it(machine: Machine) -> None:
    machine.tested_daemon()
    before = actors()
    grant(machine.state, "G-1")
    record = machine.attempt("one", grant(machine.state, "G-2"))
    found = check(machine, "rehearsal")
    assert found["level"] == "ok"
    assert re.search(r"killed 9 processes after [\d.]+ ms, and wiped", found["text"])
    assert machine.json("grants")[1]["grants"][0]["state"] == "holds"
    assert Path(record.scratch).exists()
    until(lambda: not actors() - before, "its processes are gone, those of a doctor beside it too")


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


@needs_bubblewrap
def test_without_a_lenderd_it_makes_the_self_test_itself(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "_TEST_S", math.inf)  # on a machine that others keep busy
    found = {one.name: one for one in examine(machine.state, math.inf)}
    assert found["runtime.process"].level == "ok"
    assert found["runtime.wasm"].text.startswith("wasm works")
    assert {"runtime.python", "runtime.oci"} <= found.keys()


@needs_bubblewrap
def test_what_takes_too_long_is_cut_off_and_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "_TEST_S", 0.01)
    found = {one.name: one for one in examine(machine.state)}
    for runtime in ("wasm", "process", "python", "oci"):
        one = found[f"runtime.{runtime}"]
        assert one.text == f"{runtime}: its test was cut off, as it took too long"
        assert (one.level, one.mend) == ("warning", "try again once the machine is less busy")
    assert "runtimes" not in found, "they may work"
    assert found["rehearsal"].level == "ok"


def test_what_is_not_come_to_in_time_is_named(machine: Machine) -> None:
    left_out = [one for one in examine(machine.state, 0.0) if one.text.startswith("not checked")]
    names = [
        "state",
        "consent",
        "receipts",
        "daemon",
        "nats",
        "home",
        "presence",
        "python",
        "clock",
    ]
    assert [one.name for one in left_out] == [
        *names,
        "system",
        "runtimes",
        "devices",
        "gpus",
        "rehearsal",
    ]
    assert {one.level for one in left_out} == {"warning"}


def test_a_runtime_that_works_says_what_holds_less_well() -> None:
    verdict = {"available": True, "notes": ["cores are not limited"]}
    told = Told("answered", {"runtimes": {"wasm": verdict}})
    (found,) = runtimes.runtimes(told, 1.0)
    assert (found.level, found.text) == ("ok", "wasm works; cores are not limited")


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
    (tmp_path / "proc").mkdir(exist_ok=True)
    (tmp_path / "proc/cmdline").write_text(cmdline)
    return list(kernel.cgroups(StateFolder(tmp_path / "none"), mount=tmp_path, root=tmp_path))


FIRMWARE = "coherent_pool=1M 8250.nr_uarts=0 cgroup_disable=memory"
"""What a Pi's firmware puts before the line of its owner."""


def pi(tmp_path: Path, files: dict[str, str]) -> Path:
    """A Raspberry Pi's files."""
    model = tmp_path / "proc/device-tree/model"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"Raspberry Pi 4 Model B Rev 1.4\0")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_pi_with_its_memory_cgroup_off_is_told_how_to_switch_it_on(tmp_path: Path) -> None:
    moved = {"boot/cmdline.txt": "DO NOT EDIT THIS FILE\n\nThe file you are looking for has moved"}
    pi(
        tmp_path,
        {"boot/firmware/cmdline.txt": "console=tty1 root=PARTUUID=1-02 rootwait\n", **moved},
    )
    (found,) = cgroups(tmp_path, "cpuset cpu io pids\n", FIRMWARE)
    assert (found.name, found.level) == ("cgroup.memory", "info")
    assert "cgroup_disable=memory" in found.text
    said = "cgroup_enable=memory cgroup_memory=1"
    assert f"add {said} to the end of the one line in /boot/firmware/cmdline.txt" in found.mend
    (tmp_path / "boot/firmware/cmdline.txt").write_text(f"console=tty1 rootwait {said}\n")
    (found,) = cgroups(tmp_path, "cpuset cpu io pids\n", FIRMWARE)
    assert found.mend.startswith("reboot: ")


def test_an_old_pi_without_pressure_is_told_how_to_report_it(tmp_path: Path) -> None:
    (found,) = kernel.pressure(pi(tmp_path, {"boot/cmdline.txt": "console=tty1 rootwait\n"}))
    assert "add psi=1 to the end of the one line in /boot/cmdline.txt" in found.mend


@pytest.mark.parametrize(
    ("mounted", "kind"),
    [
        ("/ ext4", ""),
        ("/ ext4|{home} nfs4", "nfs4"),
        ("/ ext4|{home} fuse.sshfs", "fuse.sshfs"),
        ("/ nfs4|{home} ext4", ""),
        ("/ ext4|{home} nfs4|{home}/a\\040b ext4", ""),
        ("/ ext4|{home} nfs4|{home}/a ext4", "nfs4"),
        ("/ ext4|{home}/a\\040b cifs|{home} ext4", ""),
        ("/ ext4|{home}/ nfs", "nfs"),
        ("/ fuse.portal", ""),
    ],
)
def test_a_state_folder_that_other_machines_have_too_is_named(
    tmp_path: Path, mounted: str, kind: str
) -> None:
    mounts = tmp_path / "mountinfo"
    lines = (one.format(home=tmp_path).rsplit(" ", 1) for one in mounted.split("|"))
    text = (f"36 35 98:0 /x {at} rw,noatime shared:1 - {fs} host:/x rw\n" for at, fs in lines)
    mounts.write_text("".join(text))
    state = StateFolder(tmp_path / "a b" / "state")
    said = [(one.name, one.level) for one in files.shared(state, mounts)]
    assert said == ([("state.shared", "warning")] if kind else [])
    assert all(f"({kind})" in one.text for one in files.shared(state, mounts))
    assert not list(files.shared(state, tmp_path / "none")), "there is no such file on a Mac"


def test_a_32_bit_system_is_told_what_it_lacks() -> None:
    (found,) = kernel.word_size("armv7l", 32)
    assert found.level == "warning"
    assert "no wasm" in found.text
    assert "filter of system calls" in found.text
    assert not list(kernel.word_size("aarch64", 64))


def test_a_kernel_with_all_controllers_is_well(tmp_path: Path) -> None:
    (found,) = cgroups(tmp_path, "cpu memory pids\n")
    assert found.level == "ok"


def test_controllers_that_version_1_has_are_told(tmp_path: Path) -> None:
    (found,) = cgroups(tmp_path, "\n")
    assert (found.name, found.level) == ("cgroup.memory", "info")
    assert "unified_cgroup_hierarchy" in found.mend


UNIT = "system.slice/lenderd.service"
APP = "user.slice/user-1000.slice/user@1000.service/app.slice/lenderd.service"


def delegated(
    tmp_path: Path, unit: str, *, given: str, used: str, weights: tuple[str, str] = ("", "")
) -> dict[str, Check]:
    """A cgroup hierarchy of plain files: what lenderd's unit was given, and what its jobs have.

    `weights` are those of the topmost folder and of the unit.
    """
    own = tmp_path / unit
    jobs = own / "lender-1-2" / "jobs"
    jobs.mkdir(parents=True)
    (own / "daemon").mkdir()
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids")
    (own / "cgroup.controllers").write_text(given)
    (jobs / "cgroup.subtree_control").write_text(used)
    for folder, weight in zip((tmp_path / Path(unit).parts[0], own), weights, strict=True):
        if weight:
            (folder / "cpu.weight").write_text(weight)
            (folder / "cpu.idle").write_text("0")
    found = list(kernel.delegation(own / "daemon", tmp_path))
    assert len({check.name for check in found}) == len(found)
    return {check.name: check for check in found}


def test_limits_that_the_kernel_keeps_are_told(tmp_path: Path) -> None:
    found = delegated(tmp_path, UNIT, given="cpu io memory pids", used="cpu memory pids")
    assert set(found) == {"cgroup.delegated", "cgroup.limits"}
    assert (
        found["cgroup.limits"].text == "the kernel limits each sandbox's cores, memory, processes"
    )
    assert {check.level for check in found.values()} == {"ok"}


@pytest.mark.parametrize(
    ("unit", "given", "mend"),
    [
        (UNIT, "", "Delegate=yes"),
        (UNIT, "cpu memory pids", "systemd-run --user --scope"),  # it stands beside a shell
        (APP, "memory pids", "user@.service"),
    ],
)
def test_a_limit_that_the_kernel_does_not_keep_comes_with_what_is_done_instead(
    tmp_path: Path, unit: str, given: str, mend: str
) -> None:
    found = delegated(tmp_path, unit, given=given, used="memory pids")
    assert found["cgroup.limits.cpu"].level == "info"
    assert "more of them than its job asked for" in found["cgroup.limits.cpu"].text
    assert mend in found["cgroup.limits.cpu"].mend
    assert "memory, processes" in found["cgroup.limits"].text


@pytest.mark.parametrize(
    ("unit", "weights", "level", "mend"),
    [
        (UNIT, ("100", "10"), "info", "Slice=lender.slice"),  # its slice stands beside the owner's
        ("lender.slice/lenderd.service", ("10", "100"), "ok", ""),
        (APP, ("100", "100"), "info", "CPUWeight=10 in lenderd's unit"),
        (APP, ("100", "10"), "ok", ""),
    ],
)
def test_a_unit_that_weighs_as_much_as_the_owners_programs_is_told_to_weigh_less(
    tmp_path: Path, unit: str, weights: tuple[str, str], level: str, mend: str
) -> None:
    every = "cpu memory pids"
    found = delegated(tmp_path, unit, given=every, used=every, weights=weights)["cgroup.weight"]
    assert found.level == level
    assert mend in found.mend


def test_a_kernel_without_pressure_is_told_how_to_report_it(tmp_path: Path) -> None:
    (found,) = kernel.pressure(tmp_path)
    assert (found.level, found.mend.split(" ")[0]) == ("info", "psi=1")


def test_a_pause_that_has_ended_by_itself_is_none(machine: Machine) -> None:
    machine.tested_daemon()
    now = time.time()
    write_intent(machine.state, Intent(paused=True, paused_at=now - 60, until=now + 3600))
    assert check(machine, "intent")["level"] == "info"
    write_intent(machine.state, Intent(paused=True, paused_at=now - 60, until=now - 1))
    names = {c["name"] for c in machine.json("doctor")[1]["checks"]}
    assert "intent" not in names
