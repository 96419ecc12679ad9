"""`LenderExecutor` passes what CPython asks of every executor.

Of the suite's other classes each looks at something else: threads and processes of CPython's own
pools (ThreadPool*, ProcessPool*), `initializer`, which this executor does not have (Initializer*,
FailingInitializer*), and `Future` by itself (FutureTests).
"""

import unittest
from collections.abc import Iterator

import pytest
from fleet import StandingFleet

from external import cpython_suite
from lender.client.executor import LenderExecutor

pytestmark = pytest.mark.timeout(240)

MIXINS = ("ExecutorTest", "WaitTests", "AsCompletedTests", "ExecutorShutdownTest")


class Trusting(LenderExecutor):
    """Some of the suite's functions return objects of their own."""

    def __init__(self, max_workers: int | None = None) -> None:
        super().__init__(max_workers, trust_results=True)


Trusting.__name__ = LenderExecutor.__name__

if cpython_suite.FILE.exists():
    suite = cpython_suite.load()
    for mixin in MIXINS:
        bases = (getattr(suite, mixin), suite.ExecutorMixin, suite.BaseTestCase)
        globals()[f"Test{mixin}"] = type(f"Test{mixin}", bases, {"executor_type": Trusting})


@pytest.mark.skipif(
    not cpython_suite.FILE.exists(),
    reason="no test suite of this Python (Debian package: libpython3.11-testsuite)",
)
def test_the_suite_has_all_four() -> None:
    for mixin in MIXINS:
        case = globals()[f"Test{mixin}"]
        assert unittest.defaultTestLoader.getTestCaseNames(case)


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    with StandingFleet("desk", workloads=("python",)) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def _fleet(standing: StandingFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor, and those in other interpreters, find it where a user's would."""
    fleet = standing.in_order()
    monkeypatch.setenv("LENDER_URL", fleet.url)
    monkeypatch.setenv("LENDER_KEY", str(fleet.key))
