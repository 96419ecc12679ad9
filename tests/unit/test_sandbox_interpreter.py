"""A python job's interpreter that is gone by the time it is looked for."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from sandboxes import LIMITS

from lender.sandbox.plan import SandboxPlan
from lender.sandbox.runtimes import python_inside
from lender.sandbox.runtimes.command import End, StartedTask
from lender.sandbox.runtimes.interpreter import Call, Interpreter
from lender.sandbox.runtimes.python_channel import Channel
from lender.sandbox.runtimes.residents import Residents


class _Ended:
    """What held it: an exit code, and nothing to wait for."""

    wakers = ()

    def __init__(self) -> None:
        self.stdout, self.stderr = (os.open(os.devnull, os.O_RDONLY) for _ in range(2))

    def has_ended(self) -> bool:
        return True

    def reap(self) -> End:
        return End(3, 0.0, 0, 0)

    def fault(self, exit_code: int | None, _said: str) -> str | None:
        return f"never came up ({exit_code})"


def _find(_pid: int) -> Residents:
    raise ProcessLookupError


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Call]:
    ours, inside = socket.socketpair()
    sandbox = _Ended()
    channel = Channel(ours, sandbox.stdout, 1 << 20, os.getpid())
    inside.send(python_inside.HELLO)
    inside.close()
    plan = SandboxPlan("l1", "python", "j1", 1, None, (), {}, {}, (), LIMITS, tmp_path)
    interpreter = Interpreter(cast("StartedTask", sandbox), channel, plan, _find, lambda: None)
    call = interpreter.loading()
    yield call
    os.close(call.stderr)


@pytest.mark.parametrize("is_heard", [True, False], ids=["looked for", "not even heard"])
def test_an_end_right_behind_its_first_word_is_the_programs_doing(
    call: Call, *, is_heard: bool
) -> None:
    if is_heard:
        assert not call.on_wake(call.wakers[0])
    end = call.reap()
    assert call.fault(end.exit_code, "") == "ended its interpreter (exit code 3)"
