"""Nothing of a fleet outlives whoever started it, also where that is killed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.fleet import wait_until
from lender.sandbox.processes import tree

ROOT = Path(__file__).parents[2]
MAKER = """
import sys, time
from pathlib import Path
from deploy.local.fleet import Fleet, wait_until
with Fleet(Path(sys.argv[1]), ("desk",), workloads=("command",)) as fleet:
    desk = fleet.lenders["desk"]
    fleet.submit("submit", "--no-wait", "--", "sleep", "600")
    wait_until(desk.busy, "the task runs")
    print(fleet.broker.pid, desk.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def maker(open_folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", MAKER, str(open_folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_all_of_it_ends_with_its_killed_maker(maker: subprocess.Popen[str]) -> None:
    assert maker.stdout is not None
    parts = [tree.identify(int(pid)) for pid in maker.stdout.readline().split()]
    all_of_it = tree.members(parts)
    assert len(all_of_it) > 4, "beside them a NATS server, a launcher and a task"
    maker.kill()
    wait_until(lambda: not any(map(tree.alive, all_of_it)), "the end of all", within_s=60)
