"""A verb that nobody can hear does what it is for all the same, and says it where it can."""

import os
import subprocess
from pathlib import Path

import pytest
from owner_machine import BOUND_S, LENDER, Machine, grant, machine

from lender.cli import state_choice
from lender.cli.exits import CommandError, Exit
from lender.service.places import NoHomeError, configuration_home
from lender.state.consent_files import read_intent
from lender.state.folder import default_state_path

__all__ = ["machine"]

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")


def unheard(
    machine: Machine, *arguments: str, channel: str = "stdout", **more: str
) -> "subprocess.CompletedProcess[str]":
    """Run a verb whose output goes to a full disk."""
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    with FULL.open("w") as full:
        return subprocess.run(
            [str(LENDER), *arguments],
            env={**os.environ, "LENDER_STATE": str(machine.state.path), **more},
            **{**pipes, channel: full},  # type: ignore[call-overload]  # of subprocess.run
            text=True,
            timeout=BOUND_S,
            check=False,
        )


@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_pause_that_can_t_be_told_on_standard_output_is_told_on_the_other(
    machine: Machine, buffered: str
) -> None:
    machine.attempt("one", grant(machine.state, "G-1"))
    machine.daemon()
    done = unheard(machine, "pause", PYTHONUNBUFFERED=buffered)
    assert done.returncode == Exit.DONE, done.stderr
    assert "can't write its answer: No space left on device" in done.stderr
    assert "✓ paused: " in done.stderr
    assert "Traceback" not in done.stderr
    assert read_intent(machine.state).paused


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("verb", ["pause", "status", "grants", "why", "log", "resume", "drain"])
def test_a_document_that_can_t_be_written_is_no_success(
    machine: Machine, verb: str, buffered: str
) -> None:
    grant(machine.state, "G-1")
    machine.daemon()
    done = unheard(machine, verb, "--json", PYTHONUNBUFFERED=buffered)
    assert done.returncode == Exit.PARTIAL, done.stderr
    assert f"lender {verb}: can't write its answer" in done.stderr
    assert "Traceback" not in done.stderr
    assert read_intent(machine.state).paused == (verb in ("pause", "drain"))


def test_more_than_a_buffer_holds_is_no_traceback_either(machine: Machine) -> None:
    for number in range(60):
        grant(machine.state, f"G-{number}")
    done = unheard(machine, "grants", "--json")
    assert (done.returncode, "Traceback" in done.stderr) == (Exit.FAILED, False), done.stderr
    assert "can't write: No space left on device" in done.stderr


def test_a_full_standard_error_keeps_no_verb_from_its_work(machine: Machine) -> None:
    grant(machine.state, "G-1")
    done = unheard(machine, "pause", channel="stderr")
    assert (done.returncode, "✓ paused" in done.stdout) == (Exit.DONE, True)
    assert unheard(machine, "pause", "--no-such", channel="stderr").returncode == Exit.USAGE
    assert unheard(machine, "puase", channel="stderr").returncode == Exit.USAGE


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without $HOME whom the list of users does not know, and no lenderd of theirs."""
    for name in ("LENDER_STATE", "LENDERD_STATE", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr(state_choice, "SYSTEM_STATE", str(tmp_path / "none"))
    monkeypatch.setattr(state_choice, "_listed", lambda _: iter(()))


@pytest.mark.usefixtures("homeless")
def test_without_a_home_there_is_no_usual_folder_and_one_is_to_be_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for place in (default_state_path, configuration_home):
        with pytest.raises(NoHomeError, match="set HOME, or name the state folder with --state"):
            place()
    with pytest.raises(CommandError, match="uid 54321 has no home folder") as fault:
        state_choice.choose(None)
    assert fault.value.code == Exit.USAGE
    chosen = state_choice.choose(str(tmp_path))
    assert (chosen.state.name, chosen.others()) == (str(tmp_path), [])
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # none, by the specification
    with pytest.raises(NoHomeError):
        default_state_path()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_state_path() == f"{tmp_path}/lender"
