"""A lease that goes on in a sandbox pays for its own processor time alone."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lender.daemon.cpu_counter import CpuCounter, total_s
from lender.sandbox.processes import tree
from lender.sandbox.processes.stopping import Standing


@pytest.fixture
def spinner() -> Iterator[Standing]:
    with subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]) as process:
        yield Standing((tree.identify(process.pid),))
        process.kill()


def wait_for(standing: Standing, used_s: float) -> None:
    deadline = time.monotonic() + 20
    while total_s(standing) < used_s:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_was_used_before_is_not_counted(spinner: Standing) -> None:
    wait_for(spinner, 0.3)
    counter = CpuCounter(spinner)
    assert counter.before_s >= 0.3
    wait_for(spinner, counter.before_s + 0.1)
    assert 0.1 <= counter.read(spinner) <= total_s(spinner) - 0.3


def test_the_kernels_count_of_a_cgroup_goes_on_where_it_was_made_anew(tmp_path: Path) -> None:
    leaf = Standing((), tmp_path)

    def stat(usage_s: float) -> None:
        (tmp_path / "cpu.stat").write_text(f"usage_usec {usage_s * 1e6:.0f}\nuser_usec 0\n")

    stat(2.0)
    counter = CpuCounter(leaf)
    assert counter.read(leaf) == 0.0
    stat(2.5)
    assert counter.read(leaf) == 0.5
    stat(0.25)
    assert counter.read(leaf) == 0.75
    stat(1.0)
    assert counter.read(leaf) == 1.5
