"""Functions as jobs in real sandboxes, for the tests of the python runtime."""

from collections.abc import Callable
from pathlib import Path

import cloudpickle
import pytest
from sandboxes import LIMITS, USER, Workshop, needs_bubblewrap

from lender.client.functions import VERSION
from lender.client.values import decode
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import Limits, SandboxPlan, TaskOutcome
from lender.sandbox.runtimes import installed_python


def version_inside() -> str | None:
    """Of the interpreter that the sandboxes' user can run: not always ours."""
    if USER is None:
        return installed_python.find().version
    found = [one for one in map(installed_python._system, installed_python._FOLDERS) if one]
    return found[0].version if found else None


needs_python = [
    needs_bubblewrap,
    pytest.mark.skipif(
        version_inside() != VERSION,
        reason=f"no Python {VERSION} that the sandboxes' user can run",
    ),
]


def plan_of(
    workshop: Workshop,
    function: Callable[[int], object] | bytes,
    *,
    limits: Limits = LIMITS,
    inputs: dict[str, Path] | None = None,
    env: dict[str, str] | None = None,
) -> SandboxPlan:
    """A plan for a function, or for the bytes that stand in its place."""
    program = function if isinstance(function, bytes) else cloudpickle.dumps(function)
    plan = workshop.plan("process", "", limits=limits, inputs=inputs, env=env)
    return plan._replace(runtime="python", argv=(), program=workshop.file("function", program))


async def prepared(
    workshop: Workshop, function: Callable[[int], object] | bytes, **wanted: object
) -> LeaseSandbox:
    sandbox = workshop.sandbox(plan_of(workshop, function, **wanted))  # type: ignore[arg-type] # passed through
    await sandbox.prepare()
    return sandbox


def value(outcome: TaskOutcome) -> object:
    assert outcome.state == "succeeded", (outcome.error, outcome.stderr_tail.decode())
    return decode(outcome.value)
