"""The daemon's sandbox: one process of the launcher, asked for one task after the other.

All runtimes look the same from here; what differs is the code that the forked process runs. It is
told of tasks ahead, where the daemon knows them, and goes from one to the next by itself. Where
the kernel ends all of it at a limit of its cgroup, there is nobody left inside who could tell: the
outcome is made here, and the next task gets another process.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lender.sandbox import frames
from lender.sandbox.asked import Asked
from lender.sandbox.files import scratch
from lender.sandbox.frames import Frame, FrameError
from lender.sandbox.launcher import Child, Launcher, LauncherGoneError
from lender.sandbox.meters.task_log import BYTES_PER_S, TOLD_BYTES_MAX
from lender.sandbox.plan import (
    STDERR_TAIL_BYTES,
    LimitName,
    SandboxPlan,
    TaskOutcome,
    outcomes_from_wire,
    plan_to_wire,
)
from lender.sandbox.port import (
    AHEAD_MAX,
    KNOWN_MAX,
    PrepareFailedError,
    RecordRoots,
    RefusedError,
    SandboxGoneError,
)
from lender.sandbox.processes import account, cgroup, controllers, stopping, tree
from lender.sandbox.processes.stopping import Standing
from lender.sandbox.processes.subtree import Subtree
from lender.sandbox.processes.tree import Root

# The runner ends its own tasks; one that is this late has been taken over by its guest.
_LATE_S = 5.0
_LOOK_S = 1.0
# A first outcome becomes a result, which goes out first.
_AHEAD_S = 0.001
# Values that wait for the daemon are its memory: with more of them nothing is read.
_EARLY_BYTES_MAX = 16 << 20
_ANSWER_HEADER_BYTES_MAX = 1 << 18


class LeaseSandbox:
    """A `Sandbox` over a launcher. A cancelled call leaves it fit for `close` only.

    Args:
        plan: what to run.
        launcher: who forks it.
        record: writes the root processes down before they may run.
        abort_if_exists: the owner's words that stop a launch at the last instant.
        cgroups: where its cgroup is made; None where there are none to be had.
        on_log: told the task and what it wrote to standard error, while it runs: bounded, and at
            most every 100 ms.

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
        on_log: Callable[[int, bytes], None] | None = None,
    ) -> None:
        self._plan = plan
        self._launcher = launcher
        self._record = record
        self._abort_if_exists = abort_if_exists
        self._cgroups = cgroups
        self.cgroup = None if cgroups is None else cgroups.leaf(plan.lease)
        self._loop = asyncio.get_running_loop()
        self._spawning: asyncio.Future[Child] | None = None
        self._child: Child | None = None
        self._asked = Asked(AHEAD_MAX, KNOWN_MAX)
        self._readiness: Frame | None = None
        self._early_bytes = 0
        self._ends = False
        self._reads = True
        self._answer: asyncio.Future[bool] | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._left_s = 0.0
        self._on_log = on_log
        self._log_bytes = 0.0
        self._decoder = frames.Decoder(0)
        self._told_cpu_s = 0.0
        self._untold = b""
        self._asks_ahead = False
        self._closed = False

    @property
    def root_pids(self) -> tuple[Root, ...]:
        """See `Sandbox.root_pids`."""
        return () if self._child is None else (self._child.root,)

    async def prepare(self) -> None:
        """See `Sandbox.prepare`."""
        self._check_open()
        answer_bytes = self._plan.limits.output_bytes + STDERR_TAIL_BYTES
        body_bytes_max = max(answer_bytes, TOLD_BYTES_MAX)
        self._decoder = frames.Decoder(body_bytes_max, _ANSWER_HEADER_BYTES_MAX)
        self._reads, self._ends, self._early_bytes = True, False, 0
        if self._cgroups is not None:
            leaf = self.cgroup = self._cgroups.take(self._plan.lease)
            try:
                self._cgroups.make(leaf, self._plan.limits)
            except OSError as error:
                raise PrepareFailedError(f"no cgroup could be made: {error}") from error
        try:
            # A task of its own: who gives up waiting leaves a child to `close`.
            spawn = self._launcher.spawn(self._plan.runtime, self.cgroup)
            self._spawning = asyncio.ensure_future(spawn)
            child = self._child = await asyncio.shield(self._spawning)
            self._spawning = None
            self._check_open()
            self._told_cpu_s = 0.0
            self._asks_ahead = self._launcher.looks_ahead
            self._loop.add_reader(child.channel, self._on_readable, child)
            await self._record((child.root,))
            self._check_open()
            await self._launcher.go(child, self._abort_if_exists)
        except LauncherGoneError as error:
            raise SandboxGoneError(str(error)) from error
        except RefusedError:
            await self._end(child)
            raise
        prepare_s = self._plan.limits.prepare_s
        try:
            answer = await self._ask_to_be_ready(child)
        except SandboxGoneError as error:
            if not self._ran_out_of_memory():
                raise
            await self._end(child)
            reason = "hit its memory limit while it was prepared"
            raise PrepareFailedError(reason, invalid=True, field="limits.memory_bytes") from error
        if answer is None:
            await self._end(child)
            raise PrepareFailedError(f"not prepared within {prepare_s:g} s")
        if "unprepared" in answer.header:
            raise await self._told_unprepared(child, answer.header)

    async def _told_unprepared(self, child: Child, told: dict[str, Any]) -> Exception:
        """Why it is not: in its own words, unless whoever took it over says something else."""
        reason, invalid, field = (told.get(name) for name in ("unprepared", "invalid", "field"))
        if isinstance(reason, str) and isinstance(invalid, bool) and isinstance(field, str):
            return PrepareFailedError(reason, invalid=invalid, field=field)
        await self._end(child)
        return SandboxGoneError("the sandbox gave an answer that is none")

    async def run(self, task_index: int, ahead: Sequence[int] = ()) -> TaskOutcome:
        """See `Sandbox.run`."""
        return (await self._outcomes_of((task_index, *ahead), most=1))[0]

    async def run_together(self, tasks: Sequence[int]) -> Sequence[TaskOutcome]:
        """See `Sandbox.run_together`."""
        return await self._outcomes_of(tasks)

    async def _outcomes_of(
        self, tasks: Sequence[int], most: int | None = None
    ) -> Sequence[TaskOutcome]:
        """What has come of the first of these and of those right behind it, `most` at most."""
        child = await self._serving()
        # Who is asked to end at its time limit has its grace on top.
        late_s = self._plan.limits.time_s + self._plan.grace_s + _LATE_S
        started_at = self._loop.time()
        hit: LimitName = "time"
        try:
            await self._send(child, self._questions(tasks), late_s)
            outcomes = await self._answers_of(child, most)
        except SandboxGoneError:
            if not self._ran_out_of_memory():
                raise
            outcomes, hit = [], "memory"
        if not outcomes:
            if len(self._asked) > 1:
                return await self._run_alone(child, tasks[0])
            return [await self._cut_off(child, tasks[0], started_at, hit)]
        if self._asks_ahead:
            self._asks_ahead = False
            self._loop.call_later(_AHEAD_S, self._look_ahead)
        if any(one.task != task for one, task in zip(outcomes, tasks, strict=False)):
            await self._end(child)
            raise SandboxGoneError("the sandbox gave an answer that is none")
        return await self._judged(child, outcomes)

    async def _judged(self, child: Child, outcomes: Sequence[TaskOutcome]) -> Sequence[TaskOutcome]:
        """The same, where none of them failed since the kernel keeps all of it to a limit."""
        last = self._ends and not self._asked.early
        for place, one in enumerate(outcomes):
            self._told_cpu_s += one.cpu_s
            if one.state == "succeeded" or one.limit is not None or one.terminated:
                continue
            if (limit := self._limit_hit()) is None:
                continue
            if place > 0:
                await self._end(child)
                return outcomes[:place]  # this one is then the first
            if len(outcomes) > 1 or len(self._asked) > 0:
                return await self._run_alone(child, one.task)
            last = True  # the next one's leaf has hit none yet
            outcomes = [one._replace(limit=limit, error=f"hit its {limit} limit")]
        if last:
            await self._end(child)
        return outcomes

    def _look_ahead(self) -> None:
        """Have the next process made: that takes nothing from this one's start any more."""
        self._launcher.look_ahead(None if self._cgroups is None else self._cgroups.ahead())

    async def _run_alone(self, child: Child, task: int) -> Sequence[TaskOutcome]:
        """All of it ended at a limit, and it may have been one of the tasks behind that hit it."""
        await self._end(child)
        return await self._outcomes_of((task,))

    async def _serving(self) -> Child:
        """Who runs the next task: another process, where the last one could only end with its."""
        self._check_open()
        if self._child is None:
            try:
                await self.prepare()
            except PrepareFailedError as error:
                raise SandboxGoneError(f"not prepared again: {error}") from error
        if self._child is None:
            raise SandboxGoneError("closed")
        return self._child

    def begin_job(
        self,
        job: str,
        task_count: int,
        *,
        separate: bool = False,
        each: Sequence[Sequence[str]] = (),
    ) -> None:
        """See `Sandbox.begin_job`."""
        self._plan = self._plan._replace(
            job=job, task_count=task_count, separate=separate, each=each
        )
        told = {"job": job, "task_count": task_count, "separate": separate}
        self._untold = frames.encode(Frame(told))

    async def load(self, job: str, task_count: int, program: Path) -> None:
        """See `Sandbox.load`."""
        self._check_open()
        self._plan = self._plan._replace(job=job, task_count=task_count, program=program)
        if (child := self._child) is not None:
            answer = None
            with contextlib.suppress(SandboxGoneError):
                answer = await self._ask_to_be_ready(child)
            if answer is not None and answer.header == {"prepared": True}:
                return
            self._check_open()
            await self._end(child)
        # What is in memory may be why: a new one tells whether the program itself is at fault.
        await self.prepare()

    async def close(self) -> None:
        """See `Sandbox.close`."""
        self._closed = True
        child = self._child or await self._abandoned()
        if child is not None:
            await self._end(child)
        if self.cgroup is not None:
            cgroup.remove(self.cgroup)
        with contextlib.suppress(FileNotFoundError):  # `lender revoke` was here first
            await asyncio.to_thread(scratch.wipe, self._plan.scratch)

    async def _abandoned(self) -> Child | None:
        """The child of a `prepare` that was cancelled before it came."""
        spawning, self._spawning = self._spawning, None
        if spawning is not None:
            with contextlib.suppress(PrepareFailedError, LauncherGoneError):
                return await spawning
        return None

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxGoneError("closed")

    def _limit_hit(self) -> LimitName | None:
        return None if self.cgroup is None else controllers.hit(self.cgroup)

    def _ran_out_of_memory(self) -> bool:
        """Whether the kernel ended it at its own limit, and nobody else did."""
        return not self._closed and self._limit_hit() == "memory"

    async def _cut_off(
        self, child: Child, task: int, started_at: float, limit: LimitName
    ) -> TaskOutcome:
        """End it all; how a task ended that nothing inside of the sandbox can tell about."""
        used_s, peak_bytes = 0.0, 0
        how = " and did not answer" if limit == "time" else ""
        if self.cgroup is not None:
            used_s = max(0.0, cgroup.cpu_s(self.cgroup) - self._told_cpu_s)
            peak_bytes = controllers.memory_peak_bytes(self.cgroup)
        await self._end(child)
        return TaskOutcome(
            task=task,
            state="failed",
            limit=limit,
            error=f"hit its {limit} limit{how}",
            cpu_s=used_s,
            memory_peak_bytes=peak_bytes,
            started_at=started_at,
            duration_s=self._loop.time() - started_at,
        )

    def _standing(self, child: Child) -> Standing:
        return Standing((child.root,), self.cgroup)

    async def _end(self, child: Child) -> None:
        """Kill the process and all below it, wait until it is reaped."""
        self._child = None
        self._asked.forget()
        report = await asyncio.to_thread(stopping.kill, (self._standing(child),))
        if not report.verified and tree.is_enclosed():
            # What can't be caught one by one: the launcher goes with it, and so do we.
            account.end_everything()
        self._on_gone(child)
        # Who gives up waiting must not take the word of its end away.
        await asyncio.shield(child.ended)

    def _questions(self, tasks: Sequence[int]) -> bytes:
        """What to send, so that it knows of the first of them and of some behind it."""
        if self._asked.at_work is None:
            self._begin_log()
        untold, self._untold = self._untold, b""
        if not (wanted := self._asked.want(tasks)):
            return untold
        question: dict[str, Any] = {"tasks": wanted}
        if each := self._plan.each:
            # What is a task's own crosses with the task; that of the others doesn't.
            question["words"] = [each[task] for task in wanted]
        return untold + frames.encode(Frame(question))

    async def _ask_to_be_ready(self, child: Child) -> Frame | None:
        """Hand over the plan; what it says of it. None when that is late."""
        self._readiness = None
        wanted = Frame({"plan": plan_to_wire(self._plan), "watched": self._on_log is not None})
        await self._send(child, frames.encode(wanted), self._plan.limits.prepare_s)
        while self._readiness is None:
            if not await self._hears_more(child):
                return None
        return self._readiness

    async def _answers_of(self, child: Child, most: int | None) -> list[TaskOutcome]:
        """The next outcomes; none when the first of them is late."""
        while not (outcomes := self._asked.take(most)):
            if not await self._hears_more(child):
                return []
        if not self._asked.early:
            self._early_bytes = 0
        return outcomes

    async def _hears_more(self, child: Child) -> bool:
        """Wait for what it says; False when that is late, the time spent frozen not counted."""
        if child.channel.fileno() < 0:
            raise SandboxGoneError("the sandbox is dead")
        if not self._reads:
            self._reads = True
            self._loop.add_reader(child.channel, self._on_readable, child)
        if self._clock is None:
            self._clock = self._loop.call_later(_LOOK_S, self._look, child)
        self._answer = self._loop.create_future()
        try:
            return await self._answer
        finally:
            self._answer = None

    async def _send(self, child: Child, data: bytes, late_s: float) -> None:
        """Ask, for an answer within this time.

        A sandbox that has ended is heard of by its own end: what it said before comes first.
        """
        self._left_s = late_s
        if not data or child.channel.fileno() < 0:
            return
        with contextlib.suppress(ConnectionError):
            with contextlib.suppress(BlockingIOError):
                # Nearly always all of it goes at once, sooner than the loop could be asked.
                data = data[child.channel.send(data) :]
            if data:
                await self._loop.sock_sendall(child.channel, data)

    def _look(self, child: Child) -> None:
        """One clock for many short tasks: what begins between two looks loses a part of one."""
        answer, self._clock = self._answer, None
        if answer is None or answer.done():
            return
        if not stopping.stands_still(self._standing(child)):
            self._left_s -= _LOOK_S
        if self._left_s <= 0:
            answer.set_result(False)
            return
        self._clock = self._loop.call_later(_LOOK_S, self._look, child)

    def _on_readable(self, child: Child) -> None:
        try:
            data = frames.read(child.channel)
            for frame in self._decoder.feed(data):
                self._hear(frame)
        except BlockingIOError:
            return
        except (OSError, FrameError):
            data = b""
        if not data:
            self._on_gone(child)
        elif self._early_bytes > _EARLY_BYTES_MAX:
            self._reads = False
            self._loop.remove_reader(child.channel)

    def _hear(self, frame: Frame) -> None:
        """Take up what it says.

        Raises:
            FrameError: it is nothing that a runner says: it has been taken over.
        """
        if "log" in frame.header:
            self._hear_log(frame)
            return
        if self._readiness is None:
            self._readiness = frame
        else:
            try:
                outcomes = outcomes_from_wire(frame.header.get("outcomes"), frame.body)
            except ValueError as error:
                raise FrameError("an answer that is none") from error
            last = frame.header.get("last")
            if type(last) is not bool:
                raise FrameError("no word whether it is the last")
            if not self._asked.hear(outcomes):
                return
            self._ends = last
            self._early_bytes += len(frame.body)
            self._begin_log()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(True)

    def _hear_log(self, frame: Frame) -> None:
        """Pass on what a runner tells.

        Raises:
            FrameError: it tells more than it may, or of another task: it has been taken over.
        """
        task = self._asked.at_work
        self._log_bytes += len(frame.body)
        is_much = self._log_bytes > self._loop.time() * BYTES_PER_S
        if task is None or frame.header["log"] != task or is_much:
            raise FrameError("a log without end, or of another task")
        if self._on_log is not None and task is not None:
            self._on_log(task, frame.body)

    def _begin_log(self) -> None:
        """What the next task may tell, all at once and then by and by."""
        self._log_bytes = self._loop.time() * BYTES_PER_S - TOLD_BYTES_MAX

    def _on_gone(self, child: Child) -> None:
        if child.channel.fileno() >= 0:
            self._loop.remove_reader(child.channel)
            child.channel.close()
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(SandboxGoneError("the sandbox died"))
