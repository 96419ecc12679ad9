"""Sets of task indices that cost memory by intervals."""

from broker.core.containers.ranges import RangeSet


def test_indices_in_any_order_are_as_few_intervals_as_can_be() -> None:
    assert list(RangeSet.of([5, 1, 2, 2, 7, 0])) == [(0, 3), (5, 1), (7, 1)]
    assert len(RangeSet.of([])) == 0


def test_what_is_added_touches_or_bridges_what_is_there() -> None:
    ranges = RangeSet([(10, 5), (20, 5)])
    ranges.add(0, 2)
    assert list(ranges) == [(0, 2), (10, 5), (20, 5)]
    ranges.add(12, 8)
    assert (list(ranges), len(ranges)) == ([(0, 2), (10, 15)], 17)
    assert [index in ranges for index in (0, 2, 10, 24, 25)] == [True, False, True, True, False]


def test_what_is_removed_leaves_both_ends() -> None:
    ranges = RangeSet([(0, 10), (20, 10)])
    ranges.remove(12, 3)
    ranges.remove(5, 20)
    assert (list(ranges), len(ranges)) == ([(0, 5), (25, 5)], 10)
    ranges.remove_all([(0, 5), (25, 5)])
    assert not ranges


def test_what_is_taken_is_the_lowest_in_few_enough_intervals() -> None:
    ranges = RangeSet([(0, 2), (4, 2), (8, 4)])
    assert list(ranges.take(5, 2)) == [(0, 2), (4, 2)]
    assert list(ranges.take(3, 2)) == [(8, 3)]
    assert list(ranges.take(9, 2)) == [(11, 1)]


def test_sets_are_alike_by_what_is_in_them() -> None:
    ranges = RangeSet([(3, 4), (9, 1)])
    assert ranges == RangeSet.of([9, 3, 4, 5, 6])
    assert ranges != [(3, 4), (9, 1)]
    assert repr(ranges) == "RangeSet([(3, 4), (9, 1)])"
    assert ranges.pairs() == ((3, 4), (9, 1))
    assert list(ranges.overlap([(0, 4), (6, 10)])) == [(3, 1), (6, 1), (9, 1)]
