"""Whatever the machine does, the verdict does not flap and nothing is lent on a bad reading."""

from core_world import GIB, START
from hypothesis import given
from hypothesis import strategies as st

from lender.core.headroom import Headroom, Reserve
from lender.core.signals import Signals

RESERVE = Reserve(memory_bytes=GIB, yield_cpu_others=2.0, stay_s=5.0)

samples = st.builds(
    Signals, cpu_others=st.floats(0, 4), memory_available_bytes=st.integers(0, 3 * GIB)
)
near_the_thresholds = st.builds(
    Signals,
    cpu_others=st.sampled_from([1.4, 1.5, 1.6, 1.9, 2.0, 2.1]),
    memory_available_bytes=st.sampled_from([GIB - 1, GIB, GIB + 1, 2 * GIB]),
)
steps = st.lists(st.tuples(st.floats(0.01, 8.0), samples | near_the_thresholds), max_size=60)


@given(steps)
def test_it_lends_again_only_after_unbroken_calm(
    steps: list[tuple[float, Signals]],
) -> None:
    room = Headroom(RESERVE, cores=4.0, memory_bytes=8 * GIB)
    now, troubled_at = START, None
    for after_s, sample in steps:
        now += after_s
        yielded, measured = room.verdict.yields, room.sample.memory_available_bytes > 0
        room.sampled(now, sample)
        calm = sample.cpu_others <= 1.5 and sample.memory_available_bytes >= GIB + GIB // 4
        bad = sample.cpu_others > 2.0 or sample.memory_available_bytes < GIB
        if bad:
            assert room.verdict.yields, "at once"
        if yielded and measured and troubled_at is not None and not room.verdict.yields:
            assert calm
            assert now - troubled_at >= RESERVE.stay_s
        if bad or (room.verdict.yields and not calm):
            troubled_at = now
        assert room.verdict.reason


@given(steps, st.integers(0, 8), st.integers(0, 8), st.integers(0, 4 * GIB))
def test_what_is_lent_never_exceeds_what_is_spare(
    steps: list[tuple[float, Signals]], slots: int, cpu: int, memory_bytes: int
) -> None:
    room = Headroom(RESERVE, cores=4.0, memory_bytes=8 * GIB)
    now = START
    for after_s, sample in steps:
        now += after_s
        room.sampled(now, sample)
        free = room.slots_free(slots, cpu, memory_bytes)
        assert 0 <= free <= min(slots, 4)
        assert free + cpu <= min(slots, 4) or free == 0
        assert room.memory_free_bytes(memory_bytes) + RESERVE.memory_bytes <= max(
            sample.memory_available_bytes, RESERVE.memory_bytes
        )
        if room.verdict.yields:
            assert free == 0
