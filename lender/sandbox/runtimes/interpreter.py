"""A python job's interpreter from outside: asked, measured, cleaned up behind, ended.

A call of the job's function is a `StartedTask`, watched like any command; only that what it started
lives on behind it, unless it hit a limit, was asked to end, broke the rules or ended by itself.

A burst is several calls that are asked for at once. For BURST_S nobody looks. Those that are over
by then left nothing to be seen, by the interpreter's own account; the one that is not, or that
ended it, is the call. To who looks from outside a burst is what a single task is else: measured,
bounded, cleaned up behind.
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

from lender.sandbox.files import checkpoint, scratch
from lender.sandbox.meters.usage import Usage
from lender.sandbox.plan import JOB_VARIABLES, LimitName, SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes import python_inside
from lender.sandbox.runtimes.command import End, StartedTask
from lender.sandbox.runtimes.python_answers import Answer
from lender.sandbox.runtimes.python_channel import Channel
from lender.sandbox.runtimes.residents import Residents

_LIMITS: dict[int, LimitName] = {
    python_inside.NO_MEMORY: "memory",
    python_inside.NO_SPACE: "disk",
}
_LOOK_S = 0.1


class Interpreter:
    """One interpreter, from its start to its end.

    Args:
        sandbox: the walls that it was started in.
        channel: to its standard input.
        plan: whose tasks it runs.
        find: finds out who is inside, by the interpreter's process id, before anything of the
            job's has run; may raise OSError.
        restore: brings the working folder to what a task may expect: the inputs and nothing else.

    Attributes:
        alive: it can be called.
        plan: see above; from `loading_another` on the other job's.
    """

    def __init__(
        self,
        sandbox: StartedTask,
        channel: Channel,
        plan: SandboxPlan,
        find: Callable[[int], Residents],
        restore: Callable[[], object],
    ) -> None:
        self.sandbox = sandbox
        self.channel = channel
        self.alive = True
        self.plan = plan
        self._find = find
        self._restore = restore
        self._residents: Residents | None = None
        self._cpu_told_s, self._attempts_told = 0.0, 0
        self._is_settled = self._is_lost = False
        self._unnamed_bytes, self._looked_at = 0, 0.0

    def loading(self) -> "Call":
        """Have it come up and load the program."""
        return Call(self, (0,), time.monotonic())

    def call(self, tasks: Sequence[int]) -> "Call":
        """Have it run tasks, in a working folder that holds the inputs and nothing else.

        Args:
            tasks: one, or a burst. Only the call's own has begun and may go on by the time that
                this returns; what is behind it has not, nor will.

        Raises:
            OSError: the folder can't be cleaned, or the interpreter is gone.
            PrepareFailedError: an input can't be read any more.
        """
        self._restore()
        checkpoint.place(self.plan, tasks[0])
        self._is_settled = False
        asked_at = time.monotonic()
        self.channel.ask(tasks, asked_at)
        call = Call(self, tasks, asked_at)
        if len(tasks) > 1:
            until = asked_at + python_inside.BURST_S
            while (left_s := until - time.monotonic()) > 0:
                if self.channel.wait(left_s):
                    break
            call.find_own()
        return call

    def loading_another(self, plan: SandboxPlan) -> "Call":
        """Have it load the program of another job; what the one before left in memory stays.

        Raises:
            OSError: the program can't be put where it is read, or the interpreter is gone.
            PrepareFailedError: an input can't be read any more, or the program is larger than all
                that may lie in the working folder.
        """
        self._restore()
        assert plan.program is not None, "a python job has one"
        if plan.program.stat().st_size > plan.limits.scratch_bytes:
            raise PrepareFailedError("the program is too large to be loaded into this interpreter")
        scratch.copy(plan.program, plan.scratch / python_inside.NEXT)
        self.plan = plan
        self._is_settled = False
        env, asked_at = plan.env_of(0), time.monotonic()
        self.channel.ask_to_load({name: env[name] for name in JOB_VARIABLES}, asked_at)
        return Call(self, (0,), asked_at)

    def listen(self) -> list[Answer]:
        """Its answers, as far as they are there."""
        answers = self.channel.listen()
        if self._residents is None and self.channel.pid is not None and not self._is_lost:
            try:
                self._residents = self._find(self.channel.pid)
            except OSError:
                self._is_lost = True
        return answers

    @property
    def is_lost(self) -> bool:
        """Nothing will be heard of it any more: its process ends, or is ended at a limit."""
        return self._is_lost or self.channel.is_closed

    @property
    def greeted(self) -> bool:
        """It came up: what goes wrong from here on is the program's doing.

        One that has ended since was not found inside any more.
        """
        return self.channel.pid is not None

    def unnamed_bytes(self, device: int, file_bytes_max: int) -> int:
        """See `StartedTask`. A zero may be 0.1 s old: a look takes longer than a short task."""
        now = time.monotonic()
        if self._unnamed_bytes or now - self._looked_at >= _LOOK_S:
            self._looked_at = now
            self._unnamed_bytes = self.sandbox.unnamed_bytes(device, file_bytes_max)
        return self._unnamed_bytes

    def is_crowded(self) -> bool:
        """Whether as many processes and threads are in there as may be."""
        try:
            count = 0 if self._residents is None else self._residents.count()
        except OSError:
            return False
        return count >= self.plan.limits.processes

    def spent_by_others(self, share: float) -> End:
        """What of that was used since the last task goes to those of a burst that are over."""
        used = None
        if self._residents is not None:
            # It may be gone: then all goes to the task that it ended with.
            with contextlib.suppress(OSError):
                used = self._residents.used(0.0)
        if used is None:
            return End(0, 0.0, 0, 0)
        cpu_s = max(0.0, used.cpu_s - self._cpu_told_s) * share
        self._cpu_told_s += cpu_s
        return End(0, cpu_s, used.memory_bytes, 0)

    def spent(self, duration_s: float) -> End | None:
        """What was used since the last task; None where the interpreter has to be ended.

        Where files are to be taken out, nothing of the task writes to them any more.
        """
        is_read = self.plan.outputs or self.plan.checkpoint
        if self._residents is None or (is_read and not self.settle()):
            return None
        try:
            used = self._residents.used(duration_s)
        except OSError:
            return None
        if used.memory_bytes > self.plan.limits.memory_bytes:
            # What is kept from task to task counts against each of them.
            return None
        return self._since(End(0, *used))

    def settle(self) -> bool:
        """End all that a task left; False where the next one would not find what the first did."""
        residents = self._residents
        if self._is_settled or residents is None:
            return self._is_settled
        try:
            if residents.sweep() and self.channel.is_silent() and residents.has_inputs():
                residents.clear_temporary()
                self._is_settled = True
        except OSError:
            pass  # what can't be cleaned is thrown away
        return self._is_settled

    def end(self) -> End:
        """Kill all of it; what was used since the last task."""
        self.alive = False
        if not self.sandbox.has_ended():
            self.sandbox.kill()
        end = self.sandbox.reap()
        if not self.greeted:
            # Its end may have been noticed ahead of what it said.
            self.channel.listen()
        os.close(self.channel.fds[1])
        os.close(self.sandbox.stderr)
        self.channel.close()
        if self._residents is not None:
            self._residents.close()
        return self._since(end)

    def _since(self, end: End) -> End:
        """What of an account of everything was not told yet."""
        cpu_s, self._cpu_told_s = end.cpu_s - self._cpu_told_s, end.cpu_s
        attempts = end.network_attempts_blocked
        if attempts is not None:
            attempts, self._attempts_told = attempts - self._attempts_told, attempts
        return End(end.exit_code, max(0.0, cpu_s), end.memory_peak_bytes, attempts)


class Call:
    """A task of an interpreter, as a `StartedTask`; see there for what is not said here.

    Args:
        interpreter: who runs it.
        tasks: what it was asked for: the task, or a burst.
        asked_at: when.

    Attributes:
        task: its index.
        limit: the limit that it failed at by its own account.
    """

    stdout = None  # its answers come another way

    def __init__(self, interpreter: Interpreter, tasks: Sequence[int], asked_at: float) -> None:
        sandbox = interpreter.sandbox
        self.stderr = os.dup(sandbox.stderr)
        self._ways = interpreter.channel.fds
        self.wakers = (*self._ways, *sandbox.wakers)
        self.task = tasks[0]
        self.limit: LimitName | None = None
        self._interpreter = interpreter
        self._tasks, self._answers = tasks, list[Answer]()
        self._own = 0
        self._broken = self._large = self._disturbed = False
        self._asked_at = asked_at
        self._started_at = asked_at

    @property
    def answer(self) -> Answer | None:
        """What the interpreter said of it."""
        known = len(self._answers) > self._own and not self._broken
        return self._answers[self._own] if known else None

    @property
    def is_vacant(self) -> bool:
        """Of its burst it would have been the next, and was not begun any more."""
        is_next = 0 < self._own == len(self._answers)
        return is_next and self._interpreter.channel.is_over and not (self._broken or self._large)

    def find_own(self) -> None:
        """Of a burst that is over, or that has had its time: the task that is to be watched."""
        self._listen()
        answers, channel = self._answers, self._interpreter.channel
        is_over = channel.is_over and not channel.fault
        is_last = bool(answers) and (is_over or answers[-1].kind != python_inside.CLEAN)
        # There may be more of them than anybody has asked for.
        self._own = min(len(answers) - is_last, len(self._tasks) - 1)
        self.task = self._tasks[self._own]
        self._check()

    def others(self) -> list[TaskOutcome]:
        """How those of a burst ended that are ahead of it."""
        answers = self._answers[: self._own]
        if not answers:
            return []
        # By its own account, within what we saw ourselves.
        ends, now = [self._asked_at], time.monotonic()
        for answer in answers:
            ends.append(min(now, max(ends[-1], self._asked_at + answer.after_s)))
        self._started_at = ends[-1]
        until = now
        if self.answer is not None:
            until = min(now, max(ends[-1], self._asked_at + self.answer.after_s))
        took_s, all_s = ends[-1] - ends[0], max(1e-9, until - ends[0])
        used = self._interpreter.spent_by_others(took_s / all_s)
        cpu_share = used.cpu_s / max(1e-9, took_s)
        return [
            TaskOutcome(
                task=task,
                state="succeeded",
                exit_code=0,
                value=answer.content,
                cpu_s=cpu_share * (end - start),
                memory_peak_bytes=used.memory_peak_bytes,
                network_attempts_blocked=used.network_attempts_blocked,
                started_at=start,
                duration_s=end - start,
            )
            for task, answer, (start, end) in zip(
                self._tasks, answers, pairwise(ends), strict=False
            )
        ]

    def on_wake(self, fd: int) -> bool:
        """See `StartedTask`."""
        if fd not in self._ways:
            return self._interpreter.sandbox.on_wake(fd)
        self._listen()
        self._check()
        return not self._interpreter.is_lost

    def tick(self) -> None:
        """See `StartedTask`."""
        self._interpreter.sandbox.tick()

    def has_ended(self) -> bool:
        """See `StartedTask`."""
        over = self._interpreter.channel.is_over or self._broken or self._large
        return over or self._interpreter.sandbox.has_ended()

    def usage(self) -> Usage:
        """See `StartedTask`."""
        return self._interpreter.sandbox.usage()

    def memory_bytes(self) -> int:
        """See `StartedTask`."""
        return self._interpreter.sandbox.memory_bytes()

    def unnamed_bytes(self, device: int, file_bytes_max: int) -> int:
        """See `StartedTask`."""
        return self._interpreter.unnamed_bytes(device, file_bytes_max)

    def terminate(self) -> bool:
        """See `StartedTask`. An interpreter that was asked to end is not called again."""
        self._disturbed = True
        return self._interpreter.sandbox.terminate()

    def kill(self) -> None:
        """See `StartedTask`: `reap` kills whatever can't be called again."""
        self._disturbed = True

    def reap(self) -> End:
        """See `StartedTask`."""
        interpreter, answer = self._interpreter, self.answer
        if answer is not None and not answer.is_value:
            crowded = interpreter.is_crowded()
            self.limit = "processes" if crowded else _LIMITS.get(answer.kind)
        end = None
        if (answer is not None or self.is_vacant) and not self._disturbed:
            end = interpreter.spent(time.monotonic() - self._started_at)
        if end is None:
            end = interpreter.end()
        if answer is None:
            # One that ended by itself has not succeeded, whatever it said last.
            return end._replace(exit_code=end.exit_code or None)
        return end._replace(exit_code=0 if answer.is_value else None)

    def complete(self, outcome: TaskOutcome) -> TaskOutcome:
        """What the watcher saw, with what the interpreter said."""
        took_s = max(0.0, outcome.duration_s + outcome.started_at - self._started_at)
        outcome = outcome._replace(
            task=self.task,
            started_at=self._started_at,
            duration_s=took_s,
            exit_code=None if self._large else outcome.exit_code,
        )
        if outcome.limit not in {None, "memory"} or outcome.terminated:
            return outcome
        limit = "output" if self._large else self.limit
        if self.answer is not None and self.answer.is_value:
            outcome = outcome._replace(value=self.answer.content)
        if limit is None:
            return outcome
        # Of a crowd the watcher has but an estimate of its memory.
        return outcome._replace(state="failed", limit=limit, error=f"hit its {limit} limit")

    def fault(self, exit_code: int | None, said: str) -> str | None:
        """See `StartedTask`."""
        if self._broken:
            return "its interpreter gave an answer that is none"
        if self.answer is not None:
            return None if self.answer.is_value else self.answer.text
        if not self._interpreter.greeted:
            return self._interpreter.sandbox.fault(exit_code, said)
        return "ended its interpreter" + (f" (exit code {exit_code})" if exit_code else "")

    def _listen(self) -> None:
        self._answers += self._interpreter.listen()

    def _check(self) -> None:
        """Whether what was said may be, now that it is known which task is our own."""
        channel, answers = self._interpreter.channel, self._answers
        unasked = len(answers) > self._own + 1
        unanswered = channel.is_over and not answers and not channel.fault
        went_on = all(one.kind == python_inside.CLEAN for one in answers[: self._own])
        self._broken = channel.fault == "broken" or unasked or unanswered or not went_on
        self._large = channel.fault == "large" and len(answers) == self._own
