"""A job's way through the broker, seen from its submitter and from its lenders."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from broker_world import ALICE, BOB, L1, L2, START, World, bad, class_of, job_spec, ok

from broker.core.broker import Broker
from broker.core.events import (
    ClockJumped,
    Committed,
    FeedFailed,
    JobSubmitted,
    LeaseFed,
    OfferReceived,
    ReplayCompleted,
)
from broker.core.gangs import gang as gangs
from broker.core.jobs.job import TRANSITIONS, Job
from lender.protocol.codec import JSON, encode
from lender.protocol.lease import Done
from lender.protocol.result import Output

FAR = START + 1e9


def terminal_state(world: World, job: str = "job-0001") -> str | None:
    terminal = world.terminal(job)
    return terminal.state if terminal else None


def test_one_task_one_terminal_record_with_its_result() -> None:
    world = World()
    world.submit(job_spec())
    world.offer()
    lease = world.pull()
    assert (lease.attempt, lease.tasks(), lease.task_count) == (1, [0], 1)
    reply = world.report(lease, [ok(0, value=b"hello")])
    assert world.verdict(reply) == "committed"
    assert len(world.results) == 1
    terminal = world.terminal()
    assert terminal is not None
    assert terminal.state == "succeeded"
    assert terminal.result is not None
    assert terminal.result.value == b"hello"
    assert (terminal.lender, terminal.attempt, terminal.tasks_total) == (L1, 1, 1)


def test_nothing_is_told_before_it_is_durable() -> None:
    world = World(land_commits=False)
    world.submit(job_spec())
    world.offer()
    lease = world.pull()
    reply = world.report(lease, [ok()])
    again = world.report(lease, [ok()])
    assert world.verdict(reply) is None
    assert world.verdict(again) is None
    assert not [event for event in world.events if "Lender-Subject" in event.headers]
    assert len(world.in_flight) == 1, "a repeated report is committed again"
    world.land()
    assert world.verdict(reply) == "committed"
    assert world.verdict(again) == "committed"
    event = world.events[-1]
    assert event.headers["Lender-Subject"] == f"res.{ALICE.public_key}.job-0001"
    assert event.payload == world.results[f"res.{ALICE.public_key}.job-0001"][1]


def test_commits_land_in_order() -> None:

    world = World(land_commits=False)
    with pytest.raises(RuntimeError, match="oldest"):
        world.do(Committed(7))


def test_the_submitter_is_told_when_the_job_starts() -> None:
    world = World()
    world.submit(job_spec())
    world.offer()
    lease = world.pull()
    assert world.query("job-0001").jobs[0].state == "queued"
    world.offer(leases=[lease])
    assert world.events[-1].headers["Lender-State"] == "running"
    (status,) = world.query("job-0001").jobs
    assert (status.state, status.tasks_running, status.why) == ("running", 1, "")


def test_that_a_job_runs_is_no_news_when_it_has_just_ended() -> None:
    world = World()
    world.submit(job_spec())
    world.offer()
    assert world.run(world.pull()) == "committed"
    assert [one.headers.get("Lender-State") for one in world.events] == [None]
    world.submit(job_spec(job="job-0002", count=5))
    world.offer(slots=3)
    assert world.run(world.pull()) == "committed"
    assert world.terminal(job="job-0002") is None, "it goes on"
    assert [one.headers.get("Lender-State") for one in world.events][1] == "running"


def test_an_array_comes_back_in_chunks_and_ends_once() -> None:
    world = World()
    world.submit(job_spec(count=5))
    world.offer(slots=3)
    while world.terminal() is None:
        assert world.run(world.pull()) == "committed"
    assert sorted(result.task for result in world.tasks()) == [0, 1, 2, 3, 4]
    terminal = world.terminal()
    assert terminal is not None
    assert (terminal.state, terminal.tasks_succeeded) == ("succeeded", 5)
    assert terminal.result is None
    (status,) = world.query().jobs
    assert (status.state, status.tasks_succeeded, status.tasks_total) == ("succeeded", 5, 5)


def test_an_array_with_failed_tasks_has_failed() -> None:
    world = World()
    world.submit(job_spec(count=2))
    world.offer()
    for lease in world.queued():
        world.report(lease, [bad(task) if task else ok(task) for task in lease.tasks()])
    terminal = world.terminal()
    assert terminal is not None
    assert (terminal.state, terminal.reason) == ("failed", "1 of 2 tasks failed")
    assert (terminal.tasks_succeeded, terminal.tasks_failed) == (1, 1)


def test_results_come_back_in_the_submissions_content_type() -> None:
    world = World()
    world.submit(job_spec(count=1), content_type=JSON)
    world.offer()
    world.run(world.pull())
    for headers, payload in world.results.values():
        assert headers["Content-Type"] == JSON
        assert payload.startswith(b"{")
    assert len(world.results) == 2


def test_large_results_are_split_into_several_chunks() -> None:
    world = World()
    world.submit(job_spec(count=40))
    world.offer(slots=1)
    world.run(world.pull(), duration_s=0.001)
    lease = max(world.queued(), key=lambda one: one.task_count)
    assert lease.task_count > 12
    value = b"x" * 60_000
    blob = Output(name="a.out", sha256="0" * 64, size_bytes=1)
    world.report(
        lease, [ok(n, value=value).model_copy(update={"outputs": (blob,)}) for n in lease.tasks()]
    )
    sizes = [len(payload) for _, payload in world.results.values()]
    assert len(sizes) > 2
    assert max(sizes) < 600_000
    assert len(world.tasks()) == lease.task_count + 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "exit code 1"),
        ({"limit": "memory"}, "the memory limit was hit"),
        ({"error": "no such file"}, "no such file"),
    ],
)
def test_a_failed_task_says_why(fields: dict[str, str], reason: str) -> None:
    world = World()
    world.submit(job_spec())
    world.offer()
    world.report(world.pull(), [bad(0, **fields)])
    terminal = world.terminal()
    assert terminal is not None
    assert (terminal.state, terminal.reason) == ("failed", reason)


def test_failures_of_the_work_consume_retries() -> None:
    world = World()
    world.submit(job_spec(retries=2))
    world.offer()
    for attempt in (1, 2, 3):
        assert world.terminal() is None
        lease = world.pull()
        assert lease.attempt == attempt
        world.report(lease, [bad()])
        world.ack(lease)
        rest(world)
    terminal = world.terminal()
    assert terminal is not None
    assert (terminal.state, terminal.attempt) == ("failed", 3)


def rest(world: World, seconds: float = 70.0) -> None:
    """Wait with a lender that is there all the time."""
    end = world.now + seconds
    while world.now < end:
        world.pass_time(1.0)
        world.offer()


def test_who_failed_rests_twice_as_long_each_time() -> None:
    world = World()
    world.submit(job_spec(retries=10))
    world.offer()
    for rest_s in (1, 2, 4, 8, 16, 32, 60, 60):
        lease = world.pull()
        world.report(lease, [bad()])
        world.ack(lease)
        rest(world, rest_s - 1)
        assert world.work == {}
        assert world.query().jobs[0].why.startswith("its failed task runs again in ")
        rest(world, 1 + rest_s // 8 + 1)
    assert world.pull().attempt == 9


@pytest.mark.parametrize("by_s", [-1000.0, 1000.0])
def test_a_rest_is_as_long_where_the_clock_jumps(by_s: float) -> None:
    world = World()
    world.submit(job_spec(retries=1))
    world.offer()
    lease = world.pull()
    world.report(lease, [bad()])
    world.ack(lease)
    world.now += by_s
    world.do(ClockJumped(by_s))
    world.pass_time(0.9)
    assert world.work == {}
    world.pass_time(0.3)
    world.offer()
    assert world.pull().attempt == 2


def test_failed_tasks_rest_together() -> None:
    """As many intervals as there are times to wake up, however many tasks fail."""
    world = World()
    world.submit(job_spec(count=2000, retries=1))
    world.offer()
    world.run(world.pull(), duration_s=0.001)
    world.offer()
    failed = 0
    for _ in range(30):
        lease = world.pull()
        world.report(lease, [bad(task, duration_s=0.001) for task in lease.tasks()])
        world.ack(lease)
        failed += lease.task_count
        world.pass_time(0.01)
        world.offer()
    (job,) = world.broker.state.jobs
    assert sum(len(one.tasks) for one in job.resting) == failed > 500
    assert len(job.resting) <= 4


def test_tasks_of_different_attempts_rest_together_and_go_on_above_both() -> None:
    world = World()
    world.submit(job_spec(count=2, retries=1))
    world.offer(slots=1)
    first, second = world.queued()
    world.report(first, [], outcome="evicted")
    world.ack(first)
    again = world.queued()[-1]
    assert (first.tasks(), again.tasks(), again.attempt) == ([0], [0], 2)
    for lease in (second, again):
        world.report(lease, [bad(task) for task in lease.tasks()])
        world.ack(lease)
    assert world.query().jobs[0].why.startswith("2 failed tasks run again in 1.")
    rest(world, 2)
    for lease in world.queued():
        assert lease.attempt == 3


@pytest.mark.parametrize("outcome", ["refused", "evicted", "revoked"])
def test_a_lease_handed_back_costs_no_retry(outcome: str) -> None:
    world = World()
    world.submit(job_spec(retries=1))
    world.offer()
    for attempt in range(1, 5):
        lease = world.pull()
        assert lease.attempt == attempt
        assert world.verdict(world.report(lease, [], outcome=outcome, reason="no")) == "committed"
        world.ack(lease)
        world.pass_time(15)
        world.offer()
    lease = world.pull()
    world.report(lease, [bad()])
    world.ack(lease)
    rest(world)
    world.run(world.pull())
    terminal = world.terminal()
    assert terminal is not None
    assert (terminal.state, terminal.attempt) == ("succeeded", 6)


def test_results_of_an_evicted_lease_count() -> None:
    world = World()
    world.submit(job_spec(count=100))
    world.offer(slots=1)
    world.run(world.pull(), duration_s=0.01)
    lease = max(world.queued(), key=lambda one: one.task_count)
    tasks = lease.tasks()
    world.report(lease, [ok(tasks[0])], final=False)
    world.report(lease, [ok(tasks[1])], outcome="evicted")
    world.ack(lease)
    assert sorted(result.task for result in world.tasks()) == [0, tasks[0], tasks[1]]
    again = next(one for one in world.queued() if one.attempt == 2)
    assert set(again.tasks()) <= set(tasks[2:])


def test_invalid_rejects_the_job_for_good_with_field_and_reason() -> None:
    world = World()
    world.submit(job_spec(count=3))
    world.offer(L1, slots=1)
    world.offer(L2, slots=1)
    first, second = world.queued()[:2]
    world.offer(L2, slots=1, leases=[second])
    reply = world.report(first, [], outcome="invalid", field="program", reason="no module")
    assert world.verdict(reply) == "committed"
    terminal = world.terminal()
    assert terminal is not None
    assert (terminal.state, terminal.field, terminal.reason) == ("rejected", "program", "no module")
    assert second.lease in world.cancelled(L2)
    world.ack(first)
    assert world.work == {}
    assert world.verdict(world.report(second, [ok(1)], L2)) == "stale"
    assert world.tasks() == []


def test_a_cancelled_job_ends_at_once_and_its_leases_with_it() -> None:
    world = World(land_commits=False)
    world.submit(job_spec(count=10))
    world.offer(L1)
    lease = world.pull()
    world.offer(L1, leases=[lease])
    world.cancel("job-0001")
    assert world.cancelled(L1) == [lease.lease]
    world.land()
    assert terminal_state(world) == "cancelled"
    assert world.work == {}
    assert world.verdict(world.report(lease, [ok(0)])) == "stale"
    world.cancel("job-0001")
    assert len(world.results) == 1


def test_a_lease_whose_feed_is_answered_after_the_cancel_is_deleted() -> None:
    world = World(answer_feeds=False)
    world.submit(job_spec())
    world.offer()
    world.cancel("job-0001")
    world.store_feed()
    assert world.work == {}


def test_a_cancellation_that_overtakes_its_job_ends_it_when_it_comes() -> None:
    world = World()
    world.cancel("job-0001")
    world.submit(job_spec())
    assert terminal_state(world) == "cancelled"
    world.offer()
    assert world.work == {}


def test_a_cancellation_of_an_ended_job_changes_nothing() -> None:
    world = World()
    world.submit(job_spec())
    world.offer()
    world.run(world.pull())
    world.cancel("job-0001")
    assert terminal_state(world) == "succeeded"


def test_a_job_expires() -> None:
    world = World()
    world.submit(job_spec(not_after=START + 10))
    world.offer()
    lease = world.pull()
    world.pass_time(9.9)
    assert world.terminal() is None
    world.pass_time(0.1)
    terminal = world.terminal()
    assert terminal is not None
    assert (terminal.state, terminal.field) == ("expired", "not_after")
    assert world.work == {}
    assert world.verdict(world.report(lease, [ok()])) == "stale"


def test_a_submission_that_is_known_already_changes_nothing() -> None:
    world = World()
    world.submit(job_spec())
    world.do(JobSubmitted(*world.jobs[0]))
    world.offer()
    world.run(world.pull())
    world.do(JobSubmitted(*world.jobs[0]))
    assert world.refused_records == []
    assert len(world.results) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"results": (ok(5),)},
        {"results": (ok(0), ok(0))},
        {"job": "job-9999"},
        {"results": (ok(0).model_copy(update={"duration_s": 1.7e308}),)},
        {"submitter": BOB.public_key},
    ],
)
def test_a_report_that_does_not_fit_its_lease_is_malformed(change: dict[str, object]) -> None:
    world = World()
    world.submit(job_spec())
    world.offer()
    lease = world.pull()
    done = Done(
        lease=lease.lease, job=lease.job, submitter=lease.submitter, results=(ok(0),), final=True
    )
    reply = world.report_raw(encode(done.model_copy(update=change)))
    assert world.verdict(reply) == "malformed"
    assert world.results == {}
    assert world.run(lease) == "committed"


def test_a_report_that_is_no_report_is_malformed() -> None:
    world = World()
    assert world.verdict(world.report_raw(b"\xc1")) == "malformed"


def test_only_the_holder_may_answer() -> None:
    world = World()
    world.submit(job_spec())
    world.offer(L1)
    lease = world.pull()
    world.offer(L1, leases=[lease])
    assert world.verdict(world.report(lease, [ok()], L2)) == "stale"
    world.offer(L2, leases=[lease])
    assert world.cancelled(L2) == [lease.lease]
    assert world.run(lease, L1) == "committed"
    assert world.verdict(world.report(lease, [ok()], L2)) == "stale"
    assert world.verdict(world.report(lease, [ok()], L1)) == "committed"


def test_a_finished_report_that_leaves_tasks_out_hands_them_back() -> None:
    world = World()
    world.submit(job_spec())
    world.offer()
    lease = world.pull()
    assert world.verdict(world.report(lease, [])) == "committed"
    world.ack(lease)
    world.pass_time(1)
    world.offer()
    assert world.pull().attempt == 2


def test_results_all_reported_before_the_final_word() -> None:
    world = World()
    world.submit(job_spec(count=1))
    world.offer()
    lease = world.pull()
    world.report(lease, [ok()], final=False)
    assert terminal_state(world) == "succeeded"
    assert world.cancelled(L1) == []
    assert world.verdict(world.report(lease, [])) == "committed"


def test_a_feed_that_may_have_failed_is_leased_anew() -> None:
    world = World(answer_feeds=False)
    world.submit(job_spec())
    world.offer()
    lost = world.feeds.pop(0).lease
    world.do(FeedFailed(lost.lease, "timeout"))
    assert world.feeds == []
    world.pass_time(1)
    again = world.feeds[0].lease
    assert (again.attempt, again.tasks()) == (2, [0])
    assert again.lease != lost.lease
    world.do(FeedFailed(lost.lease, "timeout"))
    assert len(world.feeds) == 1
    world.do(LeaseFed(lost.lease, 99))  # it had been stored after all
    assert world.verdict(world.report(lost, [ok()])) == "stale"


def test_a_feed_that_somebody_took_has_not_failed() -> None:
    world = World(answer_feeds=False)
    world.submit(job_spec())
    world.offer()
    lease = world.feeds.pop(0).lease
    world.offer(leases=[lease])
    world.do(FeedFailed(lease.lease, "timeout"))
    assert world.run(lease) == "committed"
    world.do(LeaseFed(lease.lease, 5))
    assert world.feeds == []


def test_the_table_of_states_is_kept() -> None:
    world = World()
    world.submit(job_spec())
    (job,) = world.broker.state.jobs
    assert isinstance(job, Job)
    with pytest.raises(RuntimeError, match="queued -> succeeded"):
        job.enter("succeeded")
    assert all(not TRANSITIONS[state] for state in TRANSITIONS["running"])


def test_events_that_can_not_be_are_our_own_mistake() -> None:

    broker = Broker(lambda: "", frozenset())
    with pytest.raises(RuntimeError, match="before"):
        broker.handle(START, OfferReceived(L1, b""))
    world = World()
    with pytest.raises(RuntimeError, match="after"):
        world.do(ReplayCompleted())


def test_a_class_is_no_other_class() -> None:
    world = World()
    world.submit(job_spec(workload="checksum"))
    world.offer(classes=[class_of()])
    assert world.work == {}


@pytest.mark.parametrize(
    ("heading", "table"), [("A job", TRANSITIONS), ("A gang", gangs.TRANSITIONS)]
)
def test_the_readme_shows_the_tables_of_states(
    heading: str, table: Mapping[str, frozenset[str]]
) -> None:
    text = (Path(__file__).parents[2] / "broker" / "README.md").read_text()
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    shown = {
        source: frozenset(targets.split(" | "))
        for source, targets in re.findall(r"^(\w+) +-> (\w+(?: \| \w+)*)$", section, re.MULTILINE)
    }
    assert shown == {state: targets for state, targets in table.items() if targets}
