"""The examples of the client's README run as printed."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import StandingFleet

ROOT = Path(__file__).parents[2]
_, *EXAMPLES = re.findall(
    r"```python\n(.*?)```", (ROOT / "lender/client/README.md").read_text(), re.DOTALL
)
PRINTED = [
    "tick\nattempt 1 is\ncancelled\ncancelled\n",
    "0\n1\n4\n",
    "[b'a\\n', b'b\\n']\n",
    "[1, 2, 4, 8]\n997002999\n",
]


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    with StandingFleet("desk", workloads=("command", "python")) as fleet:
        yield fleet


@pytest.mark.parametrize(("program", "printed"), [*zip(EXAMPLES, PRINTED, strict=True)])
def test_an_example_runs(standing: StandingFleet, program: str, printed: str) -> None:
    fleet = standing.in_order()
    ours = {"LENDER_URL": fleet.url, "LENDER_KEY": str(fleet.key), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **ours},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    said = re.sub("(attempt 1 is) with lender.*", r"\1", done.stdout)
    assert sorted(said.splitlines()) == sorted(printed.splitlines())
