"""What a job's tasks wrote, put together from what was published and from their results. Pure.

Published pieces come while a task runs and may be lost; its result holds the end of its log for
certain. What of that end was not seen before is the last piece. A task may run on two machines at a
time, the second a later attempt: as long as the one that was heard first goes on, it is followed.
"""

from dataclasses import dataclass

from lender.client.collector import TaskRecord
from lender.protocol.bounds import STDERR_TAIL_BYTES_MAX
from lender.protocol.task_log import TaskLogPiece

QUIET_S = 3.0
"""An attempt that has said nothing for so long may be over, where a later one speaks."""

_HELD_BYTES_MAX = 1 << 20
_PROOF_BYTES = 32
_TAILS_MAX = 4096
"""Tasks whose log's end is kept: a lender may write for all that the job has."""


@dataclass(frozen=True, slots=True)
class LogPiece:
    """What a task wrote to standard error, a function also to standard output.

    Bytes of a stranger's, which steer a terminal that they are printed on: escape them.

    Attributes:
        task: its index.
        attempt: a higher one begins anew, on whichever machine.
        lender: who ran it, as its server's permissions let it say.
        content: what it wrote.
        missed_bytes: at least so much is missing before it; None: nobody knows how much.
        last: the task has ended. Nothing more comes of it.
    """

    task: int
    attempt: int
    lender: str
    content: bytes
    missed_bytes: int | None = 0
    last: bool = False


class _Seen:
    """Up to where one attempt was seen, and of whom: copies of a task are one attempt each."""

    __slots__ = ("attempt", "bytes", "heard_at", "lender")

    def __init__(self, attempt: int, lender: str) -> None:
        self.attempt = attempt
        self.lender = lender
        self.bytes = 0
        self.heard_at = 0.0

    def goes_on(self, now: float) -> bool:
        """Whether it was heard just now."""
        return now - self.heard_at < QUIET_S


class LogAssembly:
    """Folds messages and results into the pieces of each task's log, in order."""

    def __init__(self, task_count: int, tail_bytes: int = STDERR_TAIL_BYTES_MAX) -> None:
        """Begin with nothing; a result holds the last `tail_bytes` of what its task wrote."""
        self._tail_bytes = tail_bytes
        self._ended = bytearray(task_count)
        self._seen: dict[int, _Seen] = {}
        self._tails: dict[int, bytes] = {}  # since the last gap, of the tasks that wrote last
        self._held: dict[int, list[tuple[str, TaskLogPiece]]] = {}
        self._held_bytes = 0

    def take(self, lender: str, message: TaskLogPiece, now: float) -> list[LogPiece]:
        """Return what is new in a message; nothing for an ended task or an earlier attempt.

        Whoever is heard first of an attempt is the one whose log it is: another's would be cut
        into it. What a later attempt says is held while the earlier one goes on elsewhere.
        """
        task = message.task
        if task >= len(self._ended) or self._ended[task]:
            return []
        seen = self._seen.get(task)
        if seen is None or message.attempt <= seen.attempt:
            piece = self._piece(lender, message, now)
            return [piece] if piece is not None else []
        self._hold(lender, message)
        if lender != seen.lender and seen.goes_on(now):
            return []
        return self._let_go(task, now)

    def overdue(self, now: float) -> list[LogPiece]:
        """Return what was held of attempts that have to be the only ones by now."""
        quiet = [task for task in self._held if not self._seen[task].goes_on(now)]
        return [piece for task in quiet for piece in self._let_go(task, now)]

    def _let_go(self, task: int, now: float) -> list[LogPiece]:
        """Go over to the later attempt."""
        held = self._drop_held(task)
        pieces = (self._piece(lender, message, now) for lender, message in held)
        return [piece for piece in pieces if piece is not None]

    def _hold(self, lender: str, message: TaskLogPiece) -> None:
        self._held.setdefault(message.task, []).append((lender, message))
        self._held_bytes += _size_bytes(message)
        while self._held_bytes > _HELD_BYTES_MAX:
            self._drop_held(next(iter(self._held)))

    def _drop_held(self, task: int) -> list[tuple[str, TaskLogPiece]]:
        held = self._held.pop(task, [])
        self._held_bytes -= sum(_size_bytes(message) for _, message in held)
        return held

    def _piece(self, lender: str, message: TaskLogPiece, now: float) -> LogPiece | None:
        task, attempt = message.task, message.attempt
        seen = self._seen.get(task)
        if seen is None or seen.attempt < attempt:
            seen = self._seen[task] = _Seen(attempt, lender)
            self._tails.pop(task, None)
        if seen.attempt > attempt or seen.lender != lender:
            return None
        seen.heard_at = now
        again_bytes = max(0, seen.bytes - message.offset_bytes)
        if again_bytes >= len(message.content):
            return None
        missed_bytes = max(0, message.offset_bytes - seen.bytes, message.left_out_bytes)
        content = message.content[again_bytes:]
        if message.offset_bytes > seen.bytes:
            self._tails.pop(task, None)
        seen.bytes = message.offset_bytes + len(message.content)
        self._keep_tail(task, content)
        return LogPiece(task, attempt, lender, content, missed_bytes)

    def end(self, record: TaskRecord) -> LogPiece | None:
        """Return the last piece of a task; None where it wrote nothing, or was ended before."""
        task, tail = record.result.task, record.result.stderr_tail
        if task >= len(self._ended) or self._ended[task]:
            return None
        self._ended[task] = 1
        self._drop_held(task)
        seen, tail_seen = self._seen.pop(task, None), self._tails.pop(task, b"")
        if seen is None or (seen.attempt, seen.lender) != (record.attempt, record.lender):
            missed_bytes = None if len(tail) >= self._tail_bytes else 0
            if not tail:
                return None
        elif len(tail) < self._tail_bytes:  # it is all that was written
            missed_bytes, tail = 0, tail[seen.bytes :]
        else:
            known_bytes = _known_bytes(tail_seen, tail)
            missed_bytes = None if not known_bytes else 0
            tail = tail[known_bytes:]
        return LogPiece(task, record.attempt, record.lender, tail, missed_bytes, last=True)

    def _keep_tail(self, task: int, content: bytes) -> None:
        self._tails[task] = (self._tails.pop(task, b"") + content)[-STDERR_TAIL_BYTES_MAX:]
        if len(self._tails) > _TAILS_MAX:
            del self._tails[next(iter(self._tails))]


def _size_bytes(message: TaskLogPiece) -> int:
    return len(message.content) + 256  # and what holds it


def _known_bytes(seen: bytes, tail: bytes) -> int:
    """Return how much of the beginning of `tail`, which was cut, comes no later than what was seen.

    What was seen may stand in the middle of it, or its end at the tail's beginning: there by
    chance, maybe, where it is a few bytes.
    """
    if len(seen) >= _PROOF_BYTES and (found := tail.find(seen)) >= 0:
        return found + len(seen)
    sizes = range(min(len(seen), len(tail)), _PROOF_BYTES - 1, -1)
    return next((size for size in sizes if seen.endswith(tail[:size])), 0)
