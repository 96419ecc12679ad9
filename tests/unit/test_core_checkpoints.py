"""Work that leaves a checkpoint is asked to end before it has to go, within the owner's bounds."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from core_world import (
    BLOB,
    BUSY,
    CALM,
    GIB,
    LIMITS,
    Bench,
    array_spec,
    every,
    lease_id,
    make_grant,
    make_lease,
    make_spec,
    results,
    the,
)

from lender.core.budget import parse_budget
from lender.core.consent import Intent
from lender.core.effects import (
    AbandonCheckpoint,
    AckLease,
    CloseSandbox,
    Effect,
    Exit,
    FreezeSandbox,
    LetSleep,
    OpenSandbox,
    RunTasks,
    SendReport,
    TerminateSandbox,
    WriteReceipt,
)
from lender.core.events import (
    CheckpointSaved,
    DrainRequested,
    IntentLoaded,
    LeasesCancelled,
    MachineSampled,
    SandboxGone,
    SandboxPrepared,
    SleepAnnounced,
    TasksEnded,
    TaskTerminated,
    TimeAdvanced,
    UsageMetered,
    WokenUp,
)
from lender.core.leases import SAVE_S
from lender.core.policy import Policy, Steps, Threshold
from lender.core.restraint import GRACE_S, MEMORY_GRACE_S, SAVE_ROOM_S, SLEEP_GRACE_S
from lender.core.signals import Signals
from lender.protocol.lease import TaskCheckpoint

LEFT: tuple[TaskCheckpoint, ...] = ((0, BLOB),)
ASKED = [TerminateSandbox(lease_id(1))]
KILLED = [CloseSandbox(lease_id(1))]
SAVED = [CloseSandbox(lease_id(1), save=True)]

HOT_LIMITS = replace(LIMITS, temperature_c=Steps(evicted=Threshold(-5.0, -15.0)))
HOT = MachineSampled(Signals(0.5, 12 * GIB, temperature_c=99.0, temperature_limit_c=100.0))
SHORT = MachineSampled(Signals(0.5, GIB // 2))


def at_work(*, checkpoint: bool = True, **grant: object) -> Bench:
    """A lender that runs three tasks; its limits evict what makes the machine too hot."""
    bench = Bench(policy=Policy(in_use=HOT_LIMITS, away=HOT_LIMITS)).ready(make_grant(**grant))
    bench.run(make_lease(array_spec(3, checkpoint=checkpoint)))
    return bench


def ends(effects: list[Effect]) -> list[Effect]:
    kinds = (TerminateSandbox, FreezeSandbox, CloseSandbox, AbandonCheckpoint)
    return [effect for effect in effects if isinstance(effect, kinds)]


def saved(bench: Bench, checkpoints: tuple[TaskCheckpoint, ...] = LEFT) -> list[Effect]:
    return bench.tell(CheckpointSaved(lease_id(1), checkpoints))


def test_work_that_has_to_go_is_asked_killed_saved_and_reported_in_this_order() -> None:
    bench = at_work()
    bench.wait(1.0)
    bench.end(0)
    assert ends(bench.tell(HOT)) == ASKED
    assert bench.lender.status(bench.now).attempts[0].state == "running"
    assert ends(bench.tell(HOT)) == [], "asked once"
    effects = bench.tell(TaskTerminated(lease_id(1)), 2.0)
    assert ends(effects) == SAVED
    assert not every(SendReport, effects)
    assert not every(WriteReceipt, effects)
    assert bench.lender.status(bench.now).attempts == ()
    assert [one.lease for one in bench.lender.status(bench.now).saving] == [lease_id(1)]
    assert bench.lender.status(bench.now).leases_unanswered == 1
    effects = bench.tell(CheckpointSaved(lease_id(1), LEFT), 3.0)
    report = the(SendReport, effects).report
    assert (report.final, report.outcome, report.checkpoints) == (True, "evicted", LEFT)
    receipt = the(WriteReceipt, effects)
    assert (receipt.outcome, receipt.ended_at) == ("evicted", bench.now - 3.0)
    assert receipt.ended == "99 °C, over 95 °C"
    assert receipt.bytes_out == 1 + BLOB.size_bytes
    assert bench.lender.status(bench.now).saving == ()
    assert every(AckLease, bench.answer(2)) == [AckLease(1)]
    assert saved(bench) == [], "late"


def test_who_does_not_end_in_time_is_killed_and_what_lies_there_is_saved() -> None:
    bench = at_work()
    assert ends(bench.tell(HOT)) == ASKED
    assert ends(bench.wait(GRACE_S - 0.01)) == []
    assert ends(bench.wait(0.02)) == SAVED
    assert the(SendReport, saved(bench)).report.checkpoints == LEFT


def test_memory_that_is_short_is_needed_sooner() -> None:
    bench = at_work()
    assert ends(bench.tell(SHORT)) == ASKED
    assert ends(bench.wait(MEMORY_GRACE_S - 0.01)) == []
    assert ends(bench.wait(0.02)) == SAVED


def test_a_need_that_comes_up_meanwhile_shortens_the_grace_and_none_prolongs_it() -> None:
    bench = at_work()
    bench.tell(HOT)
    assert ends(bench.tell(SHORT, 1.0)) == []
    assert ends(bench.tell(HOT, 0.5)) == []
    assert ends(bench.wait(MEMORY_GRACE_S - 0.51)) == []
    assert ends(bench.wait(0.02)) == SAVED


def test_what_was_asked_goes_also_if_it_could_stay_by_then() -> None:
    bench = at_work()
    bench.tell(HOT)
    bench.tell(CALM)
    assert ends(bench.tell(TaskTerminated(lease_id(1)))) == SAVED


def test_a_job_without_checkpoint_is_evicted_at_once() -> None:
    bench = at_work(checkpoint=False)
    effects = bench.tell(HOT)
    assert ends(effects) == KILLED
    assert the(SendReport, effects).report.checkpoints == ()
    assert the(WriteReceipt, effects).outcome == "evicted"


def test_what_does_not_run_yet_leaves_nothing() -> None:
    bench = Bench().ready()
    bench.deliver(make_lease(make_spec(checkpoint=True)))
    assert ends(bench.tell(SHORT)) == KILLED


def test_tasks_that_end_in_the_grace_are_results() -> None:
    bench = at_work()
    bench.tell(HOT)
    bench.end(0)
    bench.tell(TaskTerminated(lease_id(1)))
    report = the(SendReport, saved(bench, ((1, BLOB),))).report
    assert [one.task for one in report.results] == [0]
    assert report.checkpoints == ((1, BLOB),)
    bench = at_work()
    bench.tell(HOT)
    effects = bench.end(0, 1, 2)
    assert the(SendReport, effects).report.outcome == "finished"
    assert ends(effects) == KILLED, "it begins nothing any more"


# The owner's bounds are exact.


def test_a_pause_freezes_at_once_also_in_the_grace_and_nothing_is_thawed_to_end() -> None:
    bench = at_work()
    bench.tell(HOT)
    assert ends(bench.pause()) == [FreezeSandbox(lease_id(1))]
    assert ends(bench.wait(GRACE_S)) == SAVED
    assert the(SendReport, saved(bench)).report.checkpoints == LEFT


def test_where_it_would_have_to_stand_still_at_once_there_is_no_grace() -> None:
    bench = at_work()
    assert ends(bench.tell(HOT)) == ASKED
    assert ends(bench.tell(BUSY)) == SAVED
    bench = at_work()
    hot_and_busy = replace(HOT.signals, cpu_others=3.0)
    assert ends(bench.tell(MachineSampled(hot_and_busy))) == SAVED
    bench = at_work()
    bench.tell(DrainRequested(bench.now + 9.0))
    assert ends(bench.tell(BUSY)) == [FreezeSandbox(lease_id(1))]
    assert ends(bench.wait(9.0 - SAVE_ROOM_S)) == SAVED


def test_what_begins_shortly_before_a_known_end_is_asked_at_once() -> None:
    bench = Bench().ready()
    bench.deliver(make_lease(array_spec(3, checkpoint=True)))
    bench.tell(DrainRequested(bench.now + 9.0))
    assert ends(bench.tell(SandboxPrepared(lease_id(1)), 1.0)) == []
    assert ends(bench.tell(TimeAdvanced(), 0.1)) == ASKED


def test_frozen_work_is_saved_as_it_stands_when_it_is_handed_back() -> None:
    bench = at_work()
    assert ends(bench.pause()) == [FreezeSandbox(lease_id(1))]
    effects = bench.wait(10.0)
    assert ends(effects) == SAVED
    report = the(SendReport, saved(bench)).report
    assert report.reason == "frozen for 10 s: the owner paused lending"


@pytest.mark.parametrize("in_the_grace", [False, True])
def test_a_revoke_kills_at_once_and_no_checkpoint_leaves(*, in_the_grace: bool) -> None:
    bench = at_work()
    if in_the_grace:
        bench.tell(HOT)
    effects = bench.consent(make_grant(), revoked=["G-1"])
    assert ends(effects) == KILLED
    report = the(SendReport, effects).report
    assert (report.outcome, report.checkpoints) == ("revoked", ())
    assert the(WriteReceipt, effects).outcome == "revoked"


def test_a_revoke_stops_the_upload_and_drops_what_was_not_reported() -> None:
    bench = at_work()
    bench.end(0)
    bench.tell(HOT)
    bench.tell(TaskTerminated(lease_id(1)))
    effects = bench.consent(make_grant(), revoked=["G-1"])
    assert ends(effects) == [AbandonCheckpoint(lease_id(1))]
    report = the(SendReport, effects).report
    assert (report.final, report.outcome, report.results) == (True, "revoked", ())
    assert the(WriteReceipt, effects).outcome == "evicted"
    assert saved(bench) == []


def test_what_a_grant_allows_is_not_exceeded_by_a_grace() -> None:
    for also in (CALM, HOT):
        bench = at_work(budget=parse_budget(["0.01cpuh/week"]))
        effects = bench.tell(also) + bench.tell(UsageMetered(lease_id(1), 40.0, 1))
        assert ends(effects)[-1:] == SAVED


def test_another_grant_that_ends_stops_no_upload() -> None:
    bench = at_work()
    bench.tell(HOT)
    bench.tell(TaskTerminated(lease_id(1)))
    bench.consent(make_grant(), make_grant("G-2"), revoked=["G-2"])
    assert the(SendReport, saved(bench)).report.checkpoints == LEFT


# Ends that are known before.


def test_a_drain_asks_before_the_deadline_and_leaves_room_for_the_upload() -> None:
    bench = at_work()
    assert ends(bench.tell(DrainRequested(bench.now + 30.0))) == []
    assert ends(bench.wait(30.0 - GRACE_S - 0.01)) == []
    assert ends(bench.wait(0.02)) == ASKED
    assert ends(bench.wait(GRACE_S - SAVE_ROOM_S - 0.02)) == []
    assert ends(bench.wait(0.02)) == SAVED
    effects = saved(bench)
    assert the(SendReport, effects).report.reason == "the lender shut down"
    assert not every(Exit, effects)
    assert every(Exit, bench.answer(1))


def test_a_drain_without_time_to_ask_saves_what_lies_there() -> None:
    bench = at_work()
    assert ends(bench.tell(DrainRequested(bench.now + 1.0))) == SAVED


def test_at_the_end_of_lenderd_nothing_is_waited_for() -> None:
    bench = at_work()
    effects = bench.tell(DrainRequested(bench.now))
    assert ends(effects) == KILLED
    assert every(Exit, effects)
    assert the(WriteReceipt, effects).outcome == "evicted"
    bench = at_work()
    bench.tell(HOT)
    bench.tell(TaskTerminated(lease_id(1)))
    effects = bench.tell(DrainRequested(bench.now))
    assert ends(effects) == [AbandonCheckpoint(lease_id(1))]
    assert the(SendReport, effects).report.checkpoints == ()
    assert every(Exit, effects)


def test_the_owners_time_to_finish_is_over_when_it_is_over() -> None:
    bench = at_work()
    word = Intent(True, bench.now, None, bench.now + 20.0)
    assert ends(bench.tell(IntentLoaded(word))) == []
    assert ends(bench.wait(20.0 - GRACE_S)) == ASKED
    assert ends(bench.wait(GRACE_S - SAVE_ROOM_S)) == SAVED
    report = the(SendReport, saved(bench)).report
    assert report.reason == "the time to finish is over"


def test_before_a_sleep_there_is_a_short_grace() -> None:
    bench = at_work()
    assert ends(bench.tell(SleepAnnounced())) == ASKED
    assert ends(bench.wait(SLEEP_GRACE_S - 0.01)) == []
    assert ends(bench.wait(0.02)) == SAVED
    assert not every(LetSleep, saved(bench))
    assert every(LetSleep, bench.answer(1))


@pytest.mark.parametrize("stop", [lambda bench: bench.pause(), lambda bench: bench.tell(BUSY)])
def test_what_has_to_stand_still_anyway_has_no_grace_before_a_sleep(
    stop: Callable[[Bench], list[Effect]],
) -> None:
    bench = at_work()
    assert ends(bench.tell(SleepAnnounced())) == ASKED
    assert ends(stop(bench)) == SAVED


def test_a_sleep_that_is_longer_than_a_lease_ends_the_upload() -> None:
    bench = at_work()
    bench.tell(SleepAnnounced())
    bench.wait(SLEEP_GRACE_S)
    effects = bench.tell(WokenUp(30.0), 30.0)
    assert ends(effects) == [AbandonCheckpoint(lease_id(1))]
    assert the(SendReport, effects).report.checkpoints == ()
    assert every(AckLease, bench.answer(1, accepted=False)) == [AckLease(1)]
    assert the(WriteReceipt, effects).outcome == "evicted"


# What comes otherwise.


def test_an_upload_that_takes_too_long_is_given_up() -> None:
    bench = at_work()
    bench.tell(HOT)
    bench.tell(TaskTerminated(lease_id(1)))
    assert ends(bench.wait(SAVE_S - 0.01)) == []
    effects = bench.wait(0.02)
    assert ends(effects) == [AbandonCheckpoint(lease_id(1))]
    assert the(SendReport, effects).report.checkpoints == ()


def test_a_lease_that_is_no_longer_ours_leaves_no_checkpoint() -> None:
    bench = at_work()
    bench.tell(HOT)
    assert ends(bench.tell(LeasesCancelled((lease_id(1),)))) == KILLED
    bench = at_work()
    bench.tell(HOT)
    bench.tell(TaskTerminated(lease_id(1)))
    effects = bench.tell(LeasesCancelled((lease_id(1),)))
    assert ends(effects) == [AbandonCheckpoint(lease_id(1))]
    assert every(AckLease, effects) == [AckLease(1)]
    assert not every(SendReport, effects)


def test_a_sandbox_that_died_is_saved_as_it_stands() -> None:
    bench = at_work()
    assert ends(bench.tell(SandboxGone(lease_id(1), "killed"))) == SAVED
    assert the(SendReport, saved(bench, ())).report.checkpoints == ()


def test_a_task_that_somebody_else_asked_to_end_is_handed_back() -> None:
    bench = at_work()
    assert ends(bench.tell(TaskTerminated(lease_id(1)))) == SAVED
    effects = saved(bench)
    assert the(WriteReceipt, effects).ended == "something on the machine asked its task to end"
    assert bench.tell(TaskTerminated(lease_id(1))) == []


def test_the_upload_counts_for_the_budget() -> None:
    bench = at_work(budget=parse_budget(["1GB/week"]))
    bench.tell(HOT)
    bench.tell(TaskTerminated(lease_id(1)))
    before = bench.lender.budgets(bench.now)[-1]["used"]
    saved(bench)
    assert bench.lender.budgets(bench.now)[-1]["used"] == before + BLOB.size_bytes  # type: ignore[operator]  # a number


def test_an_attempt_that_goes_on_from_checkpoints_is_told_of_them() -> None:
    spec = make_spec(checkpoint=True)
    bench = Bench().ready()
    lease = make_lease(spec, checkpoints=LEFT)
    assert the(OpenSandbox, bench.deliver(lease)).lease.checkpoints == LEFT
    assert the(RunTasks, bench.tell(SandboxPrepared(lease_id(1))))
    receipt = the(WriteReceipt, bench.end(0))
    assert receipt.bytes_in == 1500 + BLOB.size_bytes
    bench = Bench().ready()
    bench.run(make_lease(checkpoints=LEFT))
    assert the(WriteReceipt, bench.end(0)).bytes_in == 1500, "a job that declares none gets none"


def test_results_that_come_after_the_end_are_nobodys() -> None:
    bench = at_work()
    bench.tell(HOT)
    bench.tell(TaskTerminated(lease_id(1)))
    assert not every(SendReport, bench.tell(TasksEnded(lease_id(1), results(0))))
