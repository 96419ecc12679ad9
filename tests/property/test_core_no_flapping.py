"""Whatever the machine does and however it is sampled: down at once, never up too soon."""

from dataclasses import replace
from typing import Any

from core_world import GIB, MIB, START
from hypothesis import given, settings
from hypothesis import strategies as st

from lender.core.comfort import Comfort
from lender.core.findings import Allowed, Reading, allowed, find
from lender.core.headroom import Spare
from lender.core.policy import Limits, Policy, Rung, Steps, Threshold, Verdict
from lender.core.presence import PresenceWatch
from lender.core.schedule import week_s
from lender.core.signals import GpuSignal, Presence, Signals

CORES = 4.0
EPSILON = 1e-9


def limits(**changes: object) -> Limits:
    fields: dict[str, Any] = {
        "cpu_others": Steps(Threshold(1, 0.75), Threshold(2, 1.5)),
        "pressure_cpu": Steps(Threshold(10, 5), Threshold(40, 20)),
        "pressure_memory": Steps(frozen=Threshold(2, 1), evicted=Threshold(10, 5)),
        "memory_kept_bytes": Threshold(GIB, GIB + GIB // 4),
        "temperature_c": Steps(Threshold(-20, -25), Threshold(-10, -15)),
        "on_battery": Rung.FROZEN,
        "battery_enough": Threshold(0.5, 0.6),
        "game": Rung.FROZEN,
        "metered": False,
        "vram_kept_bytes": Threshold(GIB, 2 * GIB),
        "stay_s": 10.0,
    }
    return Limits(**(fields | changes))


POLICY = Policy(in_use=limits(cores=1.5, stay_s=30.0), away=limits())

gpus: st.SearchStrategy[tuple[GpuSignal, ...]] = st.lists(
    st.builds(
        GpuSignal,
        id=st.just("GPU"),
        vram_free_bytes=st.sampled_from([0, GIB - 1, GIB, 2 * GIB - 1, 2 * GIB, 4 * GIB]),
        carries_lent=st.booleans(),
    ),
    max_size=2,
).map(tuple)
near: st.SearchStrategy[Signals] = st.builds(
    Signals,
    cpu_others=st.sampled_from([0.0, 0.7, 0.75, 0.8, 1.0, 1.1, 1.5, 1.6, 2.0, 2.1, 3.95]),
    memory_available_bytes=st.sampled_from([GIB - 1, GIB, GIB + 256 * MIB, 4 * GIB]),
    pressure_cpu=st.sampled_from([None, 0.0, 5.0, 5.1, 10.1, 20.0, 21.0, 41.0]),
    pressure_memory=st.sampled_from([0.0, 1.5, 3.0, 6.0, 11.0]),
    temperature_c=st.sampled_from([60.0, 77.0, 81.0, 86.0, 91.0]),
    temperature_limit_c=st.just(100.0),
    on_battery=st.booleans(),
    battery=st.sampled_from([None, 0.4, 0.55, 0.6]),
    gpus=gpus,
    game=st.sampled_from([False, False, False, True]),
    metered=st.sampled_from([False, False, True]),
    presence=st.builds(
        Presence,
        idle_s=st.sampled_from([0.0, 200.0, 400.0, 1000.0]),
        locked=st.sampled_from([None, False, True]),
        desktop=st.just(True),
    ),
)
calm = Signals(0.0, 4 * GIB, presence=Presence(1000.0, True, True))
mild = st.builds(
    Signals,
    cpu_others=st.sampled_from([0.0, 0.7, 0.8, 1.0, 1.3, 1.6]),
    memory_available_bytes=st.just(4 * GIB),
    pressure_cpu=st.sampled_from([0.0, 6.0, 12.0]),
    metered=st.sampled_from([False, False, False, True]),
    gpus=gpus,
    presence=st.just(calm.presence),
)
readings = st.one_of(st.just(calm), mild, mild, near)
paces = st.one_of(st.sampled_from([1.0, 3.0, 5.0, 8.0]), st.floats(0.05, 60.0))
days = st.lists(st.tuples(paces, readings), max_size=50)


def amounts(verdict: Verdict) -> Allowed:
    return Allowed(verdict.rung, verdict.cores, verdict.new_work, verdict.gpu_work)


def room(policy: Policy, watch: PresenceWatch, now: float, signals: Signals) -> tuple[Any, ...]:
    """What thresholds and their twins leave, found anew from this reading alone."""
    presence = watch.read(now, signals)
    one = policy.limits(presence)
    reading = Reading(signals, presence, week_s(now, 0), CORES)
    crossed = allowed(one, CORES, find(one, reading, back=False))
    holding = allowed(one, CORES, find(one, reading, back=True))
    return crossed, holding, one.stay_s


@settings(max_examples=300)
@given(days)
def test_down_at_once_and_up_one_rung_after_calm_that_held_for_the_stay(
    day: list[tuple[float, Signals]],
) -> None:
    comfort, watch = Comfort(POLICY, CORES), PresenceWatch(POLICY.presence)
    comfort.sampled(START, calm)
    watch.read(START, calm)
    now, climbed_at = START, None
    rooms: list[tuple[float, Allowed]] = []
    for after_s, signals in day:
        now += after_s
        before = amounts(comfort.verdict)
        comfort.sampled(now, signals)
        after = amounts(comfort.verdict)
        crossed, holding, stay_s = room(POLICY, watch, now, signals)
        rooms.append((now, holding))
        assert after.within(crossed) == after, "down at once"
        if not after.exceeds(before):
            continue
        assert after.rung <= before.rung + 1
        assert climbed_at is None or now - climbed_at >= stay_s
        climbed_at = now
        # Every reading of the stay had room, and the stay was not shorter than it says.
        window = [one for at, one in rooms if at >= now - stay_s - EPSILON]
        assert all(after.cores <= one.cores or after.cores == before.cores for one in window)
        assert all(after.rung <= one.rung or after.rung == before.rung for one in window)
        assert all(not after.new_work or before.new_work or one.new_work for one in window)
        assert all(not after.gpu_work or before.gpu_work or one.gpu_work for one in window)
        calm_before = [at for at, one in rooms if at <= now - stay_s + EPSILON]
        assert calm_before, "no calm that lasted"


@given(days)
def test_less_than_everything_always_has_a_reason_with_its_numbers(
    day: list[tuple[float, Signals]],
) -> None:
    comfort = Comfort(POLICY, CORES)
    now = START
    for after_s, signals in day:
        now += after_s
        comfort.sampled(now, signals)
        verdict = comfort.verdict
        less = verdict.rung < Rung.FULL or not (verdict.new_work and verdict.gpu_work)
        assert bool(verdict.findings) == less
        if less:
            assert min(one.rung for one in verdict.findings) == verdict.rung
            assert verdict.findings[0].rung == verdict.rung
        assert (verdict.cores > 0) == (verdict.rung >= Rung.REDUCED)
        assert all(one.text and one.text in verdict.reason for one in verdict.findings[:1])
        numbered = [one for one in verdict.findings if one.signal not in {"game", "metered"}]
        assert all(any(digit.isdigit() for digit in one.text) or one.value for one in numbered)
        if verdict.climbs_at is not None:
            assert verdict.climbs_at > now


worse: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    st.tuples(st.just("cpu_others"), st.floats(0, 4)),
    st.tuples(st.just("pressure_cpu"), st.floats(0, 100)),
    st.tuples(st.just("pressure_memory"), st.floats(0, 100)),
    st.tuples(st.just("temperature_c"), st.floats(0, 120)),
    st.tuples(st.just("on_battery"), st.just(True)),
    st.tuples(st.just("game"), st.just(True)),
    st.tuples(st.just("metered"), st.just(True)),
    st.tuples(st.just("memory_available_bytes"), st.integers(0, 8 * GIB)),
    st.tuples(st.just("gpus"), st.just((GpuSignal("GPU", 0, carries_lent=True),))),
    st.tuples(st.just("presence"), st.just(Presence(0.0, False, True))),
    st.tuples(st.just("presence"), st.just(Presence(None, None, True, 1))),
)


def worsened(signals: Signals, name: str, value: object) -> Signals:
    was: Any = getattr(signals, name)
    if isinstance(value, int | float) and not isinstance(value, bool) and was is not None:
        value = min(value, was) if name == "memory_available_bytes" else max(value, was)
    changes: dict[str, Any] = {name: value}
    return replace(signals, **changes)


@given(days, readings, st.lists(worse, max_size=3), paces)
def test_a_worse_reading_never_lends_more(
    day: list[tuple[float, Signals]],
    signals: Signals,
    changes: list[tuple[str, Any]],
    pace_s: float,
) -> None:
    one, other = Comfort(POLICY, CORES), Comfort(POLICY, CORES)
    now = START
    for after_s, before in day:
        now += after_s
        one.sampled(now, before)
        other.sampled(now, before)
    bad = signals
    for name, value in changes:
        bad = worsened(bad, name, value)
    one.sampled(now + pace_s, signals)
    other.sampled(now + pace_s, bad)
    assert not amounts(other.verdict).exceeds(amounts(one.verdict))


@given(days)
def test_in_use_never_lends_more_than_away_under_the_same_limits(
    day: list[tuple[float, Signals]],
) -> None:
    """A fully used machine can be lent as much as a free one, but never more."""
    same = limits()
    used, free = Comfort(Policy(same, same), CORES), Comfort(Policy(same, same), CORES)
    stricter = Comfort(Policy(replace(same, cores=1.5), same), CORES)
    now = START
    for after_s, signals in day:
        now += after_s
        here = replace(signals, presence=Presence(0.0, False, True))
        away = replace(signals, presence=Presence(1000.0, True, True))
        used.sampled(now, here)
        stricter.sampled(now, here)
        free.sampled(now, away)
        assert amounts(used.verdict) == amounts(free.verdict)
        assert stricter.verdict.cores <= min(1.5, free.verdict.cores)
        assert stricter.verdict.rung <= free.verdict.rung


@given(days, st.integers(0, 8), st.integers(0, 8), st.integers(0, 4 * GIB))
def test_what_is_lent_never_exceeds_what_is_spare(
    day: list[tuple[float, Signals]], slots: int, cpu: int, memory_bytes: int
) -> None:
    comfort = Comfort(POLICY, CORES)
    spare = Spare(comfort, slots, 8 * GIB)
    now = START
    for after_s, signals in day:
        now += after_s
        comfort.sampled(now, signals)
        free = spare.slots_free(cpu, memory_bytes)
        assert 0 <= free <= spare.slots_total <= min(slots, 4)
        assert free + cpu < comfort.verdict.cores + 1 or free == 0
        assert spare.memory_free_bytes(memory_bytes) + GIB <= max(
            signals.memory_available_bytes, GIB
        )
        if comfort.verdict.rung < Rung.REDUCED or not comfort.verdict.new_work:
            assert free == 0
