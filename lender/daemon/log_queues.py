"""Which piece of which task's log goes out next: bounded, in turns, to who listens. Pure.

Every lease has a queue; what is too much for it loses its oldest. The queues take turns, so that
one that is always full takes nothing from the others, and share one token bucket.

Whether anybody listens is told by the server alone, and only by its complaint that nobody does.
So the first piece is a question: it goes out, and the rest waits for the complaint. Where it
comes, the piece goes back into its queue until it is asked again.
"""

import math
from collections import deque
from typing import NamedTuple

from lender.protocol.bounds import LOG_BYTES_MAX, LOG_PIECE_BYTES_MAX
from lender.protocol.task_log import TaskLogPiece

KEPT_BYTES_MAX = 128 << 10
"""Of one lease: more than a sandbox tells at once."""

BURST_BYTES = 256 << 10
BYTES_PER_S = 128 << 10
"""Of all leases together."""

MESSAGE_BYTES = 256
"""What each message counts for beside its content."""

ANSWER_S = 0.25
"""So long after the first piece nobody complaining means that somebody listens."""

ASK_AGAIN_S = 1.0


class Outgoing(NamedTuple):
    """A message that is to be published now."""

    lease: str
    subject: str
    piece: TaskLogPiece


class _Piece(NamedTuple):
    task: int
    offset_bytes: int
    content: bytes

    @property
    def cost_bytes(self) -> int:
        return len(self.content) + MESSAGE_BYTES


class _Audience:
    """Whether somebody listens to a subject: it was asked, and nobody complained by `ready_at`.

    Leases of one job share it.
    """

    def __init__(self) -> None:
        self.asked = False
        self.ready_at = -math.inf


class _Queue:
    """What one lease's tasks have written and nobody was sent."""

    def __init__(self, subject: str, attempt: int, audience: _Audience) -> None:
        self.subject = subject
        self.audience = audience
        self.halted = False
        self._attempt = attempt
        self._pieces: deque[_Piece] = deque()
        self._cost_bytes = 0
        self._task = -1
        self._told_bytes = 0
        self._left_out_bytes = 0
        self._asked: tuple[_Piece, int] | None = None

    @property
    def waits(self) -> bool:
        """Whether there is something that may go out once its audience is ready."""
        return bool(self._pieces) and not self.halted

    def add(self, task: int, content: bytes) -> None:
        if task != self._task:
            self._task, self._told_bytes = task, 0
        for at in range(0, len(content), LOG_PIECE_BYTES_MAX):
            part = content[at : at + LOG_PIECE_BYTES_MAX]
            self._keep(_Piece(task, self._told_bytes, part))
            self._told_bytes += len(part)

    def take(self, now: float) -> TaskLogPiece | None:
        """Return the next piece, None while none may go."""
        audience = self.audience
        if not self.waits or now < audience.ready_at:
            return None
        piece = self._pieces.popleft()
        self._cost_bytes -= piece.cost_bytes
        self._asked = None
        if not audience.asked:
            self._asked = piece, self._left_out_bytes
            audience.asked, audience.ready_at = True, now + ANSWER_S
        left_out_bytes, self._left_out_bytes = self._left_out_bytes, 0
        return TaskLogPiece(
            task=piece.task,
            attempt=self._attempt,
            offset_bytes=piece.offset_bytes,
            content=piece.content,
            left_out_bytes=min(left_out_bytes, LOG_BYTES_MAX),
        )

    def nobody_heard(self, now: float) -> None:
        self.audience.asked, self.audience.ready_at = False, now + ASK_AGAIN_S
        if self._asked is not None:
            piece, left_out_bytes = self._asked
            self._asked = None
            self._left_out_bytes += left_out_bytes
            self._pieces.appendleft(piece)
            self._cost_bytes += piece.cost_bytes

    def _keep(self, piece: _Piece) -> None:
        self._pieces.append(piece)
        self._cost_bytes += piece.cost_bytes
        while self._cost_bytes > KEPT_BYTES_MAX:
            oldest = self._pieces.popleft()
            self._cost_bytes -= oldest.cost_bytes
            self._left_out_bytes += len(oldest.content)


class LogQueues:
    """The logs of all leases of one lender. Times are a monotonic clock's seconds."""

    def __init__(self, now: float) -> None:
        self._queues: dict[str, _Queue] = {}
        self._room_bytes = float(BURST_BYTES)
        self._filled_at = now

    def open(self, lease: str, subject: str, attempt: int) -> None:
        """Begin the log of a lease, which goes out on `subject`."""
        same = (one.audience for one in self._queues.values() if one.subject == subject)
        self._queues[lease] = _Queue(subject, attempt, next(same, None) or _Audience())

    def close(self, lease: str) -> None:
        """Forget a lease and what of its log has not gone out."""
        self._queues.pop(lease, None)

    def add(self, lease: str, task: int, content: bytes) -> bool:
        """Take what a task wrote; tell whether its lease had nothing waiting before."""
        queue = self._queues.get(lease)
        if queue is None:
            return False
        waited = queue.waits
        queue.add(task, content)
        return not waited

    def halt(self, lease: str) -> None:
        """Let nothing of a lease out until `go_on`."""
        if lease in self._queues:
            self._queues[lease].halted = True

    def go_on(self, lease: str) -> None:
        """Let it out again."""
        if lease in self._queues:
            self._queues[lease].halted = False

    def nobody_heard(self, now: float, lease: str) -> None:
        """The server complained: nobody listens to the log of this lease's job."""
        if lease in self._queues:
            self._queues[lease].nobody_heard(now)

    def next(self, now: float) -> Outgoing | None:
        """Return what is to be published now, None when nothing is."""
        self._fill(now)
        if self._room_bytes <= 0:
            return None
        for lease, queue in list(self._queues.items()):
            piece = queue.take(now)
            if piece is not None:
                self._queues[lease] = self._queues.pop(lease)  # its next turn comes last
                self._room_bytes -= len(piece.content) + MESSAGE_BYTES
                return Outgoing(lease, queue.subject, piece)
        return None

    def wait_s(self, now: float) -> float | None:
        """Return how long nothing will go out; None: until more is added, or goes on."""
        ready = [queue.audience.ready_at for queue in self._queues.values() if queue.waits]
        if not ready:
            return None
        self._fill(now)
        return max(0.0, min(ready) - now, -self._room_bytes / BYTES_PER_S)

    def _fill(self, now: float) -> None:
        room_bytes = self._room_bytes + (now - self._filled_at) * BYTES_PER_S
        self._room_bytes, self._filled_at = min(room_bytes, BURST_BYTES), now
