"""What the broker's core counts of its decisions."""

from broker_world import ALICE, L1, L2, World, job_spec


def test_submissions_ends_and_faults_are_counted_once() -> None:
    world = World()
    figures = world.broker.state.figures
    world.submit(job_spec())
    world.submit(job_spec())
    world.submit_raw(f"submit.{ALICE.public_key}.job-0002", {}, b"no specification")
    world.submit(job_spec(job="job-0003"))
    world.cancel("job-0003")
    assert figures.submissions == 3
    assert figures.jobs_ended == {"rejected": 1, "cancelled": 1}
    assert sum(figures.jobs_rejected.values()) == 1
    world.offer(L1)
    assert world.run(world.pull()) == "committed"
    assert figures.jobs_ended["succeeded"] == 1
    assert figures.tasks_ended == {"succeeded": 1}


def test_waits_losses_and_what_is_handed_back_are_counted() -> None:
    world = World()
    figures, waits = world.broker.state.figures, []
    figures.lease_waited = waits.append
    figures.job_waited = waits.append
    world.submit(job_spec(count=2))
    world.pass_time(3)
    world.offer(L1)
    lease = world.pull()
    world.pass_time(1)
    world.offer(L1, leases=[lease])
    assert waits == [1.0, 4.0]
    world.pass_time(3)
    assert figures.attempts_lost == len(lease.ranges)
    world.offer(L2)
    again = world.pull()
    world.offer(L2, leases=[again])
    world.report(again, [], lender=L2, outcome="evicted")
    assert figures.leases_handed_back == {"evicted": 1}
    assert figures.leases >= 2
    assert figures.tasks_leased >= 2
