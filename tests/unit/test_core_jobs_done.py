"""What a signature is worth is not done again, whoever asks, however often."""

import pytest
from core_world import (
    ALICE,
    BOB,
    Bench,
    array_spec,
    class_of,
    lease_id,
    make_grant,
    make_lease,
    make_spec,
    the,
)

from lender.core import jobs_done
from lender.core.effects import KeepJobDone, OpenSandbox, SendReport
from lender.core.events import JobsRecalled, LeasesCancelled, SandboxGone, SandboxPrepared
from lender.core.jobs_done import RUN_MORE_MAX, TAKEN, TOO_OFTEN, JobDone, JobsDone
from lender.protocol.job import JobSpec
from lender.protocol.lease import Done
from lender.protocol.signature import Signer


def finished(bench: Bench, spec: JobSpec, number: int, *, taken: bool = True) -> JobDone:
    """Run a job's only task to its success; returns what is kept of it."""
    bench.run(make_lease(spec, number))
    bench.end(0, number=number)
    return the(KeepJobDone, bench.answer(1, lease=number, accepted=taken)).done


def given_again(bench: Bench, spec: JobSpec, number: int) -> Done:
    return the(SendReport, bench.deliver(make_lease(spec, number))).report


def test_a_job_that_has_succeeded_is_not_run_again() -> None:
    bench = Bench().ready()
    finished(bench, make_spec(), 1)
    again = given_again(bench, make_spec(), 2)
    assert (again.outcome, again.reason) == ("refused", TAKEN)


@pytest.mark.parametrize(("whose", "taken"), [(ALICE, 0), (BOB, 1)])
def test_what_a_revoke_took_out_of_a_report_was_not_taken(whose: Signer, taken: int) -> None:
    """A revoke takes their submitter's results out of the reports that nobody has answered."""
    bench = Bench().ready(make_grant(), make_grant("G-2", BOB))
    spec = make_spec(whose)
    bench.deliver(make_lease(spec, signer=whose), class_of(spec))
    bench.tell(SandboxPrepared(lease_id(1)))
    bench.end(0)
    bench.consent(make_grant(), make_grant("G-2", BOB), revoked=["G-1"])
    assert the(KeepJobDone, bench.answer(1)).done.taken == taken


def test_others_run_all_the_same() -> None:
    bench = Bench().ready()
    finished(bench, make_spec(), 1)
    assert the(OpenSandbox, bench.deliver(make_lease(make_spec(id="job-00002"), 2)))
    of_bob = make_spec(BOB)
    assert JobsDone().fault(of_bob, 1, 0) is None


def test_what_is_kept_holds_after_a_restart_and_the_later_count_counts() -> None:
    bench = Bench().ready()
    spec = make_spec(id="job-00002")
    done = finished(bench, spec, 1)
    assert (done.taken, done.run) == (1, 1)
    assert spec.id not in done.key
    anew = Bench().ready()
    anew.tell(JobsRecalled((done._replace(taken=0, run=0), done)))
    assert given_again(anew, spec, 2).reason == TAKEN


def test_a_success_that_was_not_taken_is_run_again_so_often_and_no_more() -> None:
    bench = Bench().ready()
    spec = make_spec()
    for number in range(1, 2 + RUN_MORE_MAX + 1):
        assert finished(bench, spec, number, taken=False).taken == 0
    assert given_again(bench, spec, 99).reason == TOO_OFTEN


def test_what_the_broker_breaks_off_counts_and_what_it_never_let_begin_does_not() -> None:
    bench = Bench().ready()
    bench.run(make_lease())
    kept = the(KeepJobDone, bench.tell(LeasesCancelled((lease_id(1),)))).done
    assert (kept.taken, kept.run) == (0, 1)
    bench.deliver(make_lease(number=2))
    assert not any(
        isinstance(one, KeepJobDone) for one in bench.tell(LeasesCancelled((lease_id(2),)))
    )


def test_what_ends_on_this_side_does_not_count() -> None:
    bench = Bench().ready()
    for number in range(1, 2 * RUN_MORE_MAX):
        bench.run(make_lease(number=number))
        bench.tell(SandboxGone(lease_id(number), "killed"))
        effects = bench.answer(1, lease=number)
        assert not any(isinstance(one, KeepJobDone) for one in effects)
    assert the(OpenSandbox, bench.deliver(make_lease(number=999)))


def test_a_failure_is_tried_again_as_often_as_was_signed() -> None:
    bench = Bench().ready()
    spec = make_spec(retries=1)
    bench.run(make_lease(spec, 1))
    bench.end(0, state="failed")
    kept = the(KeepJobDone, bench.answer(1)).done
    assert (kept.taken, kept.run) == (0, 1)
    assert finished(bench, spec, 2).taken == 1
    assert given_again(bench, spec, 3).reason == TAKEN


def test_of_an_array_as_many_tasks_are_run_as_it_has() -> None:
    bench = Bench().ready()
    spec = array_spec(10)
    bench.run(make_lease(spec, 1, ((0, 6),)))
    bench.end(*range(6))
    bench.answer(1)
    refused = the(SendReport, bench.deliver(make_lease(spec, 2, ((5, 5),)))).report
    assert refused.reason == TAKEN
    assert the(OpenSandbox, bench.deliver(make_lease(spec, 3, ((6, 4),))))


def test_leases_that_are_held_count_too() -> None:
    bench, spec = Bench().ready(), array_spec(20)
    for number in (1, 2, 3):
        assert the(OpenSandbox, bench.deliver(make_lease(spec, number)))
    assert given_again(bench, spec, 4).reason == TOO_OFTEN
    assert the(OpenSandbox, bench.deliver(make_lease(spec, 5, ((0, 12),))))


def test_who_has_to_agree_may_be_asked_once_for_each_try() -> None:
    done = JobsDone()
    spec = make_spec(retries=2, verify={"replicas": 2, "quorum": 2})
    for _ in range(3):
        assert done.fault(spec, 1, 0) is None
        done.count(spec, taken=1, run=1)
    assert done.fault(spec, 1, 0) == TAKEN


def test_the_job_that_was_worked_on_longest_ago_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs_done, "KEPT_MAX", 3)
    specs = [make_spec(id=f"job-{number:05}") for number in range(4)]
    done = JobsDone()
    for spec in (*specs[:3], specs[0], specs[3]):
        done.count(spec, taken=1, run=1)
    faults = [done.fault(spec, 1, 0) for spec in specs]
    assert faults == [TAKEN, None, TAKEN, TAKEN]
