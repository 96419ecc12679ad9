"""Results that are read as one run count as if each were looked at by itself."""

import pytest
from broker_proofs import ONE, begun, proven, report, signature
from broker_world import L1, L2, World, bad, job_spec, ok
from verified_jobs import taken, verified

from broker.core.leasing import reports
from lender.protocol.codec import JSON, decode
from lender.protocol.job import JobSpec
from lender.protocol.lease import Lease
from lender.protocol.result_run import RUN_MIN, ResultRun, decode_results

COUNT = 16 * RUN_MIN


def leased(spec: JobSpec) -> tuple[World, Lease]:
    """A world with that job, and its first lease, which has many tasks."""
    world = World()
    lease = begun(world, spec, ONE.public_key)
    assert lease.task_count >= 3 * RUN_MIN
    return world, lease


def short(count: int = COUNT, **fields: object) -> JobSpec:
    return job_spec(count=count, expected_s=0.001, **fields)


def done(world: World, lease: Lease, *tasks: int, **fields: object) -> str | None:
    results = [ok(task, 0.001 * task, b"%d" % task) for task in tasks]
    signed = signature(ONE, lease, results)
    reply = world.report(lease, results, ONE.public_key, signature=signed, **fields)
    return world.verdict(reply)


@pytest.mark.parametrize("content_type", [JSON, "application/msgpack"])
@pytest.mark.parametrize("separate", [False, True])
def test_what_is_stored_is_the_same(
    monkeypatch: pytest.MonkeyPatch, *, content_type: object, separate: bool
) -> None:
    worlds, runs = [], []
    for reader in (decode_results, decode):

        def read(*args: object, reader: object = reader) -> object:
            message = reader(*args)  # type: ignore[operator]
            runs.append(isinstance(message.results, ResultRun))
            return message

        monkeypatch.setattr(reports, "decode_results", read)
        world = World()
        world.submit(short(separate=separate), content_type=content_type)
        world.offer(ONE.public_key, slots=1)
        while world.terminal() is None:
            lease = world.pull()
            assert done(world, lease, *lease.tasks()) == "committed"
            world.ack(lease)
        worlds.append(world)
    one_by_one, in_runs = runs[len(runs) // 2 :], runs[: len(runs) // 2]
    assert any(in_runs)
    assert not any(one_by_one)
    first, second = worlds
    assert first.results == second.results
    assert [one.payload for one in first.events] == [one.payload for one in second.events]
    assert [one.task for one in first.tasks()] == list(range(COUNT))


def test_a_report_whose_answer_was_lost_is_repeated_and_counts_once() -> None:
    spec = short()
    world, lease = leased(spec)
    tasks = lease.tasks()
    part = tasks[: 2 * RUN_MIN]
    for _ in range(2):
        assert done(world, lease, *part, final=False) == "committed"
    assert [one.task for one in world.tasks()] == part
    assert done(world, lease, *tasks[RUN_MIN:]) == "committed"
    assert [one.task for one in world.tasks()] == tasks
    told = [proven(spec, chunk) for chunk in world.chunks()]
    assert told == [set(part), set(tasks) - set(part)]
    (status,) = world.query("job-0001").jobs
    assert status.tasks_succeeded == len(tasks)


def test_tasks_that_are_not_the_leases_are_refused_with_all_others() -> None:
    world, lease = leased(short())
    last = lease.tasks()[-1]
    before = dict(world.results)
    assert done(world, lease, *range(last - RUN_MIN, last + 2)) == "malformed"
    assert world.results == before
    assert done(world, lease, *lease.tasks()) == "committed"


def test_a_report_for_another_job_is_refused() -> None:
    world, lease = leased(short())
    told = lease.model_copy(update={"job": "job-0002"})
    assert done(world, told, *lease.tasks()) == "malformed"
    assert not world.chunks()


def test_what_was_tried_again_comes_in_runs_too() -> None:
    """Holes that failures leave are read one by one; what is between them as runs."""
    spec = short(retries=1)
    world, lease = leased(spec)
    tasks = lease.tasks()
    report(world, lease, [bad(one) if one == tasks[5] else ok(one) for one in tasks])
    world.pass_time(60.0)
    for _ in range(COUNT):
        if world.terminal() is not None:
            break
        world.offer(ONE.public_key)
        again = world.pull()
        report(world, again, [ok(one) for one in again.tasks()])
    terminal = world.terminal()
    assert terminal is not None
    assert (terminal.state, terminal.tasks_succeeded) == ("succeeded", COUNT)
    told = [task for chunk in world.chunks() for task in proven(spec, chunk)]
    assert sorted(told) == list(range(COUNT))


def test_of_tasks_that_several_answer_each_is_looked_at() -> None:
    world = verified(replicas=2, quorum=2, count=COUNT, expected_s=0.001)
    first = taken(world, L1)
    assert first.task_count >= RUN_MIN
    world.report(first, [ok(one) for one in first.tasks()], L1)
    world.ack(first)
    assert not world.tasks(), "one answer alone decides nothing"
    second = taken(world, L2)
    world.report(second, [ok(one) for one in second.tasks()], L2)
    assert {one.task for one in world.tasks()} == set(first.tasks()) & set(second.tasks())


def test_the_mean_is_learned_from_each(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = []
    for reader in (decode_results, decode):
        monkeypatch.setattr(reports, "decode_results", reader)
        world, lease = leased(short())
        assert done(world, lease, *lease.tasks()) == "committed"
        (job,) = world.broker.state.jobs
        learned.append((job.samples, job.mean_s, job.spread_s))
    assert learned[0] == learned[1]
    assert learned[0][0] == lease.task_count
