"""Nobody has more in the broker than its operator allows, and nobody pays for those who try."""

import pytest
from broker_world import ALICE, BOB, L1, L2, START, World, check_places, class_of, job_spec, ok

from broker.core.broker import Broker
from broker.core.effects import PutOff
from broker.core.events import JobReplayed, ReplayCompleted, ResultReplayed, SubmittersChanged
from broker.core.intake.quotas import DEFAULT, Quota
from lender.protocol.codec import CONTENT_TYPE_HEADER, JSON, encode
from lender.protocol.signature import Signer

ANY = [class_of(ALICE), class_of(BOB)]
BOTH = frozenset((ALICE.public_key, BOB.public_key))


def allow(world: World, **quota: int) -> None:
    """Give Alice a quota; Bob has what is usual."""
    quotas = {ALICE.public_key: DEFAULT._replace(**quota)}
    world.do(SubmittersChanged(BOTH, {}, quotas))


def submit_many(world: World, count: int, signer: Signer = ALICE, **fields: object) -> None:
    for number in range(count):
        world.submit(job_spec(signer, f"job-{number:04d}", **fields), signer)


def refused(world: World, job: str) -> str:
    """Return what was said of a job that was too many."""
    terminal = world.terminal(job)
    assert terminal is not None
    assert (terminal.state, terminal.field) == ("rejected", "quota")
    return terminal.reason or ""


def out(world: World, signer: Signer = ALICE) -> int:
    return sum(one.task_count for one in world.queued(class_of(signer)))


def test_a_job_too_many_is_rejected_and_others_are_not() -> None:
    world = World()
    allow(world, jobs_max=2)
    submit_many(world, 3)
    assert "you have 2 jobs that have not ended, of 2" in refused(world, "job-0002")
    submit_many(world, 3, BOB)
    assert world.terminal("job-0002", BOB) is None


def test_what_has_ended_makes_room() -> None:
    world = World()
    allow(world, jobs_max=2)
    submit_many(world, 2)
    world.cancel("job-0000")
    world.submit(job_spec(job="job-0002"))
    assert world.terminal("job-0002") is None
    world.submit(job_spec(job="job-0003"))
    assert "quota" in (world.query("job-0003").jobs[0].why)


def test_tasks_of_all_jobs_count_together_until_these_end() -> None:
    world = World()
    allow(world, tasks_max=10)
    world.submit(job_spec(job="job-0000", count=6))
    world.submit(job_spec(job="job-0001", count=5))
    said = refused(world, "job-0001")
    assert said.startswith("5 tasks are too many beside the 6 of your jobs that have not ended")
    assert "10" in said
    world.submit(job_spec(job="job-0002", count=4))
    assert world.terminal("job-0002") is None


def test_the_bytes_of_specifications_count() -> None:
    world = World()
    spec = job_spec(job="job-0000", argv=("x" * 5000,))
    allow(world, bytes_max=2 * len(encode(spec)) - 1)
    world.submit(spec)
    world.submit(job_spec(job="job-0001", argv=("x" * 5000,)))
    assert "bytes are too many beside the" in refused(world, "job-0001")


@pytest.mark.parametrize(
    ("content_type", "told_in"), [(JSON, JSON), ("text/plain", "application/msgpack")]
)
def test_who_has_its_most_is_told_so_unread(content_type: str, told_in: str) -> None:
    world = World()
    allow(world, jobs_max=1)
    submit_many(world, 1)
    subject = f"submit.{ALICE.public_key}.job-0001"
    world.submit_raw(subject, {CONTENT_TYPE_HEADER: content_type}, b"no specification")
    refused(world, "job-0001")
    headers, _ = world.results[f"res.{ALICE.public_key}.job-0001"]
    assert headers[CONTENT_TYPE_HEADER] == told_in


def test_a_fault_is_told_as_such_while_there_is_room() -> None:
    world = World()
    allow(world, jobs_max=1)
    world.submit_raw(f"submit.{ALICE.public_key}.job-0001", {}, b"no specification")
    terminal = world.terminal()
    assert terminal is not None
    assert terminal.field == "payload"


def test_a_smaller_quota_ends_nothing() -> None:
    world = World()
    submit_many(world, 3)
    allow(world, jobs_max=1)
    world.offer()
    assert len(world.work) == 3
    world.submit(job_spec(job="job-0003"))
    assert "you have 3 jobs" in refused(world, "job-0003")


def test_no_more_tasks_are_out_than_may_be_and_others_use_the_room() -> None:
    world = World()
    allow(world, running_tasks_max=3)
    submit_many(world, 10)
    world.offer(classes=ANY, slots=4)
    assert out(world) == 3
    submit_many(world, 10, BOB)
    assert (out(world), out(world, BOB)) == (3, 5)
    check_places(world)


def test_a_submitter_at_its_cap_goes_on_when_a_task_ends() -> None:
    world = World()
    allow(world, running_tasks_max=2)
    submit_many(world, 6)
    world.offer(slots=4)
    for _ in range(6):
        assert 1 <= out(world) <= 2
        world.run(world.pull())
    assert out(world) == 0
    assert not list(world.broker.state.jobs)


def test_a_task_that_comes_back_makes_way_for_the_next() -> None:
    """Its lender is paused then, and another has had room all the time."""
    world = World()
    allow(world, running_tasks_max=1)
    submit_many(world, 2)
    world.offer(L1, slots=1)
    lease = world.pull()
    world.offer(L1, slots=1, leases=[lease], phase="paused")
    world.offer(L2, slots=2)
    assert out(world) == 1
    world.cancel(lease.job)
    world.ack(lease)
    assert [one.job for one in world.queued()] == ["job-0001"]


def test_an_array_is_leased_in_parts_that_fit() -> None:
    world = World()
    allow(world, running_tasks_max=50)
    world.submit(job_spec(count=1000))
    world.offer(slots=1)
    world.run(world.pull(), duration_s=0.001)
    assert 1 < out(world) <= 50
    while world.work:
        world.run(world.pull(), duration_s=0.001)
        assert out(world) <= 50
    terminal = world.terminal()
    assert terminal is not None
    assert terminal.tasks_succeeded == 1000


def test_a_higher_cap_counts_at_once() -> None:
    world = World()
    allow(world, running_tasks_max=1)
    submit_many(world, 6)
    world.offer(slots=2)
    assert out(world) == 1
    allow(world, running_tasks_max=1)
    assert out(world) == 1
    allow(world, running_tasks_max=3)
    assert out(world) == 3
    allow(world)
    assert out(world) == 4


def test_a_cap_that_was_lowered_is_reached_in_time() -> None:
    world = World()
    submit_many(world, 8)
    world.offer(slots=2)
    assert out(world) == 4
    allow(world, running_tasks_max=1)
    for left in (3, 2, 1, 1):
        world.run(world.pull())
        assert out(world) == left


def test_what_the_operator_holds_back_is_handed_out_no_more_and_he_can_let_it_go_on() -> None:
    """Of one whose key was stolen: it submits no more, and what it has submitted is still there."""
    world = World()
    submit_many(world, 6)
    submit_many(world, 2, BOB)
    world.offer(slots=2, classes=ANY)
    before = out(world)
    assert before > 0
    allow(world, running_tasks_max=0)
    for left in range(before - 1, -1, -1):
        world.run(world.pull(class_of(ALICE)))
        assert out(world) == left
    world.offer(slots=2, classes=ANY)
    assert out(world) == 0
    assert out(world, BOB) == 2
    assert world.query("job-0005").jobs[0].why == "the operator holds your work back: ask there"
    allow(world)
    world.offer(slots=2, classes=ANY)
    assert out(world) > 0


def test_waiting_for_ones_own_tasks_is_told() -> None:
    world = World()
    allow(world, running_tasks_max=1)
    submit_many(world, 2)
    assert "no machine offers it" in world.query("job-0001").jobs[0].why
    world.offer(slots=4)
    assert "waiting for one to take it" in world.query("job-0000").jobs[0].why
    why = world.query("job-0001").jobs[0].why
    assert why == "waiting for tasks of yours to end: 1 are handed out, as many as you may"


def test_a_partly_reported_lease_counts_until_it_ends() -> None:
    world = World()
    allow(world, running_tasks_max=10)
    world.submit(job_spec(count=40))
    world.offer(slots=1)
    while (lease := world.pull()).task_count == 1:
        world.run(lease, duration_s=0.001)
    assert (lease.task_count, out(world)) == (9, 10)
    world.report(lease, [ok(task, 0.001) for task in lease.tasks()[:5]], final=False)
    assert out(world) == 10
    world.run(lease, duration_s=0.001)
    assert out(world) == 10


def test_a_new_broker_counts_what_it_finds() -> None:
    world = World()
    allow(world, jobs_max=3, running_tasks_max=1)
    submit_many(world, 3)
    world.offer(slots=4)
    assert out(world) == 1
    world.start()
    allow(world, jobs_max=3, running_tasks_max=1)
    world.offer(slots=4)
    assert out(world) == 1
    world.submit(job_spec(job="job-0003"))
    refused(world, "job-0003")


def test_a_start_leaves_to_the_ledger_what_is_beyond_the_usual(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    submit_many(world, 5)
    world.offer(slots=1)
    world.report(world.pull(), [ok()])
    monkeypatch.setattr("broker.core.intake.quotas.DEFAULT", DEFAULT._replace(jobs_max=2))
    broker = Broker(world.new_lease_id, BOTH)
    put_off = []
    for subject, (headers, _) in world.results.items():
        broker.handle(START, ResultReplayed(subject, headers))
    for subject, headers, payload in world.jobs:
        effects = broker.handle(START, JobReplayed(subject, headers, payload))
        put_off += [subject[-8:] for _ in effects]
        assert set(effects) <= {PutOff()}
    assert put_off == ["job-0003", "job-0004"], "the first has ended"
    broker.handle(START, ReplayCompleted())
    assert [job.key.job for job in broker.state.jobs] == ["job-0001", "job-0002"]


def test_a_start_keeps_jobs_that_have_results(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    for number in range(3):
        world.submit(job_spec(job=f"job-{number:04d}", count=2))
    world.offer(slots=4)
    for lease in world.queued():
        if lease.tasks() == [0]:
            world.report(lease, [ok()])
    monkeypatch.setattr("broker.core.intake.quotas.DEFAULT", DEFAULT._replace(bytes_max=1))
    world.start()
    assert len(list(world.broker.state.jobs)) == 3


def test_nothing_is_kept_of_those_who_have_nothing() -> None:
    world = World()
    allow(world, running_tasks_max=1)
    submit_many(world, 2)
    world.offer(slots=2)
    for job in ("job-0001", "job-0000"):
        world.cancel(job)
    quotas = world.broker.state.quotas
    assert not vars(quotas)["_used"]
    assert not vars(quotas)["_passed_over"]
    assert quotas.of(ALICE.public_key).running_tasks_max == 1
    assert quotas.room(ALICE.public_key) == 1


def test_what_is_usual_is_finite() -> None:
    assert Quota() == DEFAULT
    assert max(DEFAULT.jobs_max * 4096, DEFAULT.bytes_max) < 1 << 29
    assert START
