"""`lender pause` and `resume`: all stands still, by the kernel's word, before pause returns."""

import os
import signal

from owner_machine import Machine, grant, machine, until

from lender.sandbox.processes import tree
from lender.state.attempt_records import AttemptRecords
from lender.state.consent_files import read_intent

__all__ = ["machine"]


def test_all_processes_stand_still_when_it_returns(machine: Machine) -> None:
    one = machine.attempt("one", grant(machine.state, "G-1"))
    two = machine.attempt("two", grant(machine.state, "G-2", workload="checksum"))
    machine.daemon()
    code, told = machine.json("pause")
    assert code == 0
    assert told["schema"] == "lender.pause/1"
    members = tree.members([*one.roots, *two.roots])
    assert all(tree.stopped(member) for member in members)
    assert (told["verified"], told["daemon"], told["jobs"]) == (True, "answered", 2)
    assert told["processes"] >= len(members)
    assert read_intent(machine.state).paused


def test_what_lenderd_was_launching_meanwhile_stands_still_too(machine: Machine) -> None:
    machine.daemon(launch_on_pause="G-1")
    code, told = machine.json("pause")
    assert (code, told["processes"], told["jobs"]) == (0, 1, 1)
    (late,) = AttemptRecords(machine.state.attempts).read_all().records
    assert all(tree.stopped(root) for root in late.roots)


def test_a_stopped_lenderd_does_not_hold_it_up(machine: Machine) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    daemon = machine.daemon()
    os.kill(daemon.pid, signal.SIGSTOP)
    done = machine.lender("pause")
    assert done.returncode == 0
    assert "of 1 job stand still, verified after" in done.stdout
    assert "lenderd gave no answer (no answer within 0.5 s)" in done.stdout
    assert all(tree.stopped(member) for member in tree.members(record.roots))
    assert daemon.poll() is None


def test_lenderd_carries_out_the_pause_when_it_wakes(machine: Machine) -> None:
    daemon = machine.daemon()
    os.kill(daemon.pid, signal.SIGSTOP)
    machine.lender("pause")
    machine.state.intent.unlink()
    os.kill(daemon.pid, signal.SIGCONT)
    until(lambda: read_intent(machine.state).paused, "the pause that was asked for meanwhile")


def test_resume_lets_it_go_on_and_says_so(machine: Machine) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    machine.daemon()
    machine.lender("pause")
    done = machine.lender("resume")
    assert (done.returncode, done.stdout) == (0, "✓ resumed: what you have granted may run again\n")
    assert not any(tree.stopped(root) for root in record.roots)
    assert not read_intent(machine.state).paused


def test_resume_says_what_still_keeps_work_away(machine: Machine) -> None:
    grant(machine.state, "G-1")
    machine.daemon(status={"phase": "yielding", "reason": "a game is played"})
    machine.lender("pause")
    done = machine.lender("resume")
    assert done.returncode == 0
    assert "may run again" not in done.stdout
    assert "Stepping back: a game is played" in done.stdout


def test_resume_after_a_revocation_does_not_promise_work(machine: Machine) -> None:
    grant(machine.state, "G-1")
    machine.daemon()
    machine.lender("revoke", "--all")
    machine.lender("pause")
    done = machine.lender("resume")
    assert "may run again" not in done.stdout
    assert "Not lending" in done.stdout
    code, told = machine.json("resume")
    assert (code, told["phase"], told["paused"]) == (0, "unconsented", False)


def test_resume_is_no_success_while_lenderd_is_paused(machine: Machine) -> None:
    grant(machine.state, "G-1")
    machine.daemon(status={"phase": "paused", "paused": True})
    done = machine.lender("resume")
    assert done.returncode == 1
    assert "✓" not in done.stdout
    assert "still paused" in done.stdout


def test_resume_never_clears_a_revocation(machine: Machine) -> None:
    grant(machine.state, "G-1")
    machine.daemon()
    machine.lender("revoke", "--all")
    machine.lender("pause")
    machine.lender("resume")
    assert machine.json("status")[1]["phase"] == "unconsented"


def test_without_lenderd_the_pause_is_saved_and_resume_says_who_is_missing(
    machine: Machine,
) -> None:
    assert machine.lender("pause").returncode == 0
    assert read_intent(machine.state).paused
    assert machine.lender("resume").returncode == 5
    assert not read_intent(machine.state).paused


def test_a_pause_that_cannot_be_saved_still_stops_everything(machine: Machine) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    machine.state.intent.mkdir()
    (machine.state.intent / "in-the-way").touch()
    done = machine.lender("pause")
    assert done.returncode == 6
    assert "the pause could not be saved" in done.stdout
    assert all(tree.stopped(member) for member in tree.members(record.roots))


def test_an_unreadable_record_is_not_called_verified(machine: Machine) -> None:
    (machine.state.attempts / "torn.json").write_text("[]")
    done = machine.lender("pause")
    assert done.returncode == 6
    assert "can't read" in done.stdout


def test_anyone_local_may_pause_but_only_the_owner_may_resume(machine: Machine) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    machine.daemon()
    done = machine.lender_as_stranger("pause")
    assert done.returncode == 0, done.stderr
    assert "by lenderd's own check" in done.stdout
    assert all(tree.stopped(member) for member in tree.members(record.roots))
    assert read_intent(machine.state).paused
    assert machine.lender_as_stranger("resume").returncode == 4
    assert read_intent(machine.state).paused


def test_a_stranger_without_lenderd_is_told_that_nothing_was_paused(machine: Machine) -> None:
    done = machine.lender_as_stranger("pause")
    assert done.returncode == 5
    assert "lenderd did not pause" in done.stderr
