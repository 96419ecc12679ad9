"""The python runtime: the job's function, called once for each task in an interpreter for a lease.

This process is the sandbox's supervisor and never runs a byte of the job's, nor unpickles one. The
interpreter stays warm: what the function imported or computed for one task is there for the next,
of the same job. Whatever a task left outside of that memory is cleaned up behind it: its files, its
child processes, its environment. A task that hits a limit, ends the interpreter or breaks the rules
takes the interpreter along, and the next task gets another one.
"""

import os
import socket
from typing import NoReturn

from lender.sandbox.files import scratch
from lender.sandbox.plan import SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes import bubblewrapped, command, installed_python, python_inside
from lender.sandbox.runtimes.bubblewrapped import Bubblewrap
from lender.sandbox.runtimes.interpreter import Call, Interpreter
from lender.sandbox.runtimes.python_channel import Channel
from lender.sandbox.runtimes.runner import Reporter, Runner
from lender.sandbox.walls import bubblewrap, confine, enter, gpu_devices


def preload() -> None:
    """Look once at what the forks then know: our walls, and the driver of GPUs."""
    bubblewrapped.preload()
    gpu_devices.preload()


def start(plan: SandboxPlan, reporter: Reporter) -> Runner:
    """Be the sandbox of one plan; see `runner.serve`."""
    confine.adopt_orphans()
    return _PythonRunner(plan, reporter)


class _PythonRunner:
    def __init__(self, plan: SandboxPlan, reporter: Reporter) -> None:
        if plan.program is None:
            raise PrepareFailedError(
                "a python job names its function", invalid=True, field="program"
            )
        scratch.check_inputs({**plan.inputs, "program": plan.program})
        self._plan = plan
        self._reporter = reporter
        self._call: Call | None = None
        self._interpreter: Interpreter
        self._load()
        reporter.when_idle = self._tidy

    def run(self, task: int) -> TaskOutcome:
        plan, soft_stop = self._plan, self._reporter.soft_stop
        if not self._interpreter.alive:
            # The task before has left what could not be cleaned up.
            try:
                self._load()
            except PrepareFailedError as error:
                self._end(TaskOutcome(task, "failed", error=error.reason))
        self._call = None
        outcome = command.run(task, plan, self._begin, soft_stop, plan.inputs, self._reporter)
        if self._call is not None:
            outcome = self._call.complete(outcome)
        if not self._interpreter.alive:
            self._end(outcome)
        return outcome

    def _end(self, outcome: TaskOutcome) -> NoReturn:
        """Leave it to the daemon to have another one prepared, in its own time."""
        self._reporter.send(outcome, last=True)
        os._exit(0)

    def _tidy(self) -> None:
        """Clean up behind a task while its outcome is on the way."""
        if self._interpreter.alive and not self._interpreter.settle():
            self._interpreter.end()

    def _begin(self, task: int) -> Call:
        try:
            self._call = self._interpreter.call(task)
        except OSError:
            self._interpreter.end()
            raise
        return self._call

    def _load(self) -> None:
        """Start the interpreter and have it load the program.

        Raises:
            PrepareFailedError: it can't; the program is at fault where the interpreter came up.
        """
        limits = self._plan.limits._replace(time_s=self._plan.limits.prepare_s)
        plan = self._plan._replace(limits=limits)
        scratch.wipe(plan.scratch)
        outcome = command.run(0, plan, self._start, self._reporter.soft_stop, plan.inputs)
        reason, loading = outcome.error or "the program ended its interpreter", self._call
        if loading is None:
            raise PrepareFailedError(reason)
        if outcome.state == "succeeded" and self._interpreter.alive:
            return
        if self._interpreter.alive:
            self._interpreter.end()
        if outcome.terminated or outcome.limit == "time" or not self._interpreter.greeted:
            raise PrepareFailedError(reason)
        if loading.answer is not None and loading.answer.kind == python_inside.MISSING:
            # Another machine may have it.
            raise PrepareFailedError(f"the program needs what is not here: {reason}")
        reason = f"the program can't be loaded: {reason}"
        raise PrepareFailedError(reason, invalid=True, field="program")

    def _start(self, _task: int) -> Call:
        plan, python, behind = self._plan, installed_python.find(), Bubblewrap()
        gpus = gpu_devices.find(plan.gpus)
        env = plan.env_of(0)
        del env["LENDER_TASK"]
        if python.libraries:
            places = (python.libraries, env.get("LD_LIBRARY_PATH"))
            env["LD_LIBRARY_PATH"] = ":".join(filter(None, places))
        options = bubblewrap.options(
            str(plan.scratch),
            env,
            {name: str(path) for name, path in plan.inputs.items()},
            plan.limits,
            behind.fds,
            [*enter.options(), *gpu_devices.options(gpus), *self._shown(python)],
        )
        rules = [*enter.RULES, *gpu_devices.rules(gpus), ("-r", python_inside.FOLDER)]
        rules += [("-x", place) for place in python.shown]
        words = enter.command(
            [python.executable, "-I", "-S", "-B", "-X", "utf8", python_inside.INSIDE],
            bubblewrap.resource_limits(plan.limits, gpus=bool(gpus)),
            rules,
        )
        ours, theirs = socket.socketpair()
        with theirs:
            task = behind.start(options, words, "python", theirs.fileno())
        self._interpreter = Interpreter(task, Channel(ours), plan)
        self._call = self._interpreter.loading()
        return self._call

    def _shown(self, python: installed_python.InstalledPython) -> list[str]:
        """The words for bubblewrap that show what is neither the system nor the working folder."""
        shown = {
            **python.shown,
            python_inside.INSIDE: python_inside.__file__,
            python_inside.PROGRAM: str(self._plan.program),
        }
        for name, path in installed_python.packages(self._plan.packages).items():
            shown[f"{python_inside.PACKAGES}/{name}"] = path
        words = [word for place, path in shown.items() for word in ("--ro-bind", path, place)]
        return words + [word for place in python.hidden for word in ("--tmpfs", place)]
