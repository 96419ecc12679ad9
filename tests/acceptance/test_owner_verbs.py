"""Every word of an owner changes what the broker assigns, end to end through real processes."""

import re
import time
from collections.abc import Iterator

import pytest
from fleet import StandingFleet, states

from deploy.local.fleet import Fleet, Lender, wait_until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    """One machine, so that what it does not run nobody runs."""
    with StandingFleet("desk") as fleet:
        yield fleet


@pytest.fixture
def fleet(standing: StandingFleet) -> Fleet:
    return standing.in_order()


@pytest.fixture
def desk(fleet: Fleet) -> Lender:
    return fleet.lenders["desk"]


def owner(desk: Lender, *verb: str) -> str:
    said = desk.owner(*verb)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


def submit(fleet: Fleet, *command: str) -> str:
    said = fleet.submit("submit", "--no-wait", "--", *command)
    assert said.returncode == 0, said.stderr
    found = re.search(r"[A-Za-z0-9_-]{8,64}", said.stdout)
    assert found, said.stdout
    return found.group()


def state_of(fleet: Fleet, job: str) -> str:
    return states(fleet).get(job, "unknown")


def stays_queued(fleet: Fleet, job: str, for_s: float = 1.5) -> bool:
    """Whether nobody takes it: work that may run begins within tenths of a second."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        if state_of(fleet, job) != "queued":
            return False
        time.sleep(0.1)
    return True


def ends(fleet: Fleet, job: str) -> str:
    wait_until(lambda: state_of(fleet, job) not in ("queued", "running"), f"the end of {job}")
    return state_of(fleet, job)


def test_pause_and_resume(fleet: Fleet, desk: Lender) -> None:
    assert "verified" in owner(desk, "pause")
    job = submit(fleet, "true")
    assert stays_queued(fleet, job)
    owner(desk, "resume")
    assert ends(fleet, job) == "succeeded"


def test_a_pause_for_a_while_ends_by_itself_also_over_a_restart(fleet: Fleet, desk: Lender) -> None:
    owner(desk, "pause", "--for", "6s")
    until = desk.status()["paused_until"]
    job = submit(fleet, "true")
    desk.kill()
    desk.start()
    wait_until(lambda: desk.status().get("connected") is True, "the daemon is back")
    status, state = desk.status(), state_of(fleet, job)
    assert status["paused_until"] == until
    # A busy machine may be longer about the restart than the pause lasts.
    assert (status["phase"], state) == ("paused", "queued") or time.time() >= until
    assert ends(fleet, job) == "succeeded"


def test_pause_finish_and_drain_let_what_runs_end_and_take_nothing_new(
    fleet: Fleet, desk: Lender
) -> None:
    for verb in (("pause", "--finish"), ("drain", "--deadline", "1m")):
        running = submit(fleet, "sleep", "1")
        wait_until(desk.busy, "the task runs")
        owner(desk, *verb)
        waiting = submit(fleet, "true")
        assert ends(fleet, running) == "succeeded"
        assert stays_queued(fleet, waiting)
        owner(desk, "resume")
        assert ends(fleet, waiting) == "succeeded"


def test_a_drain_hands_back_at_its_deadline_what_has_not_finished(
    fleet: Fleet, desk: Lender
) -> None:
    job = submit(fleet, "sleep", "30")
    wait_until(desk.busy, "the task runs")
    owner(desk, "drain", "--deadline", "1s")
    wait_until(lambda: not desk.status()["running"], "the task went back")
    assert state_of(fleet, job) in ("queued", "running"), "it costs the job nothing"
    told = lambda: desk.owner("log", job).stdout  # noqa: E731 - a question
    wait_until(lambda: "time to finish is over" in told(), "the log tells of it")


def test_revoke_and_grant(fleet: Fleet, desk: Lender) -> None:
    owner(desk, "revoke", "--all")
    job = submit(fleet, "true")
    assert stays_queued(fleet, job)
    fleet.grant(desk, "command")
    assert ends(fleet, job) == "succeeded"


def test_a_grant_for_other_hours_assigns_nothing_now(fleet: Fleet, desk: Lender) -> None:
    owner(desk, "revoke", "--all")
    tomorrow = time.strftime("%a", time.localtime(time.time() + 2 * 86_400))
    verb = ("grant", f"demo={fleet.submitter}", "--workload", "command", "--expires", "1d", "--yes")
    owner(desk, *verb, "--when", f"{tomorrow} 10:00-11:00")
    job = submit(fleet, "true")
    assert stays_queued(fleet, job)
    assert tomorrow in desk.owner("status").stdout + desk.owner("why").stdout
    fleet.grant(desk, "command")
    assert ends(fleet, job) == "succeeded"


def test_a_used_up_budget_stops_the_work_and_assigns_no_more(fleet: Fleet, desk: Lender) -> None:
    owner(desk, "revoke", "--all")
    verb = ("grant", f"demo={fleet.submitter}", "--workload", "command", "--expires", "1d", "--yes")
    owner(desk, *verb, "--when", "always", "--budget", "0.0001cpuh/day")
    job = submit(fleet, "sh", "-c", "while :; do :; done")
    # What is lent gets little of a processor that others keep busy.
    stopped = lambda: not desk.status()["running"] and "CPU" in desk.owner("why").stdout  # noqa: E731 - a question
    wait_until(stopped, "a stop", within_s=90)
    waiting = submit(fleet, "true")
    assert stays_queued(fleet, waiting)
    assert state_of(fleet, job) in ("queued", "running"), "it costs the job nothing"
