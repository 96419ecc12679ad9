"""What a submitter is told of one task of a job."""

from broker_world import L1, L2, World, bad, job_spec
from gangs import begun, gang
from verified_jobs import answer, taken, verified

from lender.protocol.job import After, Array, Requires


def where(world: World, task: int, job: str = "job-0001") -> tuple[str, str] | None:
    """The task's state, and why."""
    (status,) = world.query(job, task=task).jobs
    return (status.task.state, status.task.why) if status.task else None


def test_a_task_waits_is_handed_out_is_prepared_runs_and_has_its_result() -> None:
    world = World()
    world.submit(job_spec(count=3))
    assert where(world, 2) == (
        "waiting",
        "no machine offers it: none lends command (process) to this submitter in pool default",
    )
    world.offer(slots=1)
    lease = world.pull()
    first = lease.tasks()[0]
    assert where(world, first) == (
        "waiting",
        "attempt 1 is handed out, waiting for a machine to take it",
    )
    world.offer(slots=1, leases=[lease], state="preparing")
    world.pass_time(2.0)
    said = f"attempt 1 is with lender {L1[:8]} for 2 s"
    assert where(world, first) == ("running", f"{said}, which prepares for it")
    world.offer(slots=1, leases=[lease])
    assert where(world, first) == ("running", said)
    world.run(lease)
    assert where(world, first) is None
    assert world.query("job-0001", task=3).jobs[0].task is None
    assert world.query("job-0001").jobs[0].task is None


def test_a_task_behind_another_of_its_lease_says_so() -> None:
    world = World()
    world.submit(job_spec(array=Array(count=900, tasks=((2, 1), (5, 800)))))
    world.offer(slots=1)
    while len((lease := world.pull()).tasks()) < 2:
        world.run(lease, duration_s=0.01)
    first, second = lease.tasks()[:2]
    world.offer(slots=1, leases=[lease])
    said = f"attempt 1 is with lender {L1[:8]} for 0 s"
    assert where(world, first) == ("running", said)
    assert where(world, second) == ("running", f"{said}, behind task {first}")
    assert where(world, 804) == ("waiting", "1 machine matches it: 1 busy")
    assert where(world, 4) is None


def test_a_task_that_has_failed_waits_for_its_next_attempt() -> None:
    world = World()
    world.submit(job_spec(count=2, retries=1))
    world.offer(slots=1)
    lease = world.pull()
    (first, *_) = lease.tasks()
    world.report(lease, [bad(first)], final=False)
    assert where(world, first) == ("waiting", "its failed task runs again in 1.0 s")


def test_all_tasks_wait_for_another_job_or_for_their_gang() -> None:
    world = World()
    world.submit(job_spec(requires=Requires(arch="aarch64")))
    world.submit(job_spec(job="job-0002", count=5, after=(After(job="job-0001"),)))
    assert where(world, 4, "job-0002") == ("waiting", "waits for job job-0001 (queued)")
    world.submit(gang(4))
    state, why = where(world, 3, "gang-0001") or ("", "")
    assert state == "waiting"
    assert why == world.query("gang-0001").jobs[0].why
    world, _ = begun()
    state, why = where(world, 3, "gang-0001") or ("", "")
    assert state == "running"
    assert "attempt 1 is with lender" in why


def test_a_task_that_is_verified_says_how_many_answers_are_in() -> None:
    world = World()
    verified(world, lenders=[])
    answer(world, L1)
    assert where(world, 0) == (
        "waiting",
        "waiting for a machine of another owner; 1 of 2 answers in",
    )
    taken(world, L2)
    assert where(world, 0) == (
        "running",
        f"attempt 2 is with lender {L2[:8]} for 0 s; 1 of 2 answers in",
    )
