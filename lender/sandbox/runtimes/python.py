"""The python runtime: the job's function, called once for each task in an interpreter for a lease.

This process is the sandbox's supervisor and never runs a byte of the job's, nor unpickles one. The
interpreter stays warm: what the function imported or computed for one task is there for the next,
of the same job. Whatever a task left outside of that memory is cleaned up behind it: its files, its
child processes, its environment. A task that hits a limit, ends the interpreter or breaks the rules
takes the interpreter along, and the next task gets another one.
"""

import socket

from lender.sandbox.files import scratch
from lender.sandbox.plan import Network, SandboxPlan
from lender.sandbox.runtimes import bubblewrapped, installed_python, python_inside
from lender.sandbox.runtimes.bubblewrapped import Bubblewrap
from lender.sandbox.runtimes.inhabitants import Inhabitants
from lender.sandbox.runtimes.interpreter import Interpreter
from lender.sandbox.runtimes.python_channel import Channel
from lender.sandbox.runtimes.python_runner import PythonRunner
from lender.sandbox.runtimes.runner import Reporter, Runner
from lender.sandbox.walls import bubblewrap, confine, device_nodes, enter, gpu_devices


def preload() -> None:
    """Look once at what the forks then know: our walls, and the driver of GPUs."""
    bubblewrapped.preload()
    gpu_devices.preload()


def start(plan: SandboxPlan, reporter: Reporter) -> Runner:
    """Be the sandbox of one plan; see `runner.serve`."""
    confine.adopt_orphans()
    return PythonRunner(plan, reporter, _Behind(plan.network).start, may_burst=True)


class _Behind:
    """Starts interpreters behind bubblewrap, with one network."""

    def __init__(self, network: Network | None) -> None:
        self._behind = Bubblewrap(network)

    def start(self, plan: SandboxPlan) -> Interpreter:
        """An interpreter that is about to come up."""
        python, behind = installed_python.find(), self._behind
        gpus = gpu_devices.find(plan.gpus)
        device_nodes.check(plan.devices)
        given = [*gpu_devices.options(gpus), *device_nodes.options(plan.devices)]
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
            [*enter.options(), *given, *_shown(plan, python)],
        )
        rules = [*enter.RULES, *gpu_devices.rules(gpus), *device_nodes.rules(plan.devices)]
        rules += [("-r", python_inside.FOLDER)]
        rules += [("-x", place) for place in python.shown]
        words = enter.command(
            [python.executable, "-I", "-S", "-B", "-X", "utf8", python_inside.INSIDE],
            bubblewrap.resource_limits(plan.limits, gpus=bool(gpus)),
            rules,
        )
        ours, theirs = socket.socketpair()
        with theirs:
            task = behind.start(options, words, "python", theirs.fileno())

        folder = str(plan.scratch)

        def restore() -> None:
            if not scratch.holds_only(folder, plan.inputs):
                scratch.wipe(plan.scratch, plan.inputs)

        def find(pid: int) -> Inhabitants:
            return Inhabitants(pid, plan.scratch, plan.inputs, task.refused)

        channel = Channel(ours, task.stdout, plan.limits.output_bytes)
        return Interpreter(task, channel, plan, find, restore)


def _shown(plan: SandboxPlan, python: installed_python.InstalledPython) -> list[str]:
    """The words for bubblewrap that show what is neither the system nor the working folder."""
    shown = {
        **python.shown,
        python_inside.INSIDE: python_inside.__file__,
        python_inside.PROGRAM: str(plan.program),
    }
    for name, path in installed_python.packages(plan.packages).items():
        shown[f"{python_inside.PACKAGES}/{name}"] = path
    words = [word for place, path in shown.items() for word in ("--ro-bind", path, place)]
    words += bubblewrap.CERTIFICATES if plan.network is not None else ()
    return words + [word for place in python.hidden for word in ("--tmpfs", place)]
