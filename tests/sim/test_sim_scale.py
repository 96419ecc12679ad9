"""A thousand lenders in one process, with faults among them."""

import pytest
from sim.run import describe
from sim.scenario import hurried, scenario
from sim.simulation import run

LENDERS = 1_000


@pytest.mark.timeout(240)
def test_a_thousand_lenders_keep_the_promises() -> None:
    outcome = run(hurried(scenario(1, LENDERS), 0.2))
    assert not outcome.broken, describe(outcome)
    assert len(outcome.scenario.lenders) == LENDERS
