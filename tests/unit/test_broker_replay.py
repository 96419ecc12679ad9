"""A broker that was killed, at any point, goes on from what the streams hold."""

import pytest
from broker_world import ALICE, BOB, L1, L2, START, World, bad, class_of, job_spec, ok

from broker.core.broker import Broker
from broker.core.events import JobReplayed, ReplayCompleted, SubmittersChanged
from lender.protocol import subjects
from lender.protocol.codec import encode
from lender.protocol.job import Verify
from lender.protocol.lease import Lease
from lender.protocol.signature import SIGNATURE_HEADER


def test_queued_jobs_are_queued_again_in_order() -> None:
    world = World()
    for number in range(3):
        world.submit(job_spec(job=f"job-000{number}"))
    world.start()
    world.offer(slots=1)
    assert [lease.job for lease in world.queued()] == ["job-0000", "job-0001"]


def test_lenders_are_called_once_the_replay_is_complete() -> None:
    world = World()
    assert [(sent.lender, sent.control.kind) for sent in world.controls] == [("all", "hello")]


def test_outstanding_leases_go_on_under_their_ids_and_attempts() -> None:
    world = World()
    world.submit(job_spec())
    world.offer()
    lease = world.pull()
    world.start()
    world.offer(leases=[lease])
    assert world.queued() == [lease]
    (status,) = world.query().jobs
    assert status.tasks_running == 1
    assert world.run(lease) == "committed"
    assert world.terminal().state == "succeeded"


def test_tasks_in_neither_results_nor_work_are_pending() -> None:
    world = World()
    world.submit(job_spec(count=10))
    world.offer(slots=2)
    world.run(world.pull())
    lost = world.queued()
    world.work.clear()
    world.start()
    world.offer(slots=5)
    fed = [task for lease in world.queued() for task in lease.tasks()]
    assert sorted(fed) == list(range(1, 10))
    assert all(lease.attempt == 2 for lease in world.queued())
    assert world.verdict(world.report(lost[0], [ok(lost[0].tasks()[0])])) == "stale"


def test_ended_jobs_stay_ended_and_their_messages_are_deleted() -> None:
    world = World()
    world.submit(job_spec(name="mine"))
    world.offer()
    lease = world.pull()
    world.report(lease, [ok()])
    assert len(world.work) == 1, "its lender has yet to ack it"
    world.start()
    assert world.work == {}
    (status,) = world.query().jobs
    assert (status.state, status.name, status.submitted_at) == ("succeeded", "mine", START)
    assert world.verdict(world.report(lease, [ok()])) == "committed", "its answer was lost"
    assert len(world.results) == 1


def test_a_chunk_whose_answer_was_lost_is_answered_again() -> None:
    world = World()
    world.submit(job_spec(count=3))
    world.offer()
    lease = world.pull()
    world.report(lease, [ok()])
    world.start()
    assert world.verdict(world.report(lease, [ok()])) == "committed"
    assert len(world.tasks()) == 1


def test_a_missing_terminal_record_is_made_up_for() -> None:
    world = World(land_commits=False)
    world.submit(job_spec(count=2))
    world.offer()
    first, second = world.queued()
    world.report(first, [ok(0)])
    world.land()
    world.report(second, [bad(1)])
    (commit,) = world.in_flight
    # Atomic batches don't tear; a terminal record that was purged is missing all the same.
    record = commit.records[0]
    world.results[record.subject] = (dict(record.headers), record.payload)
    world.start()
    world.land()
    terminal = world.terminal()
    assert (terminal.state, terminal.tasks_succeeded, terminal.tasks_failed) == ("failed", 1, 1)


@pytest.mark.parametrize("landed", [True, False])
def test_a_commit_in_flight_at_the_crash_counts_if_it_landed(*, landed: bool) -> None:
    world = World(land_commits=False)
    world.submit(job_spec())
    world.offer()
    lease = world.pull()
    world.report(lease, [ok()])
    if landed:
        world.store(world.in_flight[0])
    world.land_commits = True
    world.start()
    assert world.verdict(world.report(lease, [ok()])) == "committed"
    assert len(world.results) == 1
    assert world.refused_records == []


def test_cancellations_and_expiries_during_the_outage_are_made_up_for() -> None:
    world = World()
    world.submit(job_spec())
    world.submit(job_spec(job="job-0002", not_after=START + 5))
    world.jobs.append((f"cancel.{ALICE.public_key}.job-0001", {}, b""))
    world.now += 10
    world.start()
    assert world.terminal().state == "cancelled"
    assert world.terminal("job-0002").state == "expired"


def test_submissions_during_the_outage_are_rejected_or_taken_up() -> None:
    world = World()
    world.jobs.append((f"submit.{ALICE.public_key}.job-0001", {}, b"\xc1"))
    world.start()
    assert world.terminal().state == "rejected"
    world.start()
    assert len(world.results) == 1


def test_of_two_leases_of_a_task_the_newer_counts() -> None:
    world = World()
    world.submit(job_spec())
    world.offer(L1)
    old = world.pull()
    message = next(iter(world.work.values()))
    world.offer(L1, leases=[old])
    world.pass_time(3)
    world.offer(L2)
    new = world.pull()
    world.work[0] = message  # the deletion did not survive
    world.start()
    assert world.queued() == [new]
    assert world.verdict(world.report(old, [ok()], L1)) == "stale"
    assert world.run(new, L2) == "committed"


def test_a_lease_that_was_stored_twice_counts_once() -> None:
    world = World()
    world.submit(job_spec())
    world.offer()
    world.work[99] = world.work[1]
    world.start()
    assert len(world.work) == 1
    assert world.run(world.pull()) == "committed"


def test_what_is_no_lease_or_no_record_is_told_and_ignored() -> None:
    world = World()
    world.submit(job_spec(count=2))
    world.offer()
    world.work[98] = type(world.work[1])("c", {}, b"\xc1")
    world.work[99] = type(world.work[1])("c", {"Lender-Failures": "x"}, world.work[1].payload)
    world.results[f"res.{ALICE.public_key}.job-0001.0"] = ({}, b"")
    world.results[f"res.{ALICE.public_key}.job-0003"] = ({}, b"")
    world.start()
    assert sorted(world.work) == [1, 2]
    assert len(world.warnings) == 3


def test_an_ended_job_whose_record_says_nothing_is_not_run_again() -> None:
    world = World()
    world.submit(job_spec())
    world.results[f"res.{ALICE.public_key}.job-0001"] = ({}, b"")
    world.start()
    world.offer()
    assert world.work == {}
    assert world.query().jobs == ()


def test_failures_of_the_work_are_remembered_by_the_lease() -> None:
    world = World()
    world.submit(job_spec(retries=1))
    world.offer()
    lease = world.pull()
    world.report(lease, [bad()])
    world.ack(lease)
    world.pass_time(2)
    world.start()
    world.offer()
    world.report(world.pull(), [bad()])
    assert world.terminal().state == "failed"


def test_lenders_hear_of_queues_that_outlived_the_broker() -> None:
    world = World()
    world.submit(job_spec())
    world.offer()
    world.start()
    world.controls.clear()
    world.offer()
    assert world.opened() == [class_of()]


def test_what_waits_in_the_queues_takes_room_before_anything_new() -> None:
    world = World()
    for number in range(20):
        world.submit(job_spec(job=f"job-{number:04d}"))
    world.offer(slots=3)
    world.start()
    world.offer(slots=3)
    assert len(world.work) == 6


def test_a_lost_list_of_submitters_rejects_nothing_that_was_accepted() -> None:
    world = World()
    world.submit(job_spec())
    broker = Broker(world.new_lease_id, frozenset())
    broker.handle(START, SubmittersChanged(frozenset()))
    broker.handle(START, JobReplayed(*world.jobs[0]))
    effects = broker.handle(START, ReplayCompleted())
    assert len(effects) == 1
    assert len(list(broker.state.jobs)) == 1


def test_a_lease_of_a_job_that_is_gone_is_deleted() -> None:
    world = World()
    world.submit(job_spec())
    world.offer()
    world.jobs.clear()
    world.start()
    assert world.work == {}
    assert world.broker.next_deadline() is None


def test_a_partial_lease_goes_on_with_what_is_left() -> None:
    world = World()
    world.submit(job_spec(count=100))
    world.offer(slots=1)
    world.run(world.pull(), duration_s=0.01)
    lease: Lease = max(world.queued(), key=lambda one: one.task_count)
    tasks = lease.tasks()
    world.report(lease, [ok(tasks[0])], final=False)
    world.start()
    world.report(lease, [ok(task) for task in tasks[1:]])
    done = [result.task for result in world.tasks()]
    assert sorted(done) == [0, *tasks]
    assert len(done) == len(set(done))


def test_a_signature_that_was_never_checked_is_checked_before_the_first_lease() -> None:
    world = World()
    forged, honest = job_spec(job="job-0001"), job_spec(job="job-0002")
    for spec, signer in ((forged, BOB), (honest, ALICE)):
        payload = encode(spec)
        headers = {SIGNATURE_HEADER: signer.sign(payload)}
        world.jobs.append((subjects.submit(ALICE.public_key, spec.id), headers, payload))
    unsigned = encode(job_spec(job="job-0003"))
    world.jobs.append((subjects.submit(ALICE.public_key, "job-0003"), {}, unsigned))
    world.start()
    assert {job.state for job in world.query().jobs} == {"queued"}
    world.offer(slots=4)
    assert [lease.job for lease in world.queued()] == ["job-0002"]
    for job, said in (("job-0001", "does not match"), ("job-0003", "missing")):
        terminal = world.terminal(job)
        assert (terminal.state, terminal.field) == ("rejected", "signature")
        assert said in terminal.reason
    world.start()
    assert world.run(world.pull()) == "committed"


def test_a_gang_that_was_forged_is_not_leased_either() -> None:
    world = World()
    payload = encode(job_spec(count=2, gang=True))
    headers = {SIGNATURE_HEADER: BOB.sign(payload)}
    world.jobs.append((subjects.submit(ALICE.public_key, "job-0001"), headers, payload))
    world.start()
    world.offer(slots=4)
    world.pass_time(2.0)
    assert world.queued() == []
    assert world.terminal().state == "rejected"


def test_a_job_of_which_a_lease_is_out_was_verified_before() -> None:
    world = World()
    world.submit(job_spec(count=2))
    world.offer(slots=1)
    world.start()
    world.offer(slots=4)
    assert len(world.queued()) == 2


def test_failures_of_the_work_are_remembered_while_its_tasks_rest() -> None:
    world = World()
    world.submit(job_spec(count=6, retries=1))
    world.offer(slots=2)
    for lease in world.queued():
        world.report(lease, [bad(task) for task in lease.tasks()])
        world.ack(lease)
    world.start()
    for _ in range(20):
        world.pass_time(70)
        world.offer(slots=4)
        for lease in world.queued():
            world.report(lease, [bad(task) for task in lease.tasks()])
            world.ack(lease)
        world.start()
    assert world.terminal().tasks_failed == 6
    assert world.refused_records == []


def test_a_failure_that_was_noted_is_not_waited_for_again() -> None:
    world = World()
    world.submit(job_spec(count=2, retries=2))
    world.offer(slots=1)
    lease = world.pull()
    world.report(lease, [bad(task) for task in lease.tasks()])
    assert len(world.work) > 0, "its lender has yet to ack it"
    world.start()
    assert lease.lease not in world.broker.state.leases
    assert world.verdict(world.report(lease, [bad(0)])) == "committed", "its answer was lost"
    world.offer(slots=4)
    tries = {}
    for _ in range(10):
        for one in world.queued():
            for task in one.tasks():
                tries[task] = tries.get(task, 0) + 1
            world.report(one, [bad(task) for task in one.tasks()])
            world.ack(one)
        world.pass_time(70)
        world.offer(slots=4)
    assert tries == {0: 2, 1: 3}
    assert world.terminal().tasks_failed == 2


def test_votes_on_an_attempt_that_was_agreed_to_have_failed_do_not_count() -> None:
    world = World()
    world.submit(job_spec(retries=1, verify=Verify()))
    for lender in (L1, L2):
        world.offer(lender)
    for lender in (L1, L2):
        (lease,) = (one for one in world.queued() if not one.is_barred(lender))
        world.offer(lender, leases=[lease])
        world.report(lease, [bad()], lender)
        world.ack(lease)
    assert world.terminal() is None
    world.start()
    for lender in (L1, L2):
        world.offer(lender)
        (lease,) = (one for one in world.queued() if not one.is_barred(lender))
        world.offer(lender, leases=[lease])
        world.report(lease, [bad()], lender)
        world.ack(lease)
    assert world.terminal().state == "failed"


def test_a_note_of_retries_that_says_nothing_is_ignored() -> None:
    world = World()
    world.submit(job_spec())
    world.results[f"res.{ALICE.public_key}.job-0001.retry.0"] = ({}, b"")
    world.start()
    assert len(world.warnings) == 1


def test_what_is_no_record_of_a_brokers_is_passed_over_and_told() -> None:
    world = World()
    world.submit(job_spec(count=2))
    world.results["res.somebody.else.wrote.this"] = ({}, b"")
    world.results[f"res.{ALICE.public_key}.job-0001.0"] = ({"Lender-Record": '{"t": 1e999}'}, b"")
    world.start()
    assert sum("not this broker's record" in one for one in world.warnings) == 2
    world.offer()
    assert world.run(world.pull()) == "committed"
