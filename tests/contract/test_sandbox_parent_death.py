"""A daemon that dies by SIGKILL leaves nothing running."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sandboxes import needs_bubblewrap, open_folder, until

from lender.sandbox.processes import tree
from lender.sandbox.processes.tree import Root

__all__ = ["open_folder"]  # fixtures

# A daemon in short: prepares a sandbox, starts a task, says which processes it has.
_DAEMON = """
import asyncio, sys
from pathlib import Path
from lender.sandbox.processes import tree
from lender.sandbox.launcher import Launcher
from sandboxes import USER, Workshop, until

async def main(folder, runtime, program):
    launcher = await Launcher.start(drop_to=USER)
    workshop = Workshop(Path(folder), launcher)
    sandbox = await workshop.prepared(runtime, program)
    running = asyncio.create_task(sandbox.run(0))
    count = 1 if runtime == "wasm" else 4
    await until(lambda: len(tree.members(sandbox.root_pids)) >= count, "the task runs")
    for root in tree.members([tree.identify(launcher.pid)]):
        print(*root)
    print("ready", flush=True)
    await running

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("runtime", "program"),
    [
        ("wasm", "spin"),
        ("wasm", "sleep"),
        pytest.param("process", "spin", marks=needs_bubblewrap),
        pytest.param("process", "setsid sleep 3600 & sleep 3600 & wait", marks=needs_bubblewrap),
    ],
)
@pytest.mark.parametrize("launcher_is_stopped", [False, True])
async def test_a_killed_daemon_leaves_nothing(
    open_folder: Path, runtime: str, program: str, *, launcher_is_stopped: bool
) -> None:
    tests = str(Path(__file__).parent.parent)
    with subprocess.Popen(  # noqa: ASYNC220 - its end is what is waited for
        [sys.executable, "-c", _DAEMON, str(open_folder), runtime, program],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": tests},
        text=True,
    ) as daemon:
        assert daemon.stdout is not None
        met = []
        for line in daemon.stdout:
            if line == "ready\n":
                break
            met.append(Root(*map(int, line.split())))
        launcher = met[0]
        assert len(met) >= 2
        if launcher_is_stopped:
            os.kill(launcher.pid, signal.SIGSTOP)
        daemon.kill()
    if launcher_is_stopped:
        # Even then its death, by whoever, is the end of all sandboxes.
        os.kill(launcher.pid, signal.SIGKILL)
    await until(lambda: not any(map(tree.alive, met)), "all of its processes are gone")
