"""The process runtime: each task is one command inside bubblewrap, watched from outside.

This process is the sandbox's supervisor and never runs a byte of the job's. On macOS, which has no
bubblewrap, it is `seatbelt_runner` instead.
"""

import socket
import sys

from lender.sandbox.files import checkpoint, scratch
from lender.sandbox.plan import SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes import command, runner, seatbelt_runner
from lender.sandbox.runtimes.bubblewrapped import Bubblewrap, BubblewrappedTask
from lender.sandbox.runtimes.runner import Reporter
from lender.sandbox.walls import bubblewrap, confine, enter, gpu_devices


def preload() -> None:
    """Look once at what the forks then know: our own program, and the driver of GPUs."""
    enter.find()
    gpu_devices.preload()


def main(sock: socket.socket) -> None:
    """Be the sandbox of one plan."""
    if sys.platform == "darwin":
        runner.serve(sock, seatbelt_runner.start)
        return
    confine.adopt_orphans()
    runner.serve(sock, _ProcessRunner)


class _ProcessRunner:
    def __init__(self, plan: SandboxPlan, reporter: Reporter) -> None:
        self._bubblewrap = Bubblewrap()
        if not plan.argv:
            raise PrepareFailedError("no command", invalid=True, field="argv")
        for name, path in plan.inputs.items():
            scratch.check_name(name)
            if not path.is_file():
                raise PrepareFailedError(f"input {name}: cannot be read")
        self._plan = plan
        self._soft_stop = reporter.soft_stop
        self._inputs = {name: str(path) for name, path in plan.inputs.items()}
        gpus = gpu_devices.find(plan.gpus)
        self._extra = [*enter.options(), *gpu_devices.options(gpus)]
        self._rules = [*enter.RULES, *gpu_devices.rules(gpus)]
        self._limits = bubblewrap.resource_limits(plan.limits, gpus=bool(gpus))

    def run(self, task: int) -> TaskOutcome:
        scratch.wipe(self._plan.scratch)
        return command.run(task, self._plan, self._start, self._soft_stop)

    def _start(self, task: int) -> BubblewrappedTask:
        plan = self._plan
        checkpoint.place(plan, task)
        options = bubblewrap.options(
            str(plan.scratch),
            plan.env_of(task),
            self._inputs,
            plan.limits,
            self._bubblewrap.fds,
            self._extra,
        )
        words = enter.command(plan.argv_of(task), self._limits, self._rules)
        return self._bubblewrap.start(options, words, plan.argv[0])
