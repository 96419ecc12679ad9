"""`lender drain`, `pause --finish` and pauses that end: nothing new, and what runs may finish."""

import json
import os
import signal
import subprocess
import time

import pytest
from owner_machine import BOUND_S, LENDER, Machine, grant, machine, until

from lender.sandbox.processes import tree
from lender.state.attempt_records import AttemptRecords
from lender.state.consent_files import read_intent

__all__ = ["machine"]


def running(machine: Machine, *arguments: str) -> subprocess.Popen[str]:
    """The real command, left to itself."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "LENDER_STATE": str(machine.state.path)}
    return subprocess.Popen([str(LENDER), *arguments], env=environment, text=True, **pipes)  # type: ignore[call-overload,no-any-return]


def test_a_drain_returns_at_once_and_says_what_runs_until_when(machine: Machine) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    machine.daemon()
    before = time.time()
    code, told = machine.json("drain", "--deadline", "10m")
    assert (code, told["schema"], told["daemon"]) == (0, "lender.drain/1", "answered")
    assert [(one["job"], one["name"]) for one in told["running"]] == [("job-one", "alice")]
    assert before + 600 <= told["finish_by"] <= time.time() + 600
    intent = read_intent(machine.state)
    assert (intent.paused, intent.until, intent.finish_by) == (True, None, told["finish_by"])
    assert not any(tree.stopped(root) for root in record.roots)
    shown = machine.lender("drain").stdout
    assert "✓ nothing new is taken; 1 job may go on until" in shown
    assert "for alice" in shown
    assert machine.lender("status").stdout.startswith("○ Draining: what runs may finish until")


def test_the_last_word_wins(machine: Machine) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    machine.daemon()
    machine.lender("drain")
    machine.lender("pause", "--for", "2h")
    intent = read_intent(machine.state)
    assert intent.finish_by is None
    assert intent.until is not None
    assert all(tree.stopped(member) for member in tree.members(record.roots))
    machine.lender("pause")
    assert read_intent(machine.state).until is None
    machine.lender("resume")
    assert not read_intent(machine.state).paused
    assert not any(tree.stopped(root) for root in record.roots)


def test_waiting_ends_when_nothing_runs_any_more(machine: Machine) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    machine.daemon()
    waiting = running(machine, "drain", "--wait")
    assert waiting.stdout is not None
    assert "1 job may go on" in waiting.stdout.readline()
    tree.kill(record.roots)
    AttemptRecords(machine.state.attempts).remove(record.lease)
    shown, progress = waiting.communicate(timeout=BOUND_S)
    assert waiting.returncode == 0
    assert shown.endswith("✓ nothing runs any more\n")
    assert "1 job left" in progress


def test_ctrl_c_ends_the_waiting_and_not_the_drain(machine: Machine) -> None:
    machine.attempt("one", grant(machine.state, "G-1"))
    machine.daemon()
    waiting = running(machine, "drain", "--wait", "--deadline", "1h")
    assert waiting.stderr is not None
    assert "1 job left" in waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    _, progress = waiting.communicate(timeout=BOUND_S)
    assert waiting.returncode == -signal.SIGINT  # of which a shell makes 130
    assert "The drain stays in force" in progress
    assert "Traceback" not in progress
    assert read_intent(machine.state).finishing(time.time())


def test_waiting_ends_when_another_word_comes(machine: Machine) -> None:
    machine.attempt("one", grant(machine.state, "G-1"))
    machine.daemon()
    waiting = running(machine, "drain", "--wait", "--json")
    assert waiting.stderr is not None
    waiting.stderr.readline()
    machine.lender("resume")
    shown, progress = waiting.communicate(timeout=BOUND_S)
    assert waiting.returncode == 1
    assert "Another word of the owner" in progress
    assert json.loads(shown)["schema"] == "lender.drain/1"


def test_a_silent_lenderd_is_told_of_and_obeys_when_it_wakes(machine: Machine) -> None:
    machine.attempt("one", grant(machine.state, "G-1"))
    daemon = machine.daemon()
    os.kill(daemon.pid, signal.SIGSTOP)
    done = machine.lender("drain")
    assert done.returncode == 5
    assert "it obeys when it wakes" in done.stdout
    assert "job-one" in done.stdout
    assert read_intent(machine.state).finish_by is not None


def test_without_lenderd_a_drain_is_saved(machine: Machine) -> None:
    done = machine.lender("drain")
    assert done.returncode == 0
    assert "nothing runs" in done.stdout
    assert "it will start paused" in done.stdout


def test_what_may_finish_in_a_pause_is_not_stopped(machine: Machine) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    machine.daemon()
    done = machine.lender("pause", "--finish")
    assert done.returncode == 0
    assert "1 job may go on until" in done.stdout
    assert not any(tree.stopped(root) for root in record.roots)
    assert read_intent(machine.state).finishing(time.time() + 6 * 86_400)
    assert machine.lender("status", "--check").returncode == 3


def test_a_pause_with_an_end_says_so_and_ends_by_itself(machine: Machine) -> None:
    grant(machine.state, "G-1")
    machine.daemon()
    assert "Nothing runs until " in machine.lender("pause", "--until", "23:59").stdout
    head = machine.lender("status").stdout.splitlines()[0]
    assert head.startswith("○ Paused until ")
    assert "23:59" in head
    code, told = machine.json("pause", "--for", "2s")
    assert (code, told["verified"]) == (0, True)
    until(lambda: machine.lender("status", "--check").returncode == 0, "the end of the pause")


def test_lenderd_hears_the_end_of_a_pause_that_could_not_be_saved(machine: Machine) -> None:
    machine.daemon()
    machine.state.intent.mkdir()
    (machine.state.intent / "in-the-way").touch()
    done = machine.lender("drain")
    assert done.returncode == 6
    assert "could not be saved" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("pause", "--for", "2h", "--until", "18:00"),
        ("pause", "--now", "--finish"),
        ("pause", "--for", "0"),
        ("pause", "--for", "400d"),
        ("pause", "--until", "25:00"),
        ("pause", "--until", "2020-01-01 10:00"),
        ("drain", "--deadline", "soon"),
    ],
)
def test_what_makes_no_sense_changes_nothing(machine: Machine, arguments: tuple[str, ...]) -> None:
    done = machine.lender(*arguments)
    assert done.returncode == 2
    assert f"see lender {arguments[0]} --help" in done.stderr
    assert not machine.state.intent.exists()


def test_only_the_owner_may_drain_or_say_until_when(machine: Machine) -> None:
    machine.daemon()
    for arguments in (("drain",), ("pause", "--for", "2h"), ("pause", "--finish")):
        done = machine.lender_as_stranger(*arguments)
        assert done.returncode == 4, done.stderr
        assert not machine.state.intent.exists()
