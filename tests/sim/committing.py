"""The broker's group commit, as `broker.service.committer` does it."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sim.jetstream import SUBJECT_TAKEN, Message, Record, Refused, Stored
from sim.network import Fault

from broker.core.effects import Commit
from broker.core.events import Committed
from lender.protocol.streams import RESULTS

if TYPE_CHECKING:
    from sim.serving import Service

RECORDS_MAX = 1000
BATCH_BYTES_MAX = 4 * 1024 * 1024
PAUSE_FIRST_S = 0.02
PAUSE_MAX_S = 2.0


class Committer:
    """Writes RESULTS, one batch at a time, each onto exactly the state that it knows."""

    def __init__(self, service: "Service", last_sequence: int) -> None:
        self._service = service
        self._server = service.server
        self._last_sequence = last_sequence
        self._waiting: deque[Commit] = deque()
        self._batch: list[Commit] = []
        self._pause_s = PAUSE_FIRST_S

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self._waiting and not self._batch

    def add(self, effect: Commit) -> None:
        """Queue a commit."""
        self._waiting.append(effect)
        if not self._batch:
            self._next()

    def _next(self) -> None:
        self._batch = []
        records = size_bytes = 0
        while self._waiting:
            effect = self._waiting[0]
            records += len(effect.records)
            size_bytes += sum(len(one.payload) for one in effect.records)
            if self._batch and (records > RECORDS_MAX or size_bytes > BATCH_BYTES_MAX):
                break
            self._batch.append(self._waiting.popleft())
        if self._batch:
            self._pause_s = PAUSE_FIRST_S
            self._store(
                [
                    Record(one.subject, one.payload, one.headers)
                    for effect in self._batch
                    for one in effect.records
                ]
            )

    def _store(self, records: list[Record]) -> None:
        if not records:
            self._landed()
            return
        expected = self._last_sequence
        self._service.call(
            "commit",
            lambda: self._server.store(RESULTS, records, expected),
            lambda answer: self._take(records, answer),
        )

    def _take(self, records: list[Record], answer: object) -> None:
        match answer:
            case Stored(sequence):
                self._last_sequence = sequence
                self._landed()
            case Fault.NOT_CONNECTED | Fault.NO_RESPONDERS:
                self._again(lambda: self._store(records))
            case Refused(code) if code == SUBJECT_TAKEN:
                self._leave_out_taken(records)
            case _:  # no answer, or somebody else has written, or we did without hearing of it
                self._look(records)

    def _landed(self) -> None:
        landed, self._batch = self._batch, []
        for effect in landed:
            self._service.after(0.0, self._service.handle, Committed(effect.token))
        self._service.after(0.0, self._go_on)

    def _go_on(self) -> None:
        if not self._batch and self._waiting:
            self._next()

    def _again(self, call: Callable[[], None]) -> None:
        self._service.after(self._pause_s, call)
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)

    def _look(self, records: list[Record]) -> None:
        """Learn whether the batch was stored."""
        stream = self._server.js.streams[RESULTS]

        def read() -> tuple[int, list[Message]]:
            page = stream.page(self._last_sequence + 1, len(records))
            return stream.last_sequence, page

        def take(answer: object) -> None:
            if isinstance(answer, Fault):
                self._again(lambda: self._look(records))
                return
            last_sequence, page = answer
            if last_sequence == self._last_sequence:
                self._again(lambda: self._store(records))
            elif _same(page, records):
                self._last_sequence = page[-1].sequence
                self._landed()
            else:
                self._service.fenced()

        self._service.call("commit", read, take)

    def _leave_out_taken(self, records: list[Record]) -> None:
        stream = self._server.js.streams[RESULTS]

        def read() -> list[bool]:
            return [stream.get_last(one.subject) is not None for one in records]

        def take(answer: object) -> None:
            left = records
            if isinstance(answer, list):
                self._service.world.stats["records taken"] += sum(answer)
                left = [one for one, taken in zip(records, answer, strict=True) if not taken]
            self._again(lambda: self._store(left))

        self._service.call("commit", read, take)


def _same(page: Sequence[Message], records: Sequence[Record]) -> bool:
    stored = [(one.subject, one.payload) for one in page]
    return stored == [(one.subject, one.payload) for one in records]
