"""What stands in the state folder counts, also where nobody told lenderd of it."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import StandingFleet

from deploy.local.fleet import Fleet, Lender, command, wait_until
from lender.core.consent import Intent
from lender.daemon.control_client import ask
from lender.sandbox.processes import stopping
from lender.state.attempt_records import AttemptRecords
from lender.state.consent_files import read_intent, write_intent
from lender.state.folder import StateFolder

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    with StandingFleet("desk") as fleet:
        yield fleet


@pytest.fixture
def fleet(standing: StandingFleet) -> Fleet:
    return standing.in_order()


@pytest.fixture
def desk(fleet: Fleet) -> Lender:
    return fleet.lenders["desk"]


def busy(fleet: Fleet, desk: Lender, task_s: int = 60) -> str:
    """Have a task run; return its job."""
    said = fleet.submit("submit", "--no-wait", "--", "sleep", str(task_s))
    wait_until(desk.busy, "the task runs")
    return said.stdout.strip()


def idle(desk: Lender) -> bool:
    status = desk.status()
    return status.get("phase") == "lending" and not status["running"]


def ends(state: Path, job: str) -> list[str]:
    """How the attempts at a job ended on this machine, by their receipts."""
    lines = (state / "receipts.jsonl").read_text().splitlines()
    return [one["outcome"] for one in map(json.loads, lines) if one.get("job") == job]


def test_grants_that_are_deleted_by_hand_end_their_work(fleet: Fleet, desk: Lender) -> None:
    busy(fleet, desk)
    for file in (desk.state / "grants").iterdir():
        file.unlink()
    wait_until(lambda: not desk.status()["running"], "the work is killed", within_s=10)
    assert desk.status()["phase"] == "unconsented"


def test_a_pause_that_lenderd_never_heard_of_is_obeyed(fleet: Fleet, desk: Lender) -> None:
    busy(fleet, desk)
    write_intent(StateFolder(desk.state), Intent(paused=True, paused_at=time.time()))
    os.chown(desk.state / "intent.json", desk.state.stat().st_uid, desk.state.stat().st_gid)
    wait_until(lambda: desk.status()["phase"] == "paused", "the pause is noticed", within_s=10)


def test_a_pause_that_waited_in_a_hung_lenderd_does_not_undo_a_later_resume(desk: Lender) -> None:
    os.kill(desk.pid, signal.SIGSTOP)
    try:
        assert desk.owner("pause").returncode == 0
        desk.owner("resume")
    finally:
        os.kill(desk.pid, signal.SIGCONT)
    wait_until(desk.lending, "it lends again")
    assert not read_intent(StateFolder(desk.state)).paused


def test_work_that_such_a_pause_froze_goes_on_after_the_resume_and_ends(
    fleet: Fleet, desk: Lender
) -> None:
    job = busy(fleet, desk, task_s=4)
    os.kill(desk.pid, signal.SIGSTOP)
    try:
        assert desk.owner("pause").returncode == 0
        assert read_intent(StateFolder(desk.state)).paused
        resumed = subprocess.Popen([command("lender"), "resume", "--state", str(desk.state)])
        wait_until(lambda: not read_intent(StateFolder(desk.state)).paused, "the resume is saved")
    finally:
        os.kill(desk.pid, signal.SIGCONT)
    assert resumed.wait(30) == 0
    wait_until(lambda: idle(desk) and ends(desk.state, job) != [], "the task ends")
    assert ends(desk.state, job)[-1] == "succeeded"


def test_what_a_pause_froze_that_was_cut_off_goes_on_after_a_resume(
    fleet: Fleet, desk: Lender
) -> None:
    job = busy(fleet, desk, task_s=4)
    stopping.freeze(AttemptRecords(desk.state / "attempts").read_all().records)
    assert desk.owner("resume").returncode == 0
    wait_until(lambda: idle(desk) and ends(desk.state, job) != [], "the task ends")
    assert ends(desk.state, job) == ["succeeded"]


def test_what_a_pause_froze_that_was_cut_off_is_handed_back_like_other_frozen_work(
    fleet: Fleet, desk: Lender
) -> None:
    job = busy(fleet, desk)
    stopping.freeze(AttemptRecords(desk.state / "attempts").read_all().records)
    wait_until(lambda: ends(desk.state, job) == ["evicted"], "it is handed back")


def test_times_that_no_calendar_knows_are_refused(desk: Lender) -> None:
    socket = StateFolder(desk.state).control_socket
    for time_s in (1e300, -1.0, "soon", None):
        intent = {"paused_at": 1.0, "until": time_s} if time_s else {"paused_at": time_s}
        said = ask(socket, {"verb": "pause", "intent": intent}, 5.0)
        assert said["error"]["code"] == "malformed", json.dumps(said)
    assert desk.status()["phase"] == "lending"


def test_a_fifo_in_the_place_of_the_intent_holds_nobody_up(desk: Lender) -> None:
    intent = StateFolder(desk.state).intent
    intent.unlink(missing_ok=True)
    os.mkfifo(intent)
    wait_until(lambda: desk.status()["phase"] == "paused", "what can't be read is a pause", 10)
    assert desk.owner("resume").returncode == 0
    wait_until(desk.lending, "it lends again")
