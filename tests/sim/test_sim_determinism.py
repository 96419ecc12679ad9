"""The same seed gives the same trace, whatever the order of Python's sets."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
from sim.scenario import scenario
from sim.simulation import run
outcomes = [run(scenario(seed)) for seed in (3, 4, 5, 6)]
print([(one.digest, one.steps) for one in outcomes])
"""


def digests(hash_seed: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    ).stdout


@pytest.mark.timeout(240)
def test_a_seed_gives_one_trace_under_two_hash_seeds() -> None:
    first, second = digests("1"), digests("2")
    assert first.startswith("[(")
    assert first == second
