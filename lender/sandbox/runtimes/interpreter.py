"""A python job's interpreter from outside: asked, measured, cleaned up behind, ended.

A call of the job's function is a `StartedTask`, watched like any command; only that what it started
lives on behind it, unless it hit a limit, was asked to end, broke the rules or ended by itself.
"""

import contextlib
import os
import time
from collections.abc import Callable

from lender.sandbox.files import checkpoint, scratch
from lender.sandbox.meters.usage import Usage
from lender.sandbox.plan import JOB_VARIABLES, LimitName, SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes import python_inside
from lender.sandbox.runtimes.command import End, StartedTask
from lender.sandbox.runtimes.python_channel import (
    Answer,
    BrokenAnswerError,
    Channel,
    ChannelClosedError,
)
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
        self._is_settled = False
        self._unnamed_bytes, self._looked_at = 0, 0.0

    def loading(self) -> "Call":
        """Have it come up and load the program."""
        return Call(self)

    def call(self, task: int) -> "Call":
        """Have it run a task, in a working folder that holds the inputs and nothing else.

        Raises:
            OSError: the folder can't be cleaned, or the interpreter is gone.
            PrepareFailedError: an input can't be read any more.
        """
        self._restore()
        checkpoint.place(self.plan, task)
        self._is_settled = False
        self.channel.ask(task)
        return Call(self)

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
        env = plan.env_of(0)
        self.channel.ask_to_load({name: env[name] for name in JOB_VARIABLES})
        return Call(self)

    def listen(self) -> Answer | None:
        """Its answer, if that is there.

        Raises:
            BrokenAnswerError: it is none.
            ChannelClosedError: there will be none.
        """
        answer = self.channel.listen()
        if self._residents is None and self.channel.pid is not None:
            try:
                self._residents = self._find(self.channel.pid)
            except OSError as error:
                raise ChannelClosedError from error
        return answer

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
            with contextlib.suppress(BrokenAnswerError, ChannelClosedError):
                self.channel.listen()
        os.close(self.sandbox.stdout)
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
    """One request to an interpreter, as a `StartedTask`; see there for what is not said here.

    Attributes:
        answer: what the interpreter said of it.
        limit: the limit that it failed at by its own account.
    """

    def __init__(self, interpreter: Interpreter) -> None:
        sandbox = interpreter.sandbox
        self.stdout, self.stderr = os.dup(sandbox.stdout), os.dup(sandbox.stderr)
        self.wakers = (interpreter.channel.fileno(), *sandbox.wakers)
        self.answer: Answer | None = None
        self.limit: LimitName | None = None
        self._interpreter = interpreter
        self._broken = self._disturbed = False
        self._started_at = time.monotonic()

    def on_wake(self, fd: int) -> bool:
        """See `StartedTask`."""
        if fd != self.wakers[0]:
            return self._interpreter.sandbox.on_wake(fd)
        try:
            self.answer = self._interpreter.listen()
        except BrokenAnswerError:
            self._broken = True
        except ChannelClosedError:
            return False  # its process ends, or is ended at a limit
        return True

    def tick(self) -> None:
        """See `StartedTask`."""
        self._interpreter.sandbox.tick()

    def has_ended(self) -> bool:
        """See `StartedTask`."""
        return self.answer is not None or self._broken or self._interpreter.sandbox.has_ended()

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
        interpreter, answer = self._interpreter, None if self._broken else self.answer
        if answer is not None and answer.kind != python_inside.DONE:
            crowded = interpreter.is_crowded()
            self.limit = "processes" if crowded else _LIMITS.get(answer.kind)
        end = None
        if answer is not None and not self._disturbed:
            end = interpreter.spent(time.monotonic() - self._started_at)
        if end is None:
            end = interpreter.end()
        if answer is None:
            # One that ended by itself has not succeeded, whatever it said last.
            return end._replace(exit_code=end.exit_code or None)
        return end._replace(exit_code=0 if answer.kind == python_inside.DONE else None)

    def complete(self, outcome: TaskOutcome) -> TaskOutcome:
        """What the watcher saw, with what the interpreter said."""
        if outcome.limit not in {None, "memory"} or outcome.terminated or self.answer is None:
            return outcome
        limit = self.limit
        if self.answer.kind == python_inside.DONE and self.answer.content:
            outcome = outcome._replace(value=self.answer.content)
            if len(outcome.value) > self._interpreter.plan.limits.output_bytes:
                limit, outcome = "output", outcome._replace(value=b"", state="failed")
        if limit is None:
            return outcome
        # Of a crowd the watcher has but an estimate of its memory.
        return outcome._replace(limit=limit, error=f"hit its {limit} limit")

    def fault(self, exit_code: int | None, said: str) -> str | None:
        """See `StartedTask`."""
        if self._broken:
            return "its interpreter gave an answer that is none"
        if self.answer is not None:
            return None if self.answer.kind == python_inside.DONE else self.answer.text
        if not self._interpreter.greeted:
            return self._interpreter.sandbox.fault(exit_code, said)
        return "ended its interpreter" + (f" (exit code {exit_code})" if exit_code else "")
