"""The daemon's sandbox: one process of the launcher, asked for one task at a time.

Both runtimes look the same from here; what differs is the code that the forked process runs.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lender.sandbox import frames
from lender.sandbox.files import scratch
from lender.sandbox.frames import Frame
from lender.sandbox.launcher import Child, Launcher, LauncherGoneError
from lender.sandbox.plan import (
    STDERR_TAIL_BYTES,
    SandboxPlan,
    TaskOutcome,
    outcome_from_wire,
    plan_to_wire,
)
from lender.sandbox.port import PrepareFailedError, RecordRoots, SandboxGoneError
from lender.sandbox.processes import cgroup, stopping
from lender.sandbox.processes.stopping import Standing
from lender.sandbox.processes.subtree import Subtree
from lender.sandbox.processes.tree import Root

# The runner ends its own tasks; one that is this late has been taken over by its guest.
_LATE_S = 5.0
_LOOK_S = 1.0
_PREPARE_S = 120.0


class LeaseSandbox:
    """A `Sandbox` over a launcher. A cancelled call leaves it fit for `close` only.

    Args:
        plan: what to run.
        launcher: who forks it.
        record: writes the root processes down before they may run.
        abort_if_exists: the owner's words that stop a launch at the last instant.
        cgroups: where its cgroup is made; None where there are none to be had.

    Attributes:
        cgroup: see `Sandbox.cgroup`.
    """

    def __init__(
        self,
        plan: SandboxPlan,
        launcher: Launcher,
        record: RecordRoots,
        abort_if_exists: Sequence[Path] = (),
        cgroups: Subtree | None = None,
    ) -> None:
        self._plan = plan
        self._launcher = launcher
        self._record = record
        self._abort_if_exists = abort_if_exists
        self._cgroups = cgroups
        self.cgroup = None if cgroups is None else cgroups.leaf(plan.lease)
        self._loop = asyncio.get_running_loop()
        self._child: Child | None = None
        self._answer: asyncio.Future[Frame | None] | None = None
        self._decoder = frames.Decoder(0)
        self._closed = False

    @property
    def root_pids(self) -> tuple[Root, ...]:
        """See `Sandbox.root_pids`."""
        return () if self._child is None else (self._child.root,)

    async def prepare(self) -> None:
        """See `Sandbox.prepare`."""
        self._check_open()
        self._decoder = frames.Decoder(self._plan.limits.output_bytes + STDERR_TAIL_BYTES)
        if self._cgroups is not None:
            try:
                self._cgroups.make(self._plan.lease)
            except OSError as error:
                raise PrepareFailedError(f"no cgroup could be made: {error}") from error
        try:
            child = self._child = await self._launcher.spawn(self._plan.runtime, self.cgroup)
            self._loop.add_reader(child.channel, self._on_readable, child)
            await self._record((child.root,))
            self._check_open()
            await self._launcher.go(child, self._abort_if_exists)
        except LauncherGoneError as error:
            raise SandboxGoneError(str(error)) from error
        answer = await self._ask(child, {"plan": plan_to_wire(self._plan)}, _PREPARE_S)
        if answer is None:
            await self._end(child)
            raise PrepareFailedError(f"not prepared within {_PREPARE_S:g} s")
        if "unprepared" in answer.header:
            raise PrepareFailedError(
                answer.header["unprepared"],
                invalid=answer.header["invalid"],
                field=answer.header["field"],
            )

    async def run(self, task_index: int) -> TaskOutcome:
        """See `Sandbox.run`."""
        self._check_open()
        if self._child is None:
            # The last task could only be ended together with its process.
            await self.prepare()
        child = self._child
        if child is None:
            raise SandboxGoneError("closed")
        late_s = self._plan.limits.time_s + _LATE_S
        started_at = self._loop.time()
        answer = await self._ask(child, {"task": task_index}, late_s)
        if answer is None:
            await self._end(child)
            return TaskOutcome(
                task=task_index,
                state="failed",
                limit="time",
                error="hit its time limit and did not answer",
                started_at=started_at,
                duration_s=self._loop.time() - started_at,
            )
        try:
            last = answer.header["last"]
            outcome = outcome_from_wire(answer.header["outcome"], answer.body)
        except (LookupError, TypeError) as error:
            # Only a runner that its guest has taken over answers so.
            await self._end(child)
            raise SandboxGoneError("the sandbox gave an answer that is none") from error
        if last:
            await self._end(child)
        return outcome

    async def close(self) -> None:
        """See `Sandbox.close`."""
        self._closed = True
        if self._child is not None:
            await self._end(self._child)
        if self.cgroup is not None:
            cgroup.remove(self.cgroup)
        with contextlib.suppress(FileNotFoundError):  # `lender revoke` was here first
            await asyncio.to_thread(scratch.wipe, self._plan.scratch)

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxGoneError("closed")

    def _standing(self, child: Child) -> Standing:
        return Standing((child.root,), self.cgroup)

    async def _end(self, child: Child) -> None:
        """Kill the process and all below it, wait until it is reaped."""
        self._child = None
        await asyncio.to_thread(stopping.kill, (self._standing(child),))
        self._on_gone(child)
        await child.ended

    async def _ask(self, child: Child, message: dict[str, Any], late_s: float) -> Frame | None:
        """The answer; None when it is late, the time spent frozen not counted."""
        answer: asyncio.Future[Frame | None] = self._loop.create_future()
        self._answer = answer
        if child.channel.fileno() < 0:
            raise SandboxGoneError("the sandbox is dead")
        timer = self._loop.call_later(_LOOK_S, self._look, child, answer, late_s)
        try:
            await self._loop.sock_sendall(child.channel, frames.encode(Frame(message)))
            return await answer
        except OSError as error:
            raise SandboxGoneError("the sandbox died") from error
        finally:
            timer.cancel()
            self._answer = None

    def _look(self, child: Child, answer: asyncio.Future[Frame | None], left_s: float) -> None:
        if answer.done():
            return
        if not stopping.stands_still(self._standing(child)):
            left_s -= _LOOK_S
        if left_s <= 0:
            answer.set_result(None)
            return
        self._loop.call_later(_LOOK_S, self._look, child, answer, left_s)

    def _on_readable(self, child: Child) -> None:
        try:
            data, _ = frames.receive(child.channel)
            for frame in self._decoder.feed(data):
                if self._answer is not None and not self._answer.done():
                    self._answer.set_result(frame)
        except BlockingIOError:
            return
        except (OSError, frames.FrameError):
            data = b""
        if not data:
            self._on_gone(child)

    def _on_gone(self, child: Child) -> None:
        if child.channel.fileno() >= 0:
            self._loop.remove_reader(child.channel)
            child.channel.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(SandboxGoneError("the sandbox died"))
