"""The way of a first task without a task, for a process that waits for its plan.

A fork shares its memory with the launcher until one of them writes to it, and Python writes to all
that it uses: it counts references in each object, and notes in each function how it is called. So
the first task of a sandbox met some hundred pages that had to be copied first. Who is kept ahead
has time for that. It starts nothing and opens nothing but pipes of its own.
"""

import contextlib
import os
from pathlib import Path

from lender.sandbox import frames
from lender.sandbox.egress.counters import Counters
from lender.sandbox.frames import Decoder, Frame
from lender.sandbox.plan import Limits, SandboxPlan, outcomes_to_wire, plan_from_wire, plan_to_wire
from lender.sandbox.runtimes import command
from lender.sandbox.runtimes.bubblewrapped import BubblewrappedTask
from lender.sandbox.runtimes.spawning import Spawned
from lender.sandbox.walls import bubblewrap, enter

_NOWHERE = Path("/nowhere")
# Without room for output it ends at that limit, ahead of all that would look at its folder.
_PLAN = SandboxPlan(
    lease="",
    runtime="process",
    job="",
    task_count=1,
    program=None,
    argv=("true",),
    env={},
    inputs={},
    outputs=(),
    limits=Limits(cpu=1, memory_bytes=1, time_s=1, output_bytes=0, scratch_bytes=1, processes=1),
    scratch=_NOWHERE,
)
_PID_OF_NOBODY = 1 << 30  # more than a kernel gives out


class _SoftStop:
    def __init__(self, fd: int) -> None:
        self.asked = False
        self.fd = fd


def rehearse() -> None:
    """Go that way."""
    (frame,) = Decoder(0).feed(frames.encode(Frame({"plan": plan_to_wire(_PLAN)})))
    plan = plan_from_wire(frame.header["plan"])
    env = plan.env_of(0)
    bubblewrap.options(str(_NOWHERE), env, {}, plan.limits, {}, enter.options())
    enter.command(plan.argv_of(0), bubblewrap.resource_limits(plan.limits))
    enter.outside("", plan.argv, len(Spawned._fields), idle=False)
    with contextlib.ExitStack() as ours:
        pipes = [os.pipe() for _ in range(6)]
        for reader, _ in pipes:
            os.set_blocking(reader, False)
        (handle, ended), (out, stdout), (err, stderr), (status, told), (hold, held), quiet = pipes
        counters = Counters.at(None)
        ours.callback(counters.close)
        for fd in (held, *quiet):
            ours.callback(os.close, fd)
        os.write(stdout, b"x")
        os.write(told, b'{"exit-code": 0}\n')
        for fd in (ended, stdout, stderr, told):
            os.close(fd)
        task = BubblewrappedTask(
            Spawned(_PID_OF_NOBODY, handle, out, err, status, hold), "true", counters, None
        )
        outcome = command.run(0, plan, lambda _: task, _SoftStop(quiet[0]))
    outcomes, body = outcomes_to_wire([outcome])
    frames.encode(Frame({"outcomes": outcomes, "last": False}, body))
