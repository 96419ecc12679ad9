"""The python runtime on macOS: see `python`; its interpreter is inside sandbox-exec.

Written from documentation and not yet run on a Mac. How it differs from Linux: the interpreter is
lenderd's own, where it is installed, with the site-packages beside it hidden; the working folder
has its own path, and inputs are copies in it; without an account of lenderd's own a function can't
start processes; tries to reach a network are not counted.
"""

import os
import socket
from pathlib import Path

from lender.sandbox.files import scratch
from lender.sandbox.plan import SandboxPlan
from lender.sandbox.processes import libproc, tree
from lender.sandbox.runtimes import installed_python, python_inside
from lender.sandbox.runtimes.interpreter import Interpreter
from lender.sandbox.runtimes.python_channel import Channel
from lender.sandbox.runtimes.python_runner import PythonRunner
from lender.sandbox.runtimes.residents import Used
from lender.sandbox.runtimes.runner import Reporter, Runner
from lender.sandbox.runtimes.seatbelted import Meters, Seatbelt, SeatbeltTask
from lender.sandbox.walls.seatbelt import View


def preload() -> None:
    """See that libproc is there.

    Raises:
        OSError: this is no Mac.
    """
    libproc.load()


def start(plan: SandboxPlan, reporter: Reporter) -> Runner:
    """Be the sandbox of one plan; see `runner.serve`."""
    plan, processes = plan._replace(scratch=plan.scratch.resolve()), libproc.load()
    meters = Meters(processes.footprint_bytes, processes.cpu_s)
    return PythonRunner(plan, reporter, Behind(plan, meters).start)


class Behind:
    """Starts interpreters behind sandbox-exec, in one working folder.

    Args:
        plan: the first that it is for, its working folder without a link in its path.
        meters: what is told of processes.
    """

    def __init__(self, plan: SandboxPlan, meters: Meters) -> None:
        self._meters = meters
        self._inputs = scratch.Inputs(plan.scratch, plan.inputs)

    def start(self, plan: SandboxPlan) -> Interpreter:
        """An interpreter that is about to come up.

        Raises:
            OSError: no process, or no descriptor.
            PrepareFailedError: no sandbox-exec, no Python, or a package or an input is missing.
        """
        seatbelt = Seatbelt(plan, self._meters)
        self._inputs.restore()
        inputs = [str(plan.scratch / name) for name in sorted(self._inputs.names)]
        env = plan.env_of(0)
        del env["LENDER_TASK"]
        argv, view = _words(plan)
        ours, theirs = socket.socketpair()
        with theirs:
            task = seatbelt.start(inputs, env, argv, view, theirs.fileno())
        channel = Channel(ours, task.stdout, plan.limits.output_bytes, task.root.pid)
        return Interpreter(task, channel, plan, lambda _pid: _Tree(task), self._inputs.restore)


def _words(plan: SandboxPlan) -> tuple[list[str], View]:
    """The interpreter's command line, and what it sees of this machine."""
    python = installed_python.find_in_place()
    packages = {
        name: os.path.realpath(path)
        for name, path in installed_python.packages(plan.packages).items()
    }
    inside = os.path.realpath(python_inside.__file__)
    program = os.path.realpath(str(plan.program))
    # What a wheel brings along in `<name>.libs` is found by its path alone.
    named = [
        f"{name.split('.')[0]}={path}"
        for name, path in packages.items()
        if not name.endswith(".libs")
    ]
    argv = [python.executable, "-I", "-S", "-B", "-X", "utf8", inside]
    argv += [str(plan.scratch), program, *named]
    hidden = [place for place in python.hidden if Path(place).is_dir()]
    brought = (inside, program, *packages.values())
    return argv, View(tuple(python.shown.values()), tuple(hidden), brought)


class _Tree:
    """The interpreter and what it has started, as `Residents`; see there for what is not said."""

    def __init__(self, task: SeatbeltTask) -> None:
        self._task = task

    def sweep(self) -> bool:
        """Its tree but itself, and whatever has left it."""
        if not tree.is_enclosed():
            return not self._task.has_ended()
        left = [one for one in tree.members((self._task.root,)) if one != self._task.root]
        return tree.kill(left).verified and not self._task.has_ended()

    def clear_temporary(self) -> None:
        """TMPDIR is the working folder."""

    def has_inputs(self) -> bool:
        """They are placed anew before each task."""
        return True

    def used(self, _duration_s: float) -> Used:
        """What its processes use now."""
        if self._task.has_ended():
            raise ProcessLookupError("the interpreter has ended")
        return Used(self._task.cpu_s(), self._task.memory_bytes(), None)

    def count(self) -> int:
        """Processes alone."""
        return len(self._task.pids())

    def close(self) -> None:
        """Nothing is held open."""
