"""The daemon's side of what is said with one sandboxed process: tasks asked for, outcomes heard.

It may have been taken over by its guest: what it says is checked, and bounded in time and size.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from lender.sandbox import frames
from lender.sandbox.asked import Asked
from lender.sandbox.frames import Frame, FrameError
from lender.sandbox.launcher import Child
from lender.sandbox.meters.task_log import BYTES_PER_S, TOLD_BYTES_MAX
from lender.sandbox.plan import TaskOutcome, outcomes_from_wire
from lender.sandbox.port import AHEAD_MAX, KNOWN_MAX, SandboxGoneError

_LOOK_S = 1.0
# Values that wait for the daemon are its memory: with more of them nothing is read.
_EARLY_BYTES_MAX = 16 << 20
_ANSWER_HEADER_BYTES_MAX = 1 << 18


class Conversation:
    """Over the channel of one process, until that is gone.

    Args:
        child: whose channel it is.
        answer_bytes_max: what an outcome carries at most.
        stands_still: whether it is frozen now: that time does not count.
        on_log: told the task and what it wrote to standard error, while it runs.

    Attributes:
        child: that process.
        asked: what has no answer yet, or one that nobody has taken.
        early_bytes: of those answers.
        ends: it has said that it will say no more.
    """

    def __init__(
        self,
        child: Child,
        answer_bytes_max: int,
        stands_still: Callable[[], bool],
        on_log: Callable[[int, bytes], None] | None,
    ) -> None:
        self.child = child
        self.asked = Asked(AHEAD_MAX, KNOWN_MAX)
        self.early_bytes = 0
        self.ends = False
        self._stands_still = stands_still
        self._on_log = on_log
        self._log_bytes = 0.0
        self._loop = asyncio.get_running_loop()
        body_bytes_max = max(answer_bytes_max, TOLD_BYTES_MAX)
        self._decoder = frames.Decoder(body_bytes_max, _ANSWER_HEADER_BYTES_MAX)
        self._readiness: Frame | None = None
        self._answer: asyncio.Future[bool] | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._left_s = 0.0
        self._reads = True
        self._loop.add_reader(child.channel, self._on_readable)

    async def be_ready(self, plan: dict[str, Any], late_s: float) -> dict[str, Any] | None:
        """Hand over a plan; what it says of it. None when that is late.

        Raises:
            SandboxGoneError: it is dead.
        """
        self._readiness = None
        wanted = Frame({"plan": plan, "watched": self._on_log is not None})
        await self._send(frames.encode(wanted), late_s)
        while self._readiness is None:
            if not await self._hears_more():
                return None
        return self._readiness.header

    async def outcomes_of(
        self,
        tasks: Sequence[int],
        untold: bytes,
        each: Sequence[Sequence[str]],
        late_s: float,
        most: int | None,
    ) -> list[TaskOutcome]:
        """Ask for tasks; what has come of the first of them and of those right behind it.

        Args:
            tasks: the one that is waited for, and those behind it.
            untold: what is to be said first.
            each: of every task of the job, words of its own; or nothing.
            late_s: how long the first may take.
            most: so many outcomes at most.

        Returns:
            None of them when the first is late.

        Raises:
            SandboxGoneError: it is dead.
        """
        await self._send(untold + self._questions(tasks, each), late_s)
        while not (outcomes := self.asked.take(most)):
            if not await self._hears_more():
                return []
        if not self.asked.early:
            self.early_bytes = 0
        return outcomes

    def close(self) -> None:
        """Nothing more is heard; who waits learns that it died."""
        if self.child.channel.fileno() >= 0:
            self._loop.remove_reader(self.child.channel)
            self.child.channel.close()
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(SandboxGoneError("the sandbox died"))

    def _questions(self, tasks: Sequence[int], each: Sequence[Sequence[str]]) -> bytes:
        """What to send, so that it knows of the first of them and of some behind it."""
        if self.asked.at_work is None:
            self._begin_log()
        if not (wanted := self.asked.want(tasks)):
            return b""
        question: dict[str, Any] = {"tasks": wanted}
        if each:
            # What is a task's own crosses with the task; that of the others doesn't.
            question["words"] = [each[task] for task in wanted]
        return frames.encode(Frame(question))

    async def _hears_more(self) -> bool:
        """Wait for what it says; False when that is late, the time spent frozen not counted."""
        if self.child.channel.fileno() < 0:
            raise SandboxGoneError("the sandbox is dead")
        if not self._reads:
            self._reads = True
            self._loop.add_reader(self.child.channel, self._on_readable)
        if self._clock is None:
            self._clock = self._loop.call_later(_LOOK_S, self._look)
        self._answer = self._loop.create_future()
        try:
            return await self._answer
        finally:
            self._answer = None

    async def _send(self, data: bytes, late_s: float) -> None:
        """Ask, for an answer within this time.

        A sandbox that has ended is heard of by its own end: what it said before comes first.
        """
        self._left_s = late_s
        if not data or self.child.channel.fileno() < 0:
            return
        with contextlib.suppress(ConnectionError):
            with contextlib.suppress(BlockingIOError):
                # Nearly always all of it goes at once, sooner than the loop could be asked.
                data = data[self.child.channel.send(data) :]
            if data:
                await self._loop.sock_sendall(self.child.channel, data)

    def _look(self) -> None:
        """One clock for many short tasks: what begins between two looks loses a part of one."""
        answer, self._clock = self._answer, None
        if answer is None or answer.done():
            return
        if not self._stands_still():
            self._left_s -= _LOOK_S
        if self._left_s <= 0:
            answer.set_result(False)
            return
        self._clock = self._loop.call_later(_LOOK_S, self._look)

    def _on_readable(self) -> None:
        try:
            data = frames.read(self.child.channel)
            for frame in self._decoder.feed(data):
                self._hear(frame)
        except BlockingIOError:
            return
        except (OSError, FrameError):
            data = b""
        if not data:
            self.close()
        elif self.early_bytes > _EARLY_BYTES_MAX:
            self._reads = False
            self._loop.remove_reader(self.child.channel)

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
            if not self.asked.hear(outcomes):
                return
            self.ends = last
            self.early_bytes += len(frame.body)
            self._begin_log()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(True)

    def _hear_log(self, frame: Frame) -> None:
        """Pass on what a runner tells.

        Raises:
            FrameError: it tells more than it may, or of another task: it has been taken over.
        """
        task = self.asked.at_work
        self._log_bytes += len(frame.body)
        is_much = self._log_bytes > self._loop.time() * BYTES_PER_S
        if task is None or frame.header["log"] != task or is_much:
            raise FrameError("a log without end, or of another task")
        if self._on_log is not None:
            self._on_log(task, frame.body)

    def _begin_log(self) -> None:
        """What the next task may tell, all at once and then by and by."""
        self._log_bytes = self._loop.time() * BYTES_PER_S - TOLD_BYTES_MAX
