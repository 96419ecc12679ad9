from hypothesis import given
from hypothesis import strategies as st

from broker.core.containers.ranges import RangeSet

indices = st.integers(0, 60)
spans = st.tuples(indices, st.integers(1, 20))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), spans),
        st.tuples(st.just("remove"), spans),
        st.tuples(st.just("take"), st.tuples(st.integers(0, 30), st.integers(1, 4))),
    ),
    max_size=30,
)


def members(ranges: RangeSet) -> set[int]:
    return {index for first, count in ranges for index in range(first, first + count)}


def assert_canonical(ranges: RangeSet) -> None:
    last_end = -1
    for first, count in ranges:
        assert count > 0
        assert first > last_end, "intervals overlap, touch or are out of order"
        last_end = first + count


@given(steps)
def test_a_range_set_is_a_set(steps: list) -> None:
    ranges, model = RangeSet(), set()
    for verb, argument in steps:
        if verb == "take":
            count, ranges_max = argument
            first_ranges = [range(first, first + n) for first, n in ranges][:ranges_max]
            expected = set([index for one in first_ranges for index in one][:count])
            taken = ranges.take(count, ranges_max)
            assert members(taken) == expected
            assert len(taken) == len(expected)
            assert_canonical(taken)
            model -= expected
        else:
            first, count = argument
            getattr(ranges, verb)(first, count)
            span = set(range(first, first + count))
            model = model | span if verb == "add" else model - span
        assert members(ranges) == model
        assert len(ranges) == len(model)
        assert all((index in ranges) == (index in model) for index in range(90))
        assert_canonical(ranges)


@given(st.lists(spans, max_size=8), st.lists(spans, max_size=8))
def test_overlap_and_bulk_changes_are_those_of_sets(left: list, right: list) -> None:
    a, b = RangeSet(left), RangeSet(right)
    common = a.overlap(b)
    assert members(common) == members(a) & members(b)
    assert_canonical(common)
    joined, rest = RangeSet(a), RangeSet(a)
    joined.add_all(b)
    rest.remove_all(b)
    assert members(joined) == members(a) | members(b)
    assert members(rest) == members(a) - members(b)
    assert a == RangeSet(left), "another shares its memory"
    assert members(a) == {
        index for first, count in a.pairs() for index in range(first, first + count)
    }


@given(st.lists(indices, max_size=30))
def test_a_range_set_is_made_of_indices_in_any_order(some: list[int]) -> None:
    ranges = RangeSet.of(some)
    assert members(ranges) == set(some)
    assert len(ranges) == len(set(some))
    assert_canonical(ranges)


def test_ten_million_tasks_are_one_interval() -> None:
    ranges = RangeSet([(0, 10_000_000)])
    assert len(ranges) == 10_000_000
    assert list(ranges) == [(0, 10_000_000)]
    assert list(ranges.take(10, 1)) == [(0, 10)]
    assert list(ranges) == [(10, 9_999_990)]
    assert repr(ranges) == "RangeSet([(10, 9999990)])"
    assert ranges != [(10, 9_999_990)]
