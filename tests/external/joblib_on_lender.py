"""A pytest plugin: joblib's own tests of `Parallel`, with our backend in place of its processes.

What joblib's tests say of a list of backends they say of ours instead of `loky` and
`multiprocessing`; other parameters stay. `$LENDER_URL` and `$LENDER_KEY` say where.
"""

import importlib
from collections.abc import Callable, Iterable
from typing import Any

import cloudpickle
import joblib.testing
import pytest
from joblib import register_parallel_backend

from lender.client.joblib_backend import LenderBackend

_THEIRS = {"loky", "multiprocessing"}


class Trusting(LenderBackend):
    """joblib's tests return arrays and objects of their own."""

    def __init__(self, **parameters: Any) -> None:  # noqa: ANN401 - joblib's
        super().__init__(**{"trust_results": True, **parameters})


def _ours(values: Iterable[object]) -> list[object]:
    found = [one for one in values if not (isinstance(one, str) and one in _THEIRS)]
    return found if len(found) == len([*values]) or "lender" in found else [*found, "lender"]


def _parametrize(names: str, values: Iterable[object], **options: Any) -> Callable[..., Any]:  # noqa: ANN401
    return pytest.mark.parametrize(names, _ours(list(values)), **options)


def pytest_configure(config: pytest.Config) -> None:
    """Before the tests are imported."""
    config.addinivalue_line("markers", "thread_unsafe: joblib's own")
    register_parallel_backend("lender", Trusting)
    joblib.testing.parametrize = _parametrize


def pytest_collection_finish(session: pytest.Session) -> None:
    """Their functions travel by value: lenders have no joblib."""
    for name in {
        item.module.__name__ for item in session.items if isinstance(item, pytest.Function)
    }:
        cloudpickle.register_pickle_by_value(importlib.import_module(name))
