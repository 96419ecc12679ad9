"""What keeps lent work from running, and what of it goes: presence, budgets, cores, GPUs, sleep."""

from dataclasses import replace

import pytest
from core_world import (
    ALICE,
    BOB,
    CALM,
    DAY_S,
    GIB,
    LIMITS,
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

from lender.core.budget import Usage, parse_budget
from lender.core.consent import Intent
from lender.core.effects import (
    AckLease,
    CloseSandbox,
    Effect,
    FreezeSandbox,
    LetSleep,
    OpenSandbox,
    PurgeSubmitter,
    RunTasks,
    SendOffer,
    SendReport,
    ThawSandbox,
    WriteReceipt,
)
from lender.core.events import (
    NOT_COUNTED,
    BrokerGreeted,
    Capabilities,
    CapabilitiesFound,
    IntentLoaded,
    MachineSampled,
    SandboxPrepared,
    SleepAnnounced,
    TasksEnded,
    UsageMetered,
    UsageRecalled,
    WallClockRead,
    WokenUp,
)
from lender.core.hold import NEEDED_HERE
from lender.core.policy import Policy, Steps, Threshold
from lender.core.schedule import parse_when
from lender.core.signals import GpuSignal, Presence, Signals
from lender.protocol.job import JobSpec

AWAY = Presence(idle_s=3600.0, locked=True, desktop=True, sources=("logind",))
THERE = Presence(idle_s=1.0, locked=False, desktop=True, sources=("logind",))


def reading(**changes: object) -> MachineSampled:
    return MachineSampled(replace(CALM.signals, **changes))  # type: ignore[arg-type]


def sandboxes(effects: list[Effect]) -> list[Effect]:
    """What was done to sandboxes."""
    kinds = (OpenSandbox, RunTasks, FreezeSandbox, ThawSandbox, CloseSandbox)
    return [effect for effect in effects if isinstance(effect, kinds)]


# A grant's own times.


def test_work_of_a_grant_for_when_the_owner_is_away_stands_still_as_soon_as_they_are_back() -> None:
    bench = Bench().ready(make_grant(when=parse_when("away")))
    bench.tell(reading(presence=AWAY))
    bench.run()
    assert sandboxes(bench.tell(reading(presence=THERE), 1.0)) == [FreezeSandbox(lease_id(1))]
    status = bench.lender.status(bench.now)
    assert (status.phase, status.classes) == ("yielding", ())
    assert "only while you are away" in status.closed["G-1"]
    effects = bench.wait(10.0)
    assert "only while you are away" in the(WriteReceipt, effects).ended
    told = [the(SendReport, effects).report.reason]
    told += [one.offer.reason for one in every(SendOffer, effects)]
    assert not any("away" in one for one in told), "the fleet learns nothing of the owner's day"


def test_a_grant_for_any_time_goes_on_beside_one_that_is_closed() -> None:
    away = make_grant(when=parse_when("away"))
    bench = Bench().ready(away, make_grant("G-2", BOB))
    bench.tell(reading(presence=THERE))
    offer = the(SendOffer, bench.tell(BrokerGreeted())).offer
    assert offer.phase == "lending"
    assert offer.classes
    assert all(BOB.public_key in one for one in offer.classes)
    returned = the(SendReport, bench.deliver(make_lease(make_spec(ALICE)))).report
    assert (returned.outcome, returned.reason) == ("evicted", NEEDED_HERE), "it is not refused"


def test_a_grant_of_a_program_that_the_catalogue_has_replaced_is_closed_until_asked_again() -> None:
    bench = Bench().ready(make_grant(workload="pinned", digest="00" * 32))
    status = bench.lender.status(bench.now)
    assert (status.phase, status.classes) == ("yielding", ())
    assert "changed since you agreed" in status.reason


# Budgets.


def test_what_tasks_have_used_may_be_told_with_their_results() -> None:
    bench = Bench().ready()
    bench.run()
    used = UsageMetered(lease_id(1), 3.0, 7 * GIB)
    receipt = the(WriteReceipt, bench.tell(TasksEnded(lease_id(1), results(0), used)))
    assert (receipt.cpu_s, receipt.memory_peak_bytes, receipt.tasks_run) == (3.0, 7 * GIB, 1)


def test_work_goes_as_soon_as_its_grant_has_used_up_its_budget_and_may_begin_tomorrow() -> None:
    bench = Bench().ready(make_grant(budget=parse_budget(["1cpuh/day"])))
    bench.run()
    assert sandboxes(bench.tell(UsageMetered(lease_id(1), 3599.0, 1))) == []
    effects = bench.tell(UsageMetered(lease_id(1), 3600.0, 1))
    assert sandboxes(effects) == [CloseSandbox(lease_id(1))]
    assert "1 CPU hour" in the(WriteReceipt, effects).ended
    (row,) = bench.lender.budgets(bench.now)
    assert (row["grant"], row["used"], row["amount"]) == ("G-1", 3600.0, 3600.0)
    assert the(SendReport, bench.deliver(make_lease(number=2))).report.outcome == "evicted"
    bench.now += DAY_S
    bench.tell(CALM)
    assert bench.lender.status(bench.now).phase == "lending"


def test_the_machines_own_budget_holds_for_all_grants_and_remembers_the_week() -> None:
    bench = Bench(budget=parse_budget(["10GB/week"])).ready()
    bench.tell(UsageRecalled((("G-0", START, Usage(moved_bytes=10_000_000_000)),), 0))
    assert bench.lender.status(bench.now).phase == "yielding"
    (row,) = bench.lender.budgets(bench.now)
    assert row["grant"] == ""


def test_what_was_used_before_a_restart_counts_for_the_day_it_was_here() -> None:
    tonight = START - START % DAY_S - 3600.0
    bench = Bench(budget=parse_budget(["1GB/day"]))
    used = (("G-0", tonight, Usage(moved_bytes=10_000_000_000)),)
    bench.tell(UsageRecalled(used, 7200))
    bench.ready()
    bench.tell(reading(utc_offset_s=7200))
    bench.now = tonight + 60.0
    assert bench.lender.budgets(bench.now)[0]["used"] == 10_000_000_000, "23:00 UTC is tomorrow"


def test_energy_is_estimated_at_the_rate_of_the_time_it_was_used() -> None:
    bench = Bench().ready()
    bench.run()
    bench.tell(reading(joules_per_cpu_s=36.0, energy_method="RAPL"))
    bench.tell(UsageMetered(lease_id(1), 100.0, 7 * GIB, 2, 5.0, GIB))
    bench.tell(reading(joules_per_cpu_s=72.0, energy_method="RAPL"))
    bench.tell(UsageMetered(lease_id(1), 150.0, 6 * GIB, 1))
    receipt = the(WriteReceipt, bench.end(0, cpu_s=20.0))
    assert receipt.energy_wh == pytest.approx(1.0 + 1.0)
    assert (receipt.cpu_s, receipt.energy_method) == (150.0, "RAPL")
    assert (receipt.memory_peak_bytes, receipt.vram_peak_bytes) == (7 * GIB, GIB)
    assert (receipt.network_attempts_blocked, receipt.gpu_s) == (2, 5.0)


@pytest.mark.parametrize("of_the_machine", [False, True])
def test_a_budget_in_kwh_allows_nothing_while_energy_cannot_be_measured(
    *, of_the_machine: bool
) -> None:
    budget = parse_budget(["0.5kWh/day"])
    bench = Bench(budget=budget if of_the_machine else ())
    bench.ready(make_grant(budget=() if of_the_machine else budget))
    status = bench.lender.status(bench.now)
    assert (status.phase, status.classes) == ("yielding", ())
    assert status.closed["G-1"] == (
        "grant G-1: a budget in kWh allows nothing while energy can't be measured here: "
        "set watts_per_core, or bound CPU hours"
    )
    bench.tell(reading(joules_per_cpu_s=8.0))
    assert bench.lender.status(bench.now).phase == "lending"
    bench.run()
    assert sandboxes(bench.tell(CALM)) == [FreezeSandbox(lease_id(1))]
    assert sandboxes(bench.tell(reading(joules_per_cpu_s=8.0))) == [ThawSandbox(lease_id(1))], (
        "a meter that is silent for a moment costs no work"
    )


def test_energy_of_the_gpu_is_on_the_receipt_and_counts_for_the_budget() -> None:
    bench = Bench().ready(make_grant(budget=parse_budget(["3Wh/day"])))
    bench.tell(reading(joules_per_cpu_s=36.0, energy_method="estimate: RAPL"))
    bench.run()
    bench.tell(UsageMetered(lease_id(1), 100.0, 1, gpu_joules=3600.0))
    assert bench.lender.budgets(bench.now)[0]["used"] == pytest.approx(2.0)
    effects = bench.tell(UsageMetered(lease_id(1), 100.0, 1, gpu_joules=7200.0))
    receipt = the(WriteReceipt, effects)
    assert receipt.outcome == "evicted"
    assert receipt.energy_wh == pytest.approx(3.0)
    assert receipt.energy_method == "estimate: RAPL; the GPU's meter by share of its use"


def test_what_work_moves_over_the_network_is_on_the_receipt_and_counts_for_the_budget() -> None:
    bench = Bench().ready(make_grant(budget=parse_budget(["1GB/day"])))
    bench.run()
    moved = UsageMetered(lease_id(1), 1.0, 1, network_in_bytes=5 * 10**8, network_out_bytes=10**8)
    assert sandboxes(bench.tell(moved)) == []
    (attempt,) = bench.lender.status(bench.now).attempts
    assert (attempt.network_in_bytes, attempt.network_out_bytes) == (5 * 10**8, 10**8)
    bench.tell(UsageMetered(lease_id(1), 1.0, 1, network_in_bytes=1))
    receipt = the(WriteReceipt, bench.tell(replace(moved, network_in_bytes=9 * 10**8)))
    assert receipt.outcome == "evicted"
    assert receipt.ended.startswith("grant G-1 has used 1 of 1 GB moved today")
    assert (receipt.network_in_bytes, receipt.network_out_bytes) == (9 * 10**8, 10**8)


def test_where_only_the_gpu_tells_its_energy_the_receipt_says_so() -> None:
    bench = Bench().ready()
    bench.run()
    bench.tell(UsageMetered(lease_id(1), 100.0, 1, gpu_joules=3600.0))
    bench.tell(UsageMetered(lease_id(1), 100.0, 1, gpu_joules=1800.0))
    receipt = the(WriteReceipt, bench.end(0))
    assert receipt.energy_wh == pytest.approx(1.0), "what was used is never less than before"
    told = "estimate: the GPU's meter by share of its use; CPU not measurable"
    assert receipt.energy_method == told


def test_what_could_not_be_counted_once_stays_unknown() -> None:
    bench = Bench().ready()
    bench.run()
    bench.tell(UsageMetered(lease_id(1), 1.0, 1, NOT_COUNTED))
    bench.tell(UsageMetered(lease_id(1), 1.0, 1, 3))
    bench.tell(UsageMetered("lease-of-nobody-0000000", 1.0, 1))
    assert the(WriteReceipt, bench.end(0)).network_attempts_blocked == NOT_COUNTED


# The verdict.


def reduced(cores_left: float) -> Bench:
    """A machine whose others need a bit more than they may before lent work is slowed."""
    limits = replace(LIMITS, cpu_others=Steps(reduced=Threshold(1.0, 0.5)))
    bench = Bench(policy=Policy(in_use=limits, away=limits)).ready()
    bench.run(make_lease(array_spec(2)))
    bench.run(make_lease(number=2))
    bench.tell(MachineSampled(Signals(4.0 - cores_left, 12 * GIB)))
    return bench


def test_the_oldest_attempt_keeps_its_core_and_the_youngest_gets_a_part_of_each_second() -> None:
    bench = reduced(cores_left=1.5)
    turns = sandboxes(bench.wait(5.0))
    assert {one.lease for one in turns if hasattr(one, "lease")} == {lease_id(2)}
    assert turns[:2] in (
        [FreezeSandbox(lease_id(2)), ThawSandbox(lease_id(2))],
        [ThawSandbox(lease_id(2)), FreezeSandbox(lease_id(2))],
    )
    assert len(turns) == 10, "on and off, once a second"
    assert {one.state for one in bench.lender.status(bench.now).attempts} == {"running"}


def test_an_attempt_that_gets_no_core_at_all_stands_still_and_is_handed_back() -> None:
    bench = reduced(cores_left=1.0)
    assert [one.state for one in bench.lender.status(bench.now).attempts] == ["running", "frozen"]
    ended = the(WriteReceipt, bench.wait(10.0))
    assert ended.lease == lease_id(2)
    assert ended.ended.startswith("frozen for 10 s: others use 3.0 cores")


def test_a_pause_holds_what_was_resting_and_it_rests_on_or_runs_afterwards() -> None:
    bench = reduced(cores_left=1.5)
    while sandboxes(bench.wait(0.1))[-1:] != [FreezeSandbox(lease_id(2))]:
        pass
    assert sandboxes(bench.pause()) == [FreezeSandbox(lease_id(1)), FreezeSandbox(lease_id(2))]
    assert sandboxes(bench.pause(paused=False)) == [ThawSandbox(lease_id(1))]
    assert ThawSandbox(lease_id(2)) in sandboxes(bench.wait(1.0))


def test_a_sandbox_that_is_prepared_while_it_rests_runs_with_its_next_turn() -> None:
    limits = replace(LIMITS, cores=0.5)
    bench = Bench(policy=Policy(in_use=limits, away=limits)).ready()
    bench.now = START + 0.75
    bench.deliver()
    assert sandboxes(bench.tell(SandboxPrepared(lease_id(1)))) == []
    bench.now = START + 0.9
    assert sandboxes(bench.wait(0.2)) == [ThawSandbox(lease_id(1)), RunTasks(lease_id(1), (0,))]


def test_short_memory_evicts_at_once_as_frozen_memory_is_memory_still() -> None:
    bench = Bench().ready()
    bench.run()
    effects = bench.tell(MachineSampled(Signals(0.5, GIB // 2)))
    assert sandboxes(effects) == [CloseSandbox(lease_id(1))]
    assert the(SendReport, effects).report.outcome == "evicted"


def test_work_on_a_gpu_is_evicted_where_other_work_is_frozen() -> None:
    bench = Bench().ready()
    bench.tell(CapabilitiesFound(Capabilities("x86_64", "linux", frozenset({"wasm"}), "nvidia")))
    bench.tell(reading(gpus=(GpuSignal("GPU-0", 7 * GIB),)))
    spec = make_spec(requires={"gpu": "nvidia", "vram_bytes": GIB})
    bench.deliver(make_lease(spec), class_of(spec))
    bench.run(make_lease(number=2))
    assert sandboxes(bench.pause()) == [CloseSandbox(lease_id(1)), FreezeSandbox(lease_id(2))]


def test_a_gpu_is_given_back_also_where_older_work_takes_all_the_cores_that_are_left() -> None:
    limits = replace(LIMITS, cpu_others=Steps(reduced=Threshold(1.0, 0.5)))
    bench = Bench(policy=Policy(in_use=limits, away=limits)).ready()
    bench.tell(CapabilitiesFound(Capabilities("x86_64", "linux", frozenset({"wasm"}), "nvidia")))
    bench.tell(reading(gpus=(GpuSignal("GPU-0", 7 * GIB),)))
    bench.run(make_lease(make_spec(limits={"cpu": 2})))
    spec = make_spec(requires={"gpu": "nvidia"})
    bench.deliver(make_lease(spec, 2), class_of(spec))
    effects = bench.tell(MachineSampled(Signals(2.0, 12 * GIB)))
    assert sandboxes(effects) == [CloseSandbox(lease_id(2))]


VRAM_KEPT = replace(LIMITS, vram_kept_bytes=Threshold(GIB, 2 * GIB))


def beside_a_gpu() -> tuple[Bench, JobSpec]:
    """A machine that runs lease 1 on its GPU and lease 2 without."""
    grant = make_grant(vram_bytes=4 * GIB)
    bench = Bench(policy=Policy(in_use=VRAM_KEPT, away=VRAM_KEPT)).ready(grant)
    bench.tell(CapabilitiesFound(Capabilities("x86_64", "linux", frozenset({"wasm"}), "nvidia")))
    bench.tell(reading(gpus=(GpuSignal("GPU-0", 7 * GIB),)))
    spec = make_spec(requires={"gpu": "nvidia", "vram_bytes": GIB})
    bench.deliver(make_lease(spec), class_of(spec))
    bench.tell(SandboxPrepared(lease_id(1)))
    bench.run(make_lease(number=2))
    return bench, spec


def gpu(free_bytes: int, *, lent: bool = True, others: float = 0.1) -> MachineSampled:
    return reading(gpus=(GpuSignal("GPU-0", free_bytes, 0, others, carries_lent=lent),))


def test_the_owners_need_of_gpu_memory_evicts_work_on_the_gpu_and_no_other() -> None:
    bench, _ = beside_a_gpu()
    assert sandboxes(bench.tell(gpu(GIB))) == []
    effects = bench.tell(gpu(GIB // 2))
    assert sandboxes(effects) == [CloseSandbox(lease_id(1))]
    receipt = the(WriteReceipt, effects)
    assert receipt.outcome == "evicted"
    assert receipt.ended == "no GPU work: 512 MiB of GPU memory free, under 1.0 GiB"
    status = bench.lender.status(bench.now)
    assert status.phase == "lending"
    (finding,) = status.verdict.findings
    assert (finding.value, finding.limit, finding.clears_at) == (GIB // 2, GIB, 2 * GIB)


def test_no_work_on_the_gpu_is_taken_before_its_memory_stayed_free_above_the_twin() -> None:
    bench, spec = beside_a_gpu()
    offered = the(SendOffer, bench.tell(BrokerGreeted())).offer
    work_class = class_of(spec)
    assert work_class in offered.classes
    offered = every(SendOffer, bench.tell(gpu(GIB // 2)) + bench.wait(0.1))[-1].offer
    assert offered.phase == "lending"
    assert offered.classes
    assert work_class not in offered.classes
    report = the(SendReport, bench.deliver(make_lease(spec, 3), work_class)).report
    assert (report.outcome, report.reason) == ("evicted", NEEDED_HERE), "it is not refused"
    bench.tell(gpu(2 * GIB - 1, lent=False))
    bench.wait(VRAM_KEPT.stay_s)
    bench.tell(gpu(2 * GIB - 1, lent=False))
    assert "lends it again from 2.0 GiB" in bench.lender.status(bench.now).verdict.gpu_reason
    assert work_class not in bench.lender.status(bench.now).classes
    bench.tell(gpu(3 * GIB, lent=False))
    assert work_class not in bench.lender.status(bench.now).classes
    bench.wait(VRAM_KEPT.stay_s)
    bench.tell(gpu(3 * GIB, lent=False))
    assert work_class in bench.lender.status(bench.now).classes


# The owner's word with an end.


def test_a_timed_pause_ends_by_itself() -> None:
    bench = Bench().ready()
    bench.run()
    word = Intent(paused=True, paused_at=bench.now, until=bench.now + 5.0)
    assert sandboxes(bench.tell(IntentLoaded(word))) == [FreezeSandbox(lease_id(1))]
    assert sandboxes(bench.wait(4.9)) == []
    assert sandboxes(bench.wait(0.1)) == [ThawSandbox(lease_id(1))]
    assert bench.lender.status(bench.now).phase == "lending"


def test_a_drain_takes_nothing_new_lets_work_finish_and_then_is_a_pause() -> None:
    bench = Bench().ready()
    bench.run()
    bench.run(make_lease(number=2))
    word = Intent(paused=True, paused_at=bench.now, finish_by=bench.now + 60.0)
    assert sandboxes(bench.tell(IntentLoaded(word))) == []
    assert bench.lender.status(bench.now).phase == "draining"
    assert the(SendReport, bench.deliver(make_lease(number=3))).report.outcome == "evicted"
    assert the(WriteReceipt, bench.end(0)).outcome == "succeeded"
    effects = bench.wait(60.0)
    assert sandboxes(effects) == [CloseSandbox(lease_id(2))]
    assert the(WriteReceipt, effects).ended == "the time to finish is over"
    assert bench.lender.status(bench.now).phase == "paused"


def test_a_drain_with_nothing_left_is_a_pause_at_once_and_resume_ends_it() -> None:
    bench = Bench().ready()
    word = Intent(paused=True, paused_at=bench.now, finish_by=bench.now + 60.0)
    bench.tell(IntentLoaded(word))
    assert bench.lender.status(bench.now).phase == "paused"
    bench.pause(paused=False)
    assert bench.lender.status(bench.now).phase == "lending"


# A wall clock that was set back: the core's time is ahead of it.

BEHIND_S = 7200.0


def test_a_timed_pause_lasts_by_the_clock_it_was_said_by() -> None:
    bench = Bench().ready()
    bench.run()
    bench.tell(WallClockRead(BEHIND_S))
    said_at = bench.now - BEHIND_S
    word = Intent(paused=True, paused_at=said_at, until=said_at + 5.0)
    assert sandboxes(bench.tell(IntentLoaded(word))) == [FreezeSandbox(lease_id(1))]
    assert bench.lender.status(bench.now).intent == word
    assert sandboxes(bench.wait(4.9)) == []
    assert sandboxes(bench.wait(0.1)) == [ThawSandbox(lease_id(1))]


def test_a_drain_leaves_the_time_that_was_said() -> None:
    bench = Bench().ready()
    bench.run()
    bench.tell(WallClockRead(BEHIND_S))
    said_at = bench.now - BEHIND_S
    word = Intent(paused=True, paused_at=said_at, finish_by=said_at + 60.0)
    assert sandboxes(bench.tell(IntentLoaded(word))) == []
    assert sandboxes(bench.wait(59.9)) == []
    assert sandboxes(bench.wait(0.1)) == [CloseSandbox(lease_id(1))]


def test_a_pause_follows_a_clock_that_is_set_back_after_it_was_said() -> None:
    bench = Bench(frozen_handback_s=1e6).ready()
    bench.run()
    bench.tell(IntentLoaded(Intent(paused=True, paused_at=bench.now, until=bench.now + 60.0)))
    behind_s = 300.0
    bench.tell(WallClockRead(behind_s))
    assert sandboxes(bench.wait(behind_s + 59.9)) == []
    assert sandboxes(bench.wait(0.1)) == [ThawSandbox(lease_id(1))]


def test_hours_go_by_the_wall_clock() -> None:
    midnight = START - START % DAY_S + DAY_S
    bench = Bench().ready(make_grant(when=parse_when("00:00-06:00")))
    bench.now = midnight + 60.0
    bench.tell(CALM)
    bench.run()
    assert sandboxes(bench.tell(WallClockRead(BEHIND_S))) == [FreezeSandbox(lease_id(1))]
    assert sandboxes(bench.tell(CALM)) == []


def test_hours_begin_and_end_between_two_readings() -> None:
    midnight = START - START % DAY_S + DAY_S
    bench = Bench().ready(make_grant(when=parse_when("00:00-06:00")))
    bench.now = midnight - 0.5
    bench.tell(CALM)
    assert the(SendReport, bench.deliver()).report.outcome == "evicted"
    bench.now = midnight
    assert every(OpenSandbox, bench.deliver(make_lease(number=2)))
    bench.now = midnight + 6 * 3600.0 - 0.1
    bench.tell(CALM)
    assert every(OpenSandbox, bench.deliver(make_lease(number=3)))
    assert sandboxes(bench.tell(BrokerGreeted(), 0.1)) == [FreezeSandbox(lease_id(3))]
    assert the(SendReport, bench.deliver(make_lease(number=4))).report.outcome == "evicted"


def test_the_owners_limits_go_by_the_wall_clock_too() -> None:
    midnight = START - START % DAY_S + DAY_S
    limits = replace(LIMITS, hours=parse_when("00:00-06:00"))
    bench = Bench(policy=Policy(in_use=limits, away=limits)).ready()
    bench.now = midnight + 60.0
    bench.tell(WallClockRead(BEHIND_S))
    bench.tell(CALM)
    assert bench.lender.status(bench.now).phase == "yielding"


def test_a_day_of_a_budget_begins_at_midnight_by_the_wall_clock() -> None:
    midnight = START - START % DAY_S + DAY_S
    bench = Bench(budget=parse_budget(["1GB/day"]))
    bench.tell(WallClockRead(BEHIND_S))
    bench.ready()
    used = (("G-0", midnight - 3 * 3600.0, Usage(moved_bytes=10_000_000_000)),)
    bench.tell(UsageRecalled(used, 0))
    bench.now = midnight + BEHIND_S - 1.0
    assert bench.lender.budgets(bench.now)[0]["used"] == 10_000_000_000
    assert bench.lender.budgets(bench.now + 1.0)[0]["used"] == 0


def test_no_clock_that_is_set_back_prolongs_a_grant() -> None:
    bench = Bench().ready(make_grant(not_after=START + 60.0))
    bench.run()
    bench.tell(WallClockRead(BEHIND_S))
    assert sandboxes(bench.wait(60.0)) == [CloseSandbox(lease_id(1))]


# Sleep.


def test_all_goes_back_before_the_machine_sleeps_which_it_may_once_that_is_answered() -> None:
    bench = Bench().ready()
    bench.run()
    effects = bench.tell(SleepAnnounced())
    assert sandboxes(effects) == [CloseSandbox(lease_id(1))]
    assert the(SendReport, effects).report.outcome == "evicted"
    assert not every(LetSleep, effects)
    assert len(every(LetSleep, bench.answer(1))) == 1
    assert not every(LetSleep, bench.tell(CALM)), "told once"
    assert bench.lender.status(bench.now).phase == "yielding"


def test_after_waking_nothing_is_lent_before_the_machine_was_read_anew() -> None:
    bench = Bench().ready()
    bench.tell(SleepAnnounced())
    bench.tell(WokenUp(3600.0), 3600.0)
    assert bench.lender.status(bench.now).phase == "yielding"
    bench.tell(CALM, 1.0)
    assert bench.lender.status(bench.now).phase == "yielding", "it may still be settling"
    for _ in range(30):
        bench.tell(CALM, 1.0)
    assert bench.lender.status(bench.now).phase == "lending"


def test_what_was_leased_before_an_unannounced_sleep_is_dropped_as_others_have_it_by_now() -> None:
    bench = Bench().ready()
    bench.run()
    effects = bench.tell(WokenUp(3600.0), 3600.0)
    assert sandboxes(effects) == [CloseSandbox(lease_id(1))]
    assert the(WriteReceipt, effects).outcome == "lost"


def test_a_broker_that_never_heard_of_a_lease_hears_that_a_sleep_has_ended_it() -> None:
    """It takes the lease as waiting in its queue: an ack alone would leave it there for ever."""
    bench = Bench().ready()
    bench.run()
    effects = bench.tell(WokenUp(3600.0), 3600.0)
    report = the(SendReport, effects).report
    assert (report.final, report.outcome, report.results) == (True, "evicted", ())
    assert not every(AckLease, effects)
    assert every(AckLease, bench.answer(1)) == [AckLease(1)]


def test_a_nap_shorter_than_the_brokers_patience_costs_nothing() -> None:
    bench = Bench().ready()
    bench.run()
    assert CloseSandbox(lease_id(1)) not in bench.tell(WokenUp(1.0), 1.0)


# Withdrawal.


def test_a_submitter_without_any_grant_left_is_purged_once_their_work_is_dead() -> None:
    bench = Bench().ready(make_grant(), make_grant("G-2", BOB), make_grant("G-3", BOB))
    bench.run()
    effects = bench.consent(make_grant(), make_grant("G-3", BOB), revoked=("G-1",))
    assert effects.index(CloseSandbox(lease_id(1))) < effects.index(
        PurgeSubmitter(ALICE.public_key)
    )
    assert every(PurgeSubmitter, effects) == [PurgeSubmitter(ALICE.public_key)]
