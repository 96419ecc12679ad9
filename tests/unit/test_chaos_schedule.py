"""The chaos test's schedule: the same from the same seed, and never beyond what must hold."""

from collections.abc import Iterable

import pytest
from chaos.schedule import QUIET_S, Cast, Fault, schedule

CAST = Cast(
    lenders=[f"lender-{n:02}" for n in range(1, 21)],
    brokers=["broker-1", "broker-2"],
    nodes=["node-1", "node-2", "node-3"],
    submitters=["alice", "bob"],
)
OWNERS_WORDS = ("pause", "drain", "revoke")


def overlapping(faults: Iterable[Fault]) -> bool:
    ends_at = 0.0
    for fault in faults:
        if fault.at_s < ends_at:
            return True
        ends_at = fault.at_s + fault.lasts_s
    return False


def test_a_seed_stands_for_one_schedule() -> None:
    assert schedule(7, 600, CAST) == schedule(7, 600, CAST)
    assert schedule(7, 600, CAST) != schedule(8, 600, CAST)


@pytest.mark.parametrize("seed", range(20))
def test_a_majority_of_nodes_stands_at_any_time_and_nothing_is_struck_twice_at_once(
    seed: int,
) -> None:
    faults = schedule(seed, 600, CAST)
    assert not overlapping(one for one in faults if one.target in CAST.nodes)
    for target in (*CAST.lenders, *CAST.brokers, *CAST.submitters):
        mine = [one for one in faults if one.target == target]
        assert not overlapping(one for one in mine if one.kind in OWNERS_WORDS)
        assert not overlapping(one for one in mine if one.kind not in OWNERS_WORDS)
    assert max(one.at_s for one in faults) < 600 - QUIET_S


def test_every_kind_of_fault_strikes_in_ten_minutes() -> None:
    kinds = {one.kind for one in schedule(1, 600, CAST)}
    assert kinds == {
        "kill", "stop", "cut", "refuse", "half-open", "part", "delay", *OWNERS_WORDS,
    }  # fmt: skip
