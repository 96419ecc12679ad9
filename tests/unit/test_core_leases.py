"""The life of a lease: from its delivery to its ack."""

import pytest
from core_world import (
    ALICE,
    BOB,
    BUSY,
    GIB,
    LENDER,
    START,
    Bench,
    array_spec,
    class_of,
    every,
    lease_id,
    make_grant,
    make_lease,
    make_spec,
    results,
    the,
)

from lender.core.effects import (
    AckLease,
    CloseSandbox,
    ExtendLease,
    ForgetDelivery,
    KeepJobDone,
    KeepSandbox,
    OpenSandbox,
    PullWork,
    ReturnLease,
    RunTasks,
    SendOffer,
    SendReport,
    WriteReceipt,
)
from lender.core.events import (
    BrokerDisconnected,
    LeaseDelivered,
    LeasesCancelled,
    PreparationFailed,
    SandboxGone,
    SandboxPrepared,
    TasksEnded,
)
from lender.core.lease_report import result_bytes
from lender.core.leases import HELD_MAX, LET_GO_MAX
from lender.protocol.bounds import CHUNK_BYTES_MAX, CHUNK_RESULTS_MAX
from lender.protocol.job import Limits
from lender.protocol.lease import PREPARE_FIELD, barred_mark
from lender.protocol.result import TaskResult
from lender.protocol.result_run import ResultRun, run_of


def test_a_lease_goes_from_delivery_to_ack() -> None:
    bench = Bench().ready()
    lease = make_lease()
    assert the(OpenSandbox, bench.deliver(lease)) == OpenSandbox(lease, make_spec(), "G-1")
    prepared = bench.tell(SandboxPrepared(lease.lease), 1.0)
    assert the(RunTasks, prepared) == RunTasks(lease.lease, (0,))
    bench.now += 2.0
    effects = [one for one in bench.end(0) if not isinstance(one, SendOffer)]
    report, close, receipt = effects
    assert isinstance(report, SendReport)
    assert (report.number, report.report.final, report.report.outcome) == (1, True, "finished")
    assert report.report.results == results(0)
    assert close == KeepSandbox(lease.lease)
    assert receipt == WriteReceipt(
        lease=lease.lease,
        job="job-00001",
        job_name="fold-42",
        submitter=ALICE.public_key,
        workload="render",
        runtime="wasm",
        program_sha256="ab" * 32,
        inputs=(("scene.bin", "cd" * 32),),
        grant="G-1",
        attempt=1,
        outcome="succeeded",
        ended="finished",
        tasks_run=1,
        tasks_failed=0,
        started_at=START,
        ended_at=START + 3.0,
        cpu_s=0.5,
        memory_peak_bytes=0,
        gpu_s=0.0,
        vram_peak_bytes=0,
        bytes_in=1500,
        bytes_out=1,
        network=(),
        network_in_bytes=0,
        network_out_bytes=0,
        network_attempts_blocked=0,
        energy_wh=0.0,
        energy_method="not measurable",
    )
    assert every(AckLease, bench.answer(1)) == [AckLease(1)]


def test_a_command_without_program_counts_blobs_and_outputs() -> None:
    spec = make_spec(workload="command", runtime="process", program=None, argv=("true",))
    bench = Bench().ready(make_grant(workload="command"))
    bench.deliver(make_lease(spec), class_of(spec))
    bench.tell(SandboxPrepared(lease_id(1)))
    blob = {"sha256": "ab" * 32, "size_bytes": 70}
    ended = TaskResult.model_validate(
        {"task": 0, "state": "succeeded", "value_blob": blob, "outputs": [{"name": "o", **blob}]},
        strict=False,
    )
    receipt = the(WriteReceipt, bench.tell(TasksEnded(lease_id(1), (ended,))))
    assert (receipt.program_sha256, receipt.bytes_in, receipt.bytes_out) == (None, 500, 140)


def test_a_task_that_failed_is_a_result_and_the_receipt_tells() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(3)))
    bench.end(0, 1)
    effects = bench.end(2, state="failed", exit_code=3)
    assert the(SendReport, effects).report.outcome == "finished"
    receipt = the(WriteReceipt, effects)
    assert (receipt.outcome, receipt.tasks_failed) == ("failed", 1)
    assert receipt.ended == "finished, 1 of its tasks failed"


def test_partial_reports_are_a_tenth_of_a_second_apart() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(20)))
    bench.wait(0.1)
    first = the(SendReport, bench.end(0)).report
    assert (first.final, first.results) == (False, results(0))
    assert not every(SendReport, bench.end(1) + bench.end(2))
    assert not every(SendReport, bench.wait(0.09))
    assert the(SendReport, bench.wait(0.01)).report.results == results(1, 2)
    assert not every(SendReport, bench.wait(5.0))


def test_many_results_go_out_in_parts_of_full_size() -> None:
    bench = Bench().ready()
    count = 2 * CHUNK_RESULTS_MAX + 1
    bench.run(make_lease(array_spec(count)))
    reports = every(SendReport, bench.end(*range(count)))
    assert [len(one.report.results) for one in reports] == [1000, 1000, 1]
    assert [one.number for one in reports] == [1, 2, 3]
    assert [one.report.final for one in reports] == [False, False, True]


def alike(first: int, count: int) -> ResultRun:
    return run_of(first, [b"v"] * count, [0.5] * count, [0.5] * count)


def test_results_that_are_alike_go_out_as_they_came() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(1900)))
    assert not every(SendReport, bench.tell(TasksEnded(lease_id(1), alike(0, 300))))
    assert not every(SendReport, bench.tell(TasksEnded(lease_id(1), alike(300, 400))))
    effects = bench.tell(TasksEnded(lease_id(1), alike(700, 500)))
    effects += bench.tell(TasksEnded(lease_id(1), alike(1200, 700)))
    reports = [one.report for one in every(SendReport, effects)]
    assert [one.results for one in reports] == [alike(0, 700), alike(700, 500), alike(1200, 700)]
    assert all(isinstance(one.results, ResultRun) for one in reports)
    receipt = the(WriteReceipt, effects)
    assert (receipt.tasks_run, receipt.tasks_failed) == (1900, 0)
    assert (receipt.cpu_s, receipt.bytes_out) == (950.0, 1900)
    told = [one for number in (1, 2, 3) for one in bench.answer(number)]
    assert the(KeepJobDone, told).done.taken == 1900


def test_of_results_that_are_alike_none_is_told_twice() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(4)))
    bench.end(2)
    effects = bench.tell(TasksEnded(lease_id(1), alike(0, 4)))
    assert [one.task for one in the(SendReport, effects).report.results] == [2, 0, 1, 3]
    assert the(WriteReceipt, effects).cpu_s == 2.0


def test_large_results_go_out_in_parts_of_bounded_bytes() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(20)))
    reports = every(SendReport, bench.end(*range(20), value=b"x" * 65_536))
    assert len(reports) == 3
    for one in reports:
        assert sum(map(result_bytes, one.report.results)) <= CHUNK_BYTES_MAX


def test_a_result_is_told_once_and_only_of_the_leases_own_tasks() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(10), ranges=((2, 3),)))
    bench.end(2, 2, 7)
    effects = bench.end(2, 3, 4)
    told = [one.task for report in every(SendReport, effects) for one in report.report.results]
    assert told == [2, 3, 4]
    assert the(WriteReceipt, effects).tasks_run == 3


def test_results_before_the_tasks_were_told_to_run_are_nobodys() -> None:
    bench = Bench().ready()
    bench.deliver()
    assert not every(SendReport, bench.end(0))
    assert bench.lender.status(bench.now).attempts[0].tasks_left == 1


def test_a_held_lease_is_extended_until_it_is_answered() -> None:
    bench = Bench().ready()
    bench.run()
    assert every(ExtendLease, bench.wait(30.0)) == [ExtendLease(1)] * 3
    bench.end(0)
    assert every(ExtendLease, bench.wait(10.0)) == [ExtendLease(1)]
    bench.answer(1)
    assert not every(ExtendLease, bench.wait(30.0))


def test_a_lease_that_may_not_run_here_is_refused_with_the_reason_and_acked_when_answered() -> None:
    bench = Bench().ready()
    spec = make_spec(BOB)
    effects = bench.deliver(make_lease(spec, signer=BOB), class_of(spec))
    report = the(SendReport, effects).report
    assert (report.final, report.outcome) == (True, "refused")
    assert report.reason == "no grant names this submitter"
    assert not every(OpenSandbox, effects)
    assert not every(WriteReceipt, effects), "nothing ran"
    assert every(AckLease, bench.answer(1)) == [AckLease(1)]


def test_a_partial_answer_acks_nothing() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(2)))
    bench.wait(1.0)
    assert the(SendReport, bench.end(0)).number == 1
    assert not every(AckLease, bench.answer(1))
    bench.end(1)
    assert not every(AckLease, bench.answer(1))
    assert every(AckLease, bench.answer(2)) == [AckLease(1)]


def test_a_stale_lease_is_stopped_and_acked_and_the_receipt_says_so() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(2)))
    bench.wait(1.0)
    bench.end(0)
    effects = bench.answer(1, accepted=False)
    assert every(CloseSandbox, effects) == [CloseSandbox(lease_id(1))]
    assert every(AckLease, effects) == [AckLease(1)]
    receipt = the(WriteReceipt, effects)
    assert (receipt.outcome, receipt.tasks_run) == ("lost", 1)
    assert receipt.ended == "the broker did not accept a report: stale"
    assert not every(SendReport, effects)


def test_a_stale_final_report_is_acked_and_nothing_else() -> None:
    bench = Bench().ready()
    bench.run()
    bench.end(0)
    effects = bench.answer(1, accepted=False)
    assert every(AckLease, effects) == [AckLease(1)]
    assert not every(CloseSandbox, effects)
    assert not every(WriteReceipt, effects)


def test_a_faulty_job_is_reported_invalid_with_its_field() -> None:
    bench = Bench().ready()
    bench.deliver()
    failed = PreparationFailed(lease_id(1), invalid=True, field="inputs.0", reason="hash differs")
    effects = bench.tell(failed)
    report = the(SendReport, effects).report
    assert (report.outcome, report.field, report.reason) == ("invalid", "inputs.0", "hash differs")
    assert every(CloseSandbox, effects) == [CloseSandbox(lease_id(1))]
    receipt = the(WriteReceipt, effects)
    assert (receipt.outcome, receipt.ended) == ("failed", "inputs.0: hash differs")


def test_a_faulty_machine_costs_the_job_nothing() -> None:
    bench = Bench().ready()
    bench.deliver()
    failed = PreparationFailed(lease_id(1), invalid=False, field="", reason="disk full " * 500)
    effects = bench.tell(failed)
    report = the(SendReport, effects).report
    assert report.outcome == "refused"
    assert len(report.reason) == 2000, "cut to what the wire takes"
    receipt = the(WriteReceipt, effects)
    assert receipt.outcome == "evicted"
    assert receipt.ended.startswith("could not be prepared: disk full")


def test_preparing_for_too_long_hands_the_lease_back_to_the_broker() -> None:
    bench = Bench().ready()
    bench.deliver(make_lease(make_spec(limits=Limits(prepare_s=30.0))))
    assert not every(CloseSandbox, bench.wait(29.0))
    effects = bench.wait(1.0)
    assert every(CloseSandbox, effects) == [CloseSandbox(lease_id(1))]
    report = the(SendReport, effects).report
    assert (report.final, report.outcome) == (True, "refused")
    assert report.field == PREPARE_FIELD
    assert report.reason == "it was not prepared within 30 s (limits.prepare_s)"
    receipt = the(WriteReceipt, effects)
    assert (receipt.outcome, receipt.ended) == (
        "evicted",
        "could not be prepared: it was not prepared within 30 s (limits.prepare_s)",
    )
    assert not every(RunTasks, bench.tell(SandboxPrepared(lease_id(1))))


def test_once_prepared_a_task_may_take_longer() -> None:
    bench = Bench().ready()
    bench.deliver(make_lease(make_spec(limits=Limits(prepare_s=30.0))))
    bench.tell(SandboxPrepared(lease_id(1)), 29.0)
    assert not every(CloseSandbox, bench.wait(100.0))


def test_a_dead_sandbox_hands_back_what_is_left() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(3)))
    bench.end(0)
    effects = bench.tell(SandboxGone(lease_id(1), "killed by signal 9"))
    report = the(SendReport, effects).report
    assert (report.outcome, report.results) == ("evicted", results(0))
    assert report.reason == "the sandbox died: killed by signal 9"
    assert every(CloseSandbox, effects) == [CloseSandbox(lease_id(1))]
    assert the(WriteReceipt, effects).tasks_run == 1


def test_a_cancelled_lease_is_stopped_without_a_report() -> None:
    bench = Bench().ready()
    bench.run()
    effects = bench.tell(LeasesCancelled((lease_id(1), lease_id(9))))
    assert every(CloseSandbox, effects) == [CloseSandbox(lease_id(1))]
    assert every(AckLease, effects) == [AckLease(1)]
    assert not every(SendReport, effects)
    receipt = the(WriteReceipt, effects)
    assert (receipt.outcome, receipt.ended) == ("lost", "the broker cancelled it")


def test_a_lease_that_was_cancelled_before_it_came_is_handed_back_and_never_run() -> None:
    bench = Bench().ready()
    bench.tell(LeasesCancelled((lease_id(1),)))
    effects = bench.deliver()
    assert not every(OpenSandbox, effects)
    assert [one.report.outcome for one in every(SendReport, effects)] == ["evicted"]
    assert every(AckLease, bench.answer(1, accepted=False)) == [AckLease(1)]


def test_a_redelivered_lease_is_adopted_and_not_run_twice() -> None:
    bench = Bench().ready()
    bench.run()
    again = bench.deliver()
    assert not every(OpenSandbox, again)
    assert every(ForgetDelivery, again) == [ForgetDelivery(1)]
    bench.end(0)
    assert every(AckLease, bench.answer(1)) == [AckLease(2)]


def test_one_that_comes_again_when_it_is_over_is_handed_back() -> None:
    """Its broker may have begun anew, found it in its queue, and know nothing of its end."""
    bench = Bench().ready()
    bench.run()
    bench.end(0)
    bench.answer(1)
    again = bench.deliver()
    assert not every(OpenSandbox, again)
    assert [one.report.outcome for one in every(SendReport, again)] == ["evicted"]
    assert every(AckLease, bench.answer(1)) == [AckLease(2)]


def test_what_comes_late_for_a_lease_that_is_over_is_harmless() -> None:
    bench = Bench().ready()
    bench.run()
    bench.tell(LeasesCancelled((lease_id(1),)))
    bench.wait(1.0)
    for event in (
        SandboxPrepared(lease_id(1)),
        PreparationFailed(lease_id(1), invalid=True, field="", reason=""),
        TasksEnded(lease_id(1), results(0)),
        SandboxGone(lease_id(1), "x"),
    ):
        assert bench.tell(event) == []
    assert bench.answer(1) == []


def test_a_lease_takes_as_many_slots_as_one_of_its_tasks_asks_for_cores() -> None:
    bench = Bench().ready()
    bench.run(make_lease(make_spec(limits={"cpu": 3})))
    wide = make_lease(make_spec(limits={"cpu": 2}), 2)
    assert every(ReturnLease, bench.deliver(wide)) == [ReturnLease(2, 0.1)]
    assert every(OpenSandbox, bench.deliver(make_lease(number=3)))
    assert bench.lender.status(bench.now).slots_free == 0


def test_a_lease_whose_memory_other_leases_hold_waits_its_turn() -> None:
    bench = Bench().ready()
    large = {"memory_bytes": 6 * GIB}
    bench.run(make_lease(make_spec(limits=large)))
    effects = bench.deliver(make_lease(make_spec(limits=large), 2))
    assert every(ReturnLease, effects) == [ReturnLease(2, 0.1)]


def test_a_lease_that_is_closed_to_this_lender_goes_back_untouched() -> None:
    bench = Bench().ready()
    ours = barred_mark(lease_id(1), LENDER)
    effects = bench.deliver(make_lease(not_for=(barred_mark(lease_id(1), "another"), ours)))
    assert effects == [ReturnLease(1, pytest.approx(0.1, rel=0.5))]
    assert every(OpenSandbox, bench.deliver(make_lease(number=2, not_for=(ours,))))


def test_one_that_nobody_else_takes_comes_back_less_and_less_often() -> None:
    bench = Bench().ready()
    lease = make_lease(not_for=(barred_mark(lease_id(1), LENDER),))
    delays = [
        the(ReturnLease, bench.tell(LeaseDelivered(class_of(), times, lease, times))).delay_s
        for times in range(1, 2_000)
    ]
    assert all(0.05 <= delay_s <= 0.15 for delay_s in delays[:16])
    assert all(5.0 <= delay_s <= 15.0 for delay_s in delays[25:])
    # Two that come back in step would go to the wrong one of two machines for ever.
    assert len(set(delays)) > len(delays) / 2


def test_disconnected_work_goes_on() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(2)))
    bench.tell(BrokerDisconnected())
    bench.wait(1.0)
    assert the(SendReport, bench.end(0))
    assert the(SendReport, bench.end(1)).report.outcome == "finished"


def test_a_broker_that_never_answers_is_not_worked_for_without_end() -> None:
    bench = Bench().ready()
    bench.open()
    for number in range(HELD_MAX):
        bench.run(make_lease(number=number))
        effects = bench.end(0, number=number)
    assert bench.lender.status(bench.now).leases_unanswered == HELD_MAX
    assert not every(PullWork, effects)
    assert every(ReturnLease, bench.deliver(make_lease(number=HELD_MAX)))


def test_the_memory_of_leases_that_are_over_is_bounded() -> None:
    bench = Bench().ready()
    bench.tell(LeasesCancelled(tuple(lease_id(number) for number in range(LET_GO_MAX + 1))))
    assert every(OpenSandbox, bench.deliver(make_lease(number=0))), "the oldest is forgotten"
    assert not every(OpenSandbox, bench.deliver(make_lease(number=1)))


@pytest.mark.parametrize(
    ("stop", "outcome", "words"),
    [
        (lambda bench: bench.pause(), "evicted", "paused: the owner paused lending"),
        (lambda bench: bench.tell(BUSY), "evicted", "yielding: the machine or its owner needs it"),
        (lambda bench: bench.consent(), "refused", "unconsented: no valid grant"),
        (lambda bench: bench.tell(BrokerDisconnected()), "evicted", "offline: not connected"),
    ],
)
def test_a_lease_for_a_lender_that_does_not_lend_is_handed_back(
    stop: object, outcome: str, words: str
) -> None:
    bench = Bench().ready()
    assert callable(stop)
    stop(bench)
    effects = bench.deliver()
    report = the(SendReport, effects).report
    assert (report.final, report.outcome) == (True, outcome)
    assert report.reason.startswith(words)
    assert not every(OpenSandbox, effects)
