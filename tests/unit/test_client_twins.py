"""What has no event loop can do whatever has one."""

import pytest

from lender.client import (
    BlockingClient,
    BlockingFunctionJob,
    BlockingJob,
    Client,
    FunctionJob,
    Job,
)

APART = {"submit_program"}
"""Of the executor's alone."""


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("kind", "twin"),
    [(Client, BlockingClient), (Job, BlockingJob), (FunctionJob, BlockingFunctionJob)],
)
def test_each_has_a_twin_that_waits_and_says_what_it_does(kind: type, twin: type) -> None:
    assert public(kind) - APART <= public(twin)
    for name in public(kind):
        assert getattr(kind, name).__doc__
    for name in public(twin):
        assert getattr(twin, name).__doc__
