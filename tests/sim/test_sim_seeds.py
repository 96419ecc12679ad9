"""Whatever goes wrong, in whatever order: the promises hold, for a fixed set of seeds."""

import pytest
from sim.run import describe
from sim.scenario import scenario
from sim.simulation import run

SEEDS = range(1, 21)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_holds(seed: int) -> None:
    outcome = run(scenario(seed))
    assert not outcome.broken, describe(outcome)


def test_the_seeds_bring_every_kind_of_fault_and_verb() -> None:
    plans = [scenario(seed) for seed in range(1, 200)]
    kinds = {one.kind for plan in plans for one in plan.faults}
    verbs = {one.verb for plan in plans for one in plan.verbs}
    assert len(kinds) == 20
    assert verbs == {"pause", "resume", "revoke", "grant", "finish", "restart"}
