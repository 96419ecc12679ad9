"""What a process does that is kept ahead: it warms up, and nothing else."""

import gc
import os
import sys
from unittest import mock

import pytest

from lender.sandbox.runtimes import command, rehearsal

_LEADS_OUT = ("fork", "posix_spawn", "execve", "kill", "killpg")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only: no other system has bubblewrap")
def test_it_goes_the_way_of_a_task_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nobody is to be started, or ended")

    for name in _LEADS_OUT:
        monkeypatch.setattr(os, name, refuse)
    gc.collect()  # what other tests left is not to be closed in between
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - without a descriptor of its own
    with mock.patch.object(command, "run", wraps=command.run) as run:
        rehearsal.rehearse()
    assert run.call_count == 1
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
