"""What is proposed allows nothing; the owner's yes at a terminal does, for as long as it says the
same."""

import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import pytest
from owner_machine import ALICE, LENDER, Machine, machine

from lender.core.consent import Grant
from lender.state.consent_files import read_consent

__all__ = ["machine"]

TEXT = f'submitter = "alice={ALICE}"\nworkload = "render"\nexpires = "30d"\ncpu = 2\n'


@pytest.fixture
def proposals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "config/lender/proposals"
    folder.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (folder / "alice.toml").write_text(TEXT)
    return folder


def answer(machine: Machine, text: str, *arguments: str) -> tuple[int, str]:
    """Run the command, and type an answer where it asks."""
    control, terminal = pty.openpty()
    os.write(control, text.encode() + b"\n")
    try:
        done = subprocess.run(
            [str(LENDER), *arguments], stdin=terminal, capture_output=True, text=True, timeout=60,
            env={**os.environ, "LENDER_STATE": str(machine.state.path)}, check=False,
        )  # fmt: skip
    finally:
        os.close(control)
        os.close(terminal)
    return done.returncode, done.stdout + done.stderr


def granted(machine: Machine) -> tuple[Grant, ...]:
    return read_consent(machine.state).grants


def listed(machine: Machine) -> list[dict[str, Any]]:
    code, told = machine.json("grants")
    assert code == 0
    return list(told["proposed"])


def test_it_is_shown_and_allows_nothing(machine: Machine, proposals: Path) -> None:
    (one,) = listed(machine)
    assert (one["name"], one["state"], one["grant"]) == ("alice", "proposed", None)
    assert one["path"] == str(proposals / "alice.toml")
    said = machine.lender("grants").stdout
    assert "Nothing is granted, so nothing runs here" in said
    assert "nothing runs by it before you agree: lender grant --proposed alice" in said
    machine.tested_daemon()
    checks = {check["name"]: check for check in machine.json("doctor")[1]["checks"]}
    assert checks["consent"]["level"] == "blocker"
    assert "proposed to you" in checks["consent"]["mend"]
    assert granted(machine) == ()


def test_only_its_owner_agrees_and_only_in_a_terminal(machine: Machine, proposals: Path) -> None:
    for more, code, says in (
        ((), 2, "nobody to ask"),
        (("--yes",), 2, "no script agrees to"),
        (("--cpu", "1", "--mem", "1G"), 2, "mem beside --proposed"),
        (("--workload", "other"), 2, "workload beside --proposed"),
    ):
        done = machine.lender("grant", "--proposed", "alice", *more)
        assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    code, said = answer(machine, "n", "grant", "--proposed", "alice")
    assert (code, "nothing was granted" in said) == (1, True)
    assert granted(machine) == ()
    code, said = answer(machine, "y", "grant", "--proposed", str(proposals / "alice.toml"))
    assert (code, f"alice ({ALICE})" in said, "2 cores" in said) == (0, True, True)
    (grant,) = granted(machine)
    assert (grant.submitter, grant.workload, grant.cpu) == (ALICE, "render", 2)
    (one,) = listed(machine)
    assert (one["state"], one["grant"]) == ("agreed", grant.id)
    assert "proposed to you" not in machine.lender("grants").stdout


def test_what_comes_to_say_something_else_asks_anew(machine: Machine, proposals: Path) -> None:
    assert answer(machine, "y", "grant", "--proposed", "alice")[0] == 0
    (before,) = granted(machine)
    (proposals / "alice.toml").write_text(TEXT + 'net = "internet"\n')
    (one,) = listed(machine)
    assert (one["state"], one["beside"]) == ("proposed", [before.id])
    assert f"proposed to you beside {before.id}" in machine.lender("grants").stdout
    assert granted(machine) == (before,)
    assert before.net == ()
    assert answer(machine, "y", "grant", "--proposed", "alice", "--replace")[0] == 0
    (after,) = read_consent(machine.state).valid(before.granted_at + 60)
    assert (after.net, listed(machine)[0]["grant"]) == (("internet",), after.id)


def test_what_its_owner_withdrew_stays_withdrawn(machine: Machine, proposals: Path) -> None:
    (proposals / "alice.toml").write_text(TEXT.replace("30d", "2034-12-31"))
    assert answer(machine, "y", "grant", "--proposed", "alice")[0] == 0
    assert listed(machine)[0]["state"] == "agreed"
    assert machine.lender("revoke", "--all").returncode == 0
    assert listed(machine)[0]["state"] == "proposed"
    consent = read_consent(machine.state)
    assert consent.valid(consent.grants[0].granted_at + 60) == ()


def test_one_with_a_fault_is_told_and_not_asked(machine: Machine, proposals: Path) -> None:
    faults = {
        "key": TEXT + "yes = true\n",
        "kind": TEXT.replace("cpu = 2", 'cpu = "2"'),
        "value": TEXT.replace("30d", "soon"),
        "workload": TEXT.replace("render", "../render"),
        "toml": TEXT + "[",
        "escape": TEXT.replace("alice=", "\\u001b[2Jalice="),
    }
    for name, text in faults.items():
        (proposals / f"{name}.toml").write_text(text)
    states = {one["name"]: one["state"] for one in listed(machine)}
    assert states == {"alice": "proposed", **dict.fromkeys(faults, "faulty")}
    assert "\x1b" not in machine.lender("grants").stdout
    for name in faults:
        code, said = answer(machine, "y", "grant", "--proposed", name)
        assert (code, "\x1b" in said) == (2, False), said
    code, said = answer(machine, "y", "grant", "--proposed", "bob")
    assert (code, "there are proposed: alice, escape, key" in said) == (2, True)
    assert granted(machine) == ()


def test_what_was_typed_has_to_say_it_all(machine: Machine) -> None:
    done = machine.lender("grant", ALICE, "--workload", "render", "--yes")
    assert (done.returncode, "--expires missing" in done.stderr) == (2, True)
    assert granted(machine) == ()
