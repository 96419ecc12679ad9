"""What other limits would have made of the readings that were recorded."""

from core_world import GIB, START

from lender.core.policy import Limits, Policy, Rung, Steps, Threshold
from lender.core.replay import GAP_S, Replay, Replayer
from lender.core.signals import GpuSignal, Signals

LIMITS = Limits(
    cpu_others=Steps(Threshold(1, 0.5), Threshold(3, 2)),
    memory_kept_bytes=Threshold(GIB, GIB),
    metered=False,
    stay_s=10.0,
)
POLICY = Policy(LIMITS, LIMITS)


def rows(*told: tuple[float, float]) -> list[tuple[float, Signals]]:
    return [(START + at, Signals(cpu_others, 4 * GIB)) for at, cpu_others in told]


def outcome(*told: tuple[float, float], policy: Policy = POLICY, slots: int = 4) -> Replay:
    replayer = Replayer(policy, 4.0, slots)
    for now, signals in rows(*told):
        replayer.take(now, signals)
    return replayer.outcome


def test_nothing_recorded_is_nothing_lent() -> None:
    none = outcome()
    assert (none.since, none.until, none.measured_s, none.stepped_in.total()) == (0, 0, 0, 0)


def test_time_and_cores_count_on_the_rung_that_held() -> None:
    one = outcome((0, 0.0), (10, 2.0), (15, 3.5), (20, 0.0), (30, 0.0), (40, 0.0), (50, 0.0))
    assert (one.since, one.until, one.measured_s) == (START, START + 50, 50)
    assert one.spent_s == {Rung.EVICTED: 0, Rung.FROZEN: 15, Rung.REDUCED: 15, Rung.FULL: 20}
    assert one.lent_core_s[Rung.FULL] == 80
    assert one.lent_core_s[Rung.REDUCED] == 5 * 2 + 10 * 2
    assert one.lent_core_s[Rung.FROZEN] == 0
    assert dict(one.stepped_in) == {"cpu_others": 2}


def test_no_more_counts_as_lent_than_there_are_slots() -> None:
    one = outcome((0, 0.0), (10, 2.0), (20, 0.0), slots=1)
    assert sum(one.lent_core_s.values()) == 20
    assert one.stepped_in.total() == 0, "one slot does not feel that two cores are gone"


def test_kinder_limits_lend_more_and_step_in_less() -> None:
    day = [(float(at), 1.5 if at % 100 < 50 else 0.0) for at in range(1000)]
    kind = Limits(stay_s=10.0)
    strict, changed = outcome(*day), outcome(*day, policy=Policy(kind, kind))
    assert strict.stepped_in["cpu_others"] == 9
    assert changed.stepped_in.total() == 0
    assert sum(changed.lent_core_s.values()) > sum(strict.lent_core_s.values())


def test_a_gap_counts_for_nothing_and_is_climbed_out_of() -> None:
    late = 10 + GAP_S + 1
    one = outcome((0, 0.0), (10, 0.0), (late, 0.0), (late + 10, 0.0), (late + 20, 0.0))
    assert one.measured_s == 30
    assert one.spent_s[Rung.FROZEN] == 10
    assert one.spent_s[Rung.REDUCED] == 10
    assert one.stepped_in.total() == 0, "that it slept is nobody's limit"


def test_a_clock_that_was_set_back_is_a_gap() -> None:
    one = outcome((0, 0.0), (10, 0.0), (5, 0.0), (15, 0.0))
    assert one.measured_s == 20


def test_a_gpu_that_the_owner_needs_counts_as_stepping_in() -> None:
    watchful = Limits(vram_kept_bytes=Threshold(GIB, 2 * GIB))
    replayer = Replayer(Policy(watchful, watchful), 4.0, 4)
    for at in range(30):
        free = GIB // 2 if at == 5 else 3 * GIB
        gpu = GpuSignal("GPU-0", free, carries_lent=at <= 5)
        replayer.take(START + at, Signals(0.0, 4 * GIB, gpus=(gpu,)))
    assert dict(replayer.outcome.stepped_in) == {"vram_kept_bytes": 1}
    assert replayer.outcome.spent_s[Rung.FULL] == 29, "other work is not concerned"


def test_new_work_turned_away_counts_too() -> None:
    replayer = Replayer(POLICY, 4.0, 4)
    for at in range(5):
        replayer.take(START + at, Signals(0.0, 4 * GIB, metered=at >= 2))
    assert dict(replayer.outcome.stepped_in) == {"metered": 1}
