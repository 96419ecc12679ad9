"""The owner's words and the machine's needs: pause, resume, revoke, yield, drain."""

from core_world import (
    ALICE,
    BOB,
    BUSY,
    CALM,
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
    CloseSandbox,
    Effect,
    Exit,
    FreezeSandbox,
    OpenSandbox,
    PullWork,
    RunTasks,
    SendOffer,
    SendReport,
    ThawSandbox,
    WriteReceipt,
)
from lender.core.events import (
    DrainRequested,
    LeasesCancelled,
    SandboxGone,
    SandboxPrepared,
    StandstillSeen,
    TimeAdvanced,
)


def acts(effects: list[Effect]) -> list[Effect]:
    """Everything but the offers."""
    return [effect for effect in effects if not isinstance(effect, SendOffer)]


def test_pause_freezes_running_and_preparing_leases_in_the_same_call() -> None:
    bench = Bench().ready()
    bench.run()
    bench.deliver(make_lease(number=2))
    assert acts(bench.pause()) == [FreezeSandbox(lease_id(1)), FreezeSandbox(lease_id(2))]
    assert acts(bench.pause()) == [], "it is level-triggered"


def test_resume_thaws_and_a_sandbox_that_was_prepared_meanwhile_runs_then() -> None:
    bench = Bench().ready()
    bench.run()
    bench.deliver(make_lease(number=2))
    bench.deliver(make_lease(number=3))
    bench.pause()
    assert acts(bench.tell(SandboxPrepared(lease_id(2)))) == []
    assert acts(bench.pause(paused=False)) == [
        ThawSandbox(lease_id(1)),
        ThawSandbox(lease_id(2)),
        RunTasks(lease_id(2), (0,)),
        ThawSandbox(lease_id(3)),
    ]
    assert the(RunTasks, bench.tell(SandboxPrepared(lease_id(3)))).lease == lease_id(3)


def test_what_a_pause_stopped_that_was_cut_off_goes_on_by_the_next_word_alone() -> None:
    bench = Bench().ready()
    bench.run()
    assert acts(bench.tell(StandstillSeen(frozenset({lease_id(1)})))) == []
    assert acts(bench.pause(paused=False)) == [], "the same word again says nothing"
    assert not every(ThawSandbox, bench.tell(CALM, 5.0))
    assert acts(bench.pause(paused=False)) == [ThawSandbox(lease_id(1))]
    assert not every(CloseSandbox, bench.wait(60.0)), "it runs"


def test_what_a_pause_stopped_before_it_said_so_is_verified_as_any_other() -> None:
    bench = Bench().ready()
    bench.run()
    bench.tell(StandstillSeen(frozenset({lease_id(1)})), 1.0)
    assert acts(bench.pause()) == [FreezeSandbox(lease_id(1))]
    bench.now += 1.0
    assert acts(bench.pause(paused=False)) == [ThawSandbox(lease_id(1))]


def test_what_a_pause_stopped_that_was_cut_off_is_handed_back_after_a_while() -> None:
    bench = Bench(frozen_handback_s=10.0).ready()
    bench.run()
    bench.tell(StandstillSeen(frozenset({lease_id(1)})))
    bench.tell(StandstillSeen(frozenset()), 5.0)
    assert not every(CloseSandbox, bench.wait(30.0)), "it went on in between"
    bench.tell(StandstillSeen(frozenset({lease_id(1)})))
    assert not every(CloseSandbox, bench.wait(5.0))
    bench.tell(StandstillSeen(frozenset({lease_id(1)})))
    assert not every(CloseSandbox, bench.wait(4.9))
    effects = bench.wait(0.1)
    assert the(WriteReceipt, effects).outcome == "evicted"
    assert the(WriteReceipt, effects).ended.startswith("frozen for 10 s: something stopped it")
    assert "needs it" in the(SendReport, effects).report.reason


def test_a_last_result_that_was_on_its_way_counts_while_frozen() -> None:
    bench = Bench().ready()
    bench.run()
    bench.pause()
    effects = bench.end(0)
    assert the(SendReport, effects).report.outcome == "finished"
    assert the(WriteReceipt, effects).outcome == "succeeded"


def test_frozen_work_is_handed_back_and_its_results_kept() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(3)))
    bench.pause()
    bench.end(0)
    effects = bench.wait(9.9)
    assert [one.task for one in the(SendReport, effects).report.results] == [0]
    effects = acts(bench.wait(0.1))
    reason = "frozen for 10 s: the owner paused lending"
    close, report, receipt, _extend = effects
    assert close == CloseSandbox(lease_id(1))
    assert isinstance(report, SendReport)
    assert (report.report.final, report.report.outcome) == (True, "evicted")
    assert report.report.reason == reason
    assert isinstance(receipt, WriteReceipt)
    assert (receipt.outcome, receipt.ended, receipt.tasks_run) == ("evicted", reason, 1)


def test_a_resume_in_time_keeps_the_work() -> None:
    bench = Bench().ready()
    bench.run()
    bench.pause()
    bench.wait(9.0)
    bench.pause(paused=False)
    assert not every(CloseSandbox, bench.wait(60.0))


def test_yielding_freezes_and_hands_back_with_its_own_reason() -> None:
    bench = Bench().ready()
    bench.run()
    assert acts(bench.tell(BUSY)) == [FreezeSandbox(lease_id(1))]
    effects = bench.wait(10.0)
    assert the(WriteReceipt, effects).ended == "frozen for 10 s: others use 3.0 cores, over 2.0"


def test_work_thaws_only_when_neither_owner_nor_machine_holds_it() -> None:
    bench = Bench().ready()
    bench.run()
    bench.pause()
    assert acts(bench.tell(BUSY)) == []
    assert not every(ThawSandbox, bench.pause(paused=False))
    bench.tell(CALM, 1.0)
    assert every(ThawSandbox, bench.tell(CALM, 5.0)) == [ThawSandbox(lease_id(1))]


def test_a_revocation_closes_before_it_tells_anyone_and_drops_unreported_results() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(3)))
    bench.run(make_lease(number=2))
    bench.end(0)
    effects = acts(bench.consent(make_grant(), revoked=["G-1"]))
    assert effects[:2] == [CloseSandbox(lease_id(1)), CloseSandbox(lease_id(2))]
    reports = every(SendReport, effects)
    assert [(one.report.outcome, one.report.results) for one in reports] == [("revoked", ())] * 2
    receipts = every(WriteReceipt, effects)
    assert {one.ended for one in receipts} == {"the owner revoked grant G-1"}
    assert {one.outcome for one in receipts} == {"revoked"}


def test_a_revocation_reaches_frozen_work_too() -> None:
    bench = Bench().ready()
    bench.run()
    bench.pause()
    assert every(CloseSandbox, bench.consent()) == [CloseSandbox(lease_id(1))]


def test_only_what_the_revoked_grant_covered_is_stopped() -> None:
    grants = make_grant("G-1"), make_grant("G-2", BOB)
    bench = Bench().ready(*grants)
    bench.run()
    spec = make_spec(BOB)
    bench.deliver(make_lease(spec, 2, signer=BOB), class_of(spec))
    effects = bench.consent(*grants, revoked=["G-2"])
    assert every(CloseSandbox, effects) == [CloseSandbox(lease_id(2))]
    assert [one.lease for one in bench.lender.status(bench.now).attempts] == [lease_id(1)]


def test_a_lease_does_not_move_to_another_grant() -> None:
    bench = Bench().ready(make_grant("G-1"), make_grant("G-2"))
    bench.run()
    effects = bench.consent(make_grant("G-2"))
    assert every(CloseSandbox, effects) == [CloseSandbox(lease_id(1))]
    assert the(WriteReceipt, effects).ended == "the owner withdrew grant G-1"


def test_a_narrowed_grant_stops_what_it_no_longer_allows() -> None:
    bench = Bench().ready()
    bench.run(make_lease(make_spec(limits={"cpu": 2})))
    bench.run(make_lease(number=2))
    effects = bench.consent(make_grant(cpu=1))
    assert every(CloseSandbox, effects) == [CloseSandbox(lease_id(1))]
    assert the(WriteReceipt, effects).ended == "grant G-1 no longer allows it"


def test_an_expiry_stops_running_work_when_its_time_comes() -> None:
    bench = Bench().ready(make_grant(not_after=START + 7.0))
    bench.run()
    assert not every(CloseSandbox, bench.wait(6.9))
    effects = bench.wait(0.1)
    assert every(CloseSandbox, effects) == [CloseSandbox(lease_id(1))]
    assert the(WriteReceipt, effects).ended == "grant G-1 expired"
    assert the(SendReport, effects).report.outcome == "revoked"


def test_an_event_that_comes_late_begins_nothing_under_an_expired_grant() -> None:
    bench = Bench().ready(make_grant(not_after=START + 7.0))
    bench.deliver()
    effects = bench.tell(SandboxPrepared(lease_id(1)), 8.0)
    assert every(CloseSandbox, effects)
    assert not every(RunTasks, effects)


def test_a_sandbox_killed_by_the_owners_own_revocation_is_told_as_revoked() -> None:
    bench = Bench().ready()
    bench.run()
    bench.consent(revoked=["G-1"])
    assert acts(bench.tell(SandboxGone(lease_id(1), "killed"))) == []


def test_a_drain_finishes_and_then_exits() -> None:
    bench = Bench().ready()
    bench.open()
    bench.run()
    assert acts(bench.tell(DrainRequested(START + 60.0))) == []
    assert bench.lender.status(bench.now).phase == "draining"
    refused = the(SendReport, bench.deliver(make_lease(number=2))).report
    assert (refused.outcome, refused.reason) == ("evicted", "draining: shutting down: nothing new")
    assert not every(PullWork, bench.wait(1.0))
    bench.end(0)
    bench.answer(1, lease=2)
    assert every(Exit, bench.answer(1)) == [Exit()]
    assert bench.lender.next_deadline() is None
    assert not every(Exit, bench.tell(TimeAdvanced(), 100.0)), "once"


def test_an_idle_lender_drains_at_once() -> None:
    bench = Bench().ready()
    assert every(Exit, bench.tell(DrainRequested(START + 60.0))) == [Exit()]


def test_a_drain_evicts_at_its_deadline_and_exits() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(2)))
    bench.tell(DrainRequested(START + 5.0))
    bench.end(1)
    effects = bench.wait(5.0)
    reports = [one.report for one in every(SendReport, effects)]
    assert [one.results for one in reports] == [results(1), ()]
    assert (reports[-1].outcome, reports[-1].reason) == ("evicted", "the lender shut down")
    assert every(CloseSandbox, effects) == [CloseSandbox(lease_id(1))]
    assert effects[-1] == Exit()


def test_a_drain_whose_deadline_has_passed_evicts_in_the_same_call() -> None:
    bench = Bench().ready()
    bench.run()
    effects = bench.tell(DrainRequested(START))
    assert every(CloseSandbox, effects)
    assert effects[-1] == Exit()


def test_no_word_from_outside_resumes_or_widens() -> None:
    bench = Bench().ready()
    bench.run()
    bench.pause()
    effects = bench.open() + bench.tell(LeasesCancelled(())) + bench.deliver(make_lease(number=2))
    assert not every(ThawSandbox, effects)
    assert not every(OpenSandbox, effects)
    assert not every(PullWork, effects)


def test_status_shows_what_an_owner_asks() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(3, limits={"cpu": 2}), attempt=4))
    bench.end(0)
    bench.run(make_lease(number=2))
    bench.end(0, number=2)
    status = bench.lender.status(bench.now)
    assert (status.phase, status.connected) == ("lending", True)
    assert (status.slots_total, status.slots_free, status.leases_unanswered) == (4, 2, 1)
    assert status.grants == (make_grant(),)
    assert class_of() in status.classes
    (attempt,) = status.attempts
    assert (attempt.job, attempt.job_name, attempt.submitter) == (
        "job-00001",
        "fold-42",
        ALICE.public_key,
    )
    assert (attempt.state, attempt.grant, attempt.attempt) == ("running", "G-1", 4)
    assert (attempt.tasks_total, attempt.tasks_left, attempt.cpu) == (3, 2, 2)
    assert attempt.started_at == START


def test_the_last_word_of_pause_and_resume_holds() -> None:
    bench = Bench().ready()
    bench.run()
    for paused in (True, False, True):
        bench.pause(paused=paused)
    assert bench.lender.status(bench.now).phase == "paused"
    assert bench.lender.status(bench.now).attempts[0].state == "frozen"
    bench.pause(paused=False)
    assert bench.lender.status(bench.now).attempts[0].state == "running"
