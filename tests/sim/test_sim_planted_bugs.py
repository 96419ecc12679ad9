"""Each of some bugs that one might make is found, and told with a seed and a short trace."""

import pytest
from sim.planted import PLANTED, planted
from sim.scenario import scenario
from sim.shrink import shrink
from sim.simulation import run

SEEDS_MAX = 60

FOUND_BY = {
    "the fencing check is dropped": {"committed means durable", "stale reports are refused"},
    "acknowledged before the commit": {"committed means durable"},
    "no requeue after a revoke": {
        "every job ends",
        "every task is in one place",
        "a gang runs whole or not at all",  # nor are the others of it taken back
    },
    "a range is leased twice": {"no task is leased twice", "every task is in one place"},
    "a revoke counts as a retry": {"only failures use retries"},
    "a gang goes on without one": {"a gang runs whole or not at all"},
    "an answer is not noted": {"committed means durable", "a result has its quorum"},
    "a lost copy is put back": {
        "no task is leased twice",
        "every task is in one place",
        "different owners answer",
        "raised KeyError",  # a task that says it is in a lease which has ended
    },
    "any number of jobs is taken": {"quotas are kept"},
    "an ended job counts on": {"quotas are kept", "a refusal has its reason"},
    "any number of tasks is handed out": {"quotas are kept"},
    "who was passed over is forgotten": {"every job ends"},
    "what is put off is forgotten": {"every job ends"},
    "the oldest lane goes first": {"each lane has its turn"},
    "jobs of any pool are taken": {"a refusal has its reason"},
    "an array's every index runs": {"one result per task", "nothing runs that was not signed"},
    "a job ends with its message alone": {"jobs follow others"},
    "a cancelled task waits on": {"no task is leased twice", "every task is in one place"},
    "a device is in nobody's hands": {"a device is one lease's"},
}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str) -> None:
    with planted(bug):
        outcomes = (run(scenario(seed)) for seed in range(1, SEEDS_MAX + 1))
        found = next(one for one in outcomes if one.broken)
        assert found.broken in FOUND_BY[bug]
        shortest = shrink(found, run, runs_max=10).outcome
    assert shortest.broken == found.broken
    assert shortest.scenario.weight <= found.scenario.weight
    assert not run(shortest.scenario).broken, "it is the bug that was found"
