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
from lender.sandbox.conversation import Conversation
from lender.sandbox.files import scratch
from lender.sandbox.frames import Frame
from lender.sandbox.launcher import Child, Launcher, LauncherGoneError, WallsWanted
from lender.sandbox.plan import (
    STDERR_TAIL_BYTES,
    LimitName,
    SandboxPlan,
    TaskOutcome,
    plan_to_wire,
)
from lender.sandbox.port import PrepareFailedError, RecordRoots, RefusedError, SandboxGoneError
from lender.sandbox.processes import account, cgroup, controllers, stopping, tree
from lender.sandbox.processes.stopping import Standing
from lender.sandbox.processes.subtree import Subtree
from lender.sandbox.processes.tree import Root

# The runner ends its own tasks; one that is this late has been taken over by its guest.
_LATE_S = 5.0
# A first outcome becomes a result, which goes out first.
_AHEAD_S = 0.001


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
        places: where working folders are made: there a process sandbox has the walls of the next
            one stand ahead. None: they don't.

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
        places: Path | None = None,
    ) -> None:
        self._plan = plan
        self._launcher = launcher
        self._record = record
        self._abort_if_exists = abort_if_exists
        self._cgroups = cgroups
        self.cgroup = None if cgroups is None else cgroups.leaf(plan.lease)
        self._loop = asyncio.get_running_loop()
        self._spawning: asyncio.Future[Child] | None = None
        self._talk: Conversation | None = None
        self._on_log = on_log
        self._places = places
        self._told_cpu_s = 0.0
        self._untold = b""
        self._asks_ahead = False
        self._closed = False

    @property
    def root_pids(self) -> tuple[Root, ...]:
        """See `Sandbox.root_pids`."""
        return () if self._talk is None else (self._talk.child.root,)

    async def prepare(self) -> None:
        """See `Sandbox.prepare`."""
        self._check_open()
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
            child = await asyncio.shield(self._spawning)
            self._spawning = None
            talk = self._talk = self._begin_talk(child)
            self._check_open()
            self._told_cpu_s = 0.0
            self._asks_ahead = self._launcher.looks_ahead
            await self._record((child.root,))
            self._check_open()
            await self._launcher.go(child, self._abort_if_exists)
        except LauncherGoneError as error:
            raise SandboxGoneError(str(error)) from error
        except RefusedError:
            await self._end(talk)
            raise
        prepare_s = self._plan.limits.prepare_s
        try:
            told = await talk.be_ready(plan_to_wire(self._plan), prepare_s)
        except SandboxGoneError as error:
            if not self._ran_out_of_memory():
                raise
            await self._end(talk)
            reason = "hit its memory limit while it was prepared"
            raise PrepareFailedError(reason, invalid=True, field="limits.memory_bytes") from error
        if told is None:
            await self._end(talk)
            raise PrepareFailedError(f"not prepared within {prepare_s:g} s")
        if "unprepared" in told:
            raise await self._told_unprepared(talk, told)

    def _begin_talk(self, child: Child) -> Conversation:
        answer_bytes_max = self._plan.limits.output_bytes + STDERR_TAIL_BYTES

        def stands_still() -> bool:
            return stopping.stands_still(self._standing(child))

        return Conversation(child, answer_bytes_max, stands_still, self._on_log)

    async def _told_unprepared(self, talk: Conversation, told: dict[str, Any]) -> Exception:
        """Why it is not: in its own words, unless whoever took it over says something else."""
        reason, invalid, field = (told.get(name) for name in ("unprepared", "invalid", "field"))
        if isinstance(reason, str) and isinstance(invalid, bool) and isinstance(field, str):
            return PrepareFailedError(reason, invalid=invalid, field=field)
        await self._end(talk)
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
        talk = await self._serving()
        # Who is asked to end at its time limit has its grace on top.
        late_s = self._plan.limits.time_s + self._plan.grace_s + _LATE_S
        started_at = self._loop.time()
        hit: LimitName = "time"
        untold, self._untold = self._untold, b""
        try:
            outcomes = await talk.outcomes_of(tasks, untold, self._plan.each, late_s, most)
        except SandboxGoneError:
            if not self._ran_out_of_memory():
                raise
            outcomes, hit = [], "memory"
        if not outcomes:
            if len(talk.asked) > 1:
                return await self._run_alone(talk, tasks[0])
            return [await self._cut_off(talk, tasks[0], started_at, hit)]
        if self._asks_ahead:
            self._asks_ahead = False
            self._loop.call_later(_AHEAD_S, self._look_ahead)
        if [one.task for one in outcomes[: len(tasks)]] != list(tasks[: len(outcomes)]):
            await self._end(talk)
            raise SandboxGoneError("the sandbox gave an answer that is none")
        return await self._judged(talk, outcomes)

    async def _judged(
        self, talk: Conversation, outcomes: Sequence[TaskOutcome]
    ) -> Sequence[TaskOutcome]:
        """The same, where none of them failed since the kernel keeps all of it to a limit."""
        last = talk.ends and not talk.asked.early
        for place, one in enumerate(outcomes):
            self._told_cpu_s += one.cpu_s
            if one.state == "succeeded" or one.limit is not None or one.terminated:
                continue
            if (limit := self._limit_hit()) is None:
                continue
            if place > 0:
                await self._end(talk)
                return outcomes[:place]  # this one is then the first
            if len(outcomes) > 1 or len(talk.asked) > 0:
                return await self._run_alone(talk, one.task)
            last = True  # the next one's leaf has hit none yet
            outcomes = [one._replace(limit=limit, error=f"hit its {limit} limit")]
        if last:
            await self._end(talk)
        return outcomes

    def _look_ahead(self) -> None:
        """Have the next process made: that takes nothing from this one's start any more."""
        plan, walls = self._plan, None
        if plan.runtime == "process" and self._places is not None:
            walls = WallsWanted(self._places, plan.limits.memory_bytes)
        self._launcher.look_ahead(None if self._cgroups is None else self._cgroups.ahead(), walls)

    async def _run_alone(self, talk: Conversation, task: int) -> Sequence[TaskOutcome]:
        """All of it ended at a limit, and it may have been one of the tasks behind that hit it."""
        await self._end(talk)
        return await self._outcomes_of((task,))

    async def _serving(self) -> Conversation:
        """Who runs the next task: another process, where the last one could only end with its."""
        self._check_open()
        if self._talk is None:
            try:
                await self.prepare()
            except PrepareFailedError as error:
                raise SandboxGoneError(f"not prepared again: {error}") from error
        if self._talk is None:
            raise SandboxGoneError("closed")
        return self._talk

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
        if (talk := self._talk) is not None:
            told = None
            with contextlib.suppress(SandboxGoneError):
                told = await talk.be_ready(plan_to_wire(self._plan), self._plan.limits.prepare_s)
            if told == {"prepared": True}:
                return
            self._check_open()
            await self._end(talk)
        # What is in memory may be why: a new one tells whether the program itself is at fault.
        await self.prepare()

    async def close(self) -> None:
        """See `Sandbox.close`."""
        self._closed = True
        if (talk := self._talk or await self._abandoned()) is not None:
            await self._end(talk)
        if self.cgroup is not None:
            cgroup.remove(self.cgroup)
        with contextlib.suppress(FileNotFoundError):  # `lender revoke` was here first
            await asyncio.to_thread(scratch.wipe, self._plan.scratch)

    async def _abandoned(self) -> Conversation | None:
        """The child of a `prepare` that was cancelled before it came."""
        spawning, self._spawning = self._spawning, None
        if spawning is not None:
            with contextlib.suppress(PrepareFailedError, LauncherGoneError):
                return self._begin_talk(await spawning)
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
        self, talk: Conversation, task: int, started_at: float, limit: LimitName
    ) -> TaskOutcome:
        """End it all; how a task ended that nothing inside of the sandbox can tell about."""
        used_s, peak_bytes = 0.0, 0
        how = " and did not answer" if limit == "time" else ""
        if self.cgroup is not None:
            used_s = max(0.0, cgroup.cpu_s(self.cgroup) - self._told_cpu_s)
            peak_bytes = controllers.memory_peak_bytes(self.cgroup)
        await self._end(talk)
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

    async def _end(self, talk: Conversation) -> None:
        """Kill the process and all below it, wait until it is reaped."""
        self._talk = None
        talk.asked.forget()
        report = await asyncio.to_thread(stopping.kill, (self._standing(talk.child),))
        if not report.verified and tree.is_enclosed():
            # What can't be caught one by one: the launcher goes with it, and so do we.
            account.end_everything()
        talk.close()
        # Who gives up waiting must not take the word of its end away.
        await asyncio.shield(talk.child.ended)
