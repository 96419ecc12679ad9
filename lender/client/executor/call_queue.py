"""Which calls go to the fleet next, and together. Pure.

While one submission is under way the calls that come gather, and go as one array: the first call
never waits for others, and a thousand of them cost few jobs. Where more wait than may be in flight,
those that follow go when there is room for so many that they are worth a job's own cost, or after
a moment: else each that ends would be followed by a job of one call.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

BATCH_CALLS_MAX = 10_000
BATCH_BYTES_MAX = 32 * 1024 * 1024
"""A batch with more ends there, unless it is a single call."""

_SHORT_S = 5.0
"""Of short calls so much work is with the fleet, where more may be than of others."""

_WORTH_A_JOB_S = 2.0
"""The first job costs its lender a tenth of a second, and others a fifth of that."""

_WEIGHT = 1 / 8
"""Of the newest call in how long calls take."""


class CallsMade(NamedTuple):
    """Calls were handed over: number -> bytes of its pickle, numbers never used before."""

    sizes_bytes: dict[int, int]


class BatchAccepted(NamedTuple):
    """The fleet has a batch."""

    batch: int


class CallEnded(NamedTuple):
    """There is a result of a call, or there never will be.

    Attributes:
        took_s: as its lender says.
    """

    call: int
    took_s: float | None = None


class CallDropped(NamedTuple):
    """Nobody wants a call's result any more."""

    call: int


class Reminded(NamedTuple):
    """The moment that `Remind` asked for has passed."""


class Closed(NamedTuple):
    """No call comes any more; may be said again.

    Attributes:
        drop: what nobody wants any more of what there is.
    """

    drop: Literal["nothing", "waiting", "all"]


class SendBatch(NamedTuple):
    """Submit these calls as one array; then say BatchAccepted, or CallEnded of each."""

    batch: int
    calls: tuple[int, ...]


class CancelBatch(NamedTuple):
    """Have the fleet end a batch that was accepted: nobody wants what is left of it."""

    batch: int


class DropCalls(NamedTuple):
    """Nobody is to wait for these calls any more."""

    calls: tuple[int, ...]


class Remind(NamedTuple):
    """Say Reminded in a moment: then goes what there is room for, however little."""


class Finish(NamedTuple):
    """Nothing is left, and nothing will come."""


Event = CallsMade | BatchAccepted | CallEnded | CallDropped | Reminded | Closed
Effect = SendBatch | CancelBatch | DropCalls | Remind | Finish


@dataclass
class _Batch:
    left: set[int]
    wanted: set[int]
    accepted: bool = False
    cancelled: bool = False


@dataclass
class CallQueue:
    """The calls of one executor that have not ended.

    Attributes:
        in_flight_max: so many calls are with the fleet at most.
        short_in_flight_max: so many of them where they are short; None: no more than of others.
    """

    in_flight_max: int
    short_in_flight_max: int | None = None
    _waiting: deque[int] = field(default_factory=deque)
    _sizes_bytes: dict[int, int] = field(default_factory=dict)
    _batches: dict[int, _Batch] = field(default_factory=dict)
    _batch_of: dict[int, int] = field(default_factory=dict)
    _last_batch: int = 0
    _sending: int | None = None
    _reminding: bool = False
    _call_s: float | None = None
    _closed: bool = False
    _finished: bool = False

    def handle(self, event: Event) -> list[Effect]:
        """Take an event; returns what is to be done, in order."""
        effects: list[Effect] = []
        match event:
            case CallsMade(sizes_bytes):
                self._waiting.extend(sizes_bytes)
                self._sizes_bytes.update(sizes_bytes)
            case BatchAccepted(batch):
                self._accepted(batch, effects)
            case CallEnded(call, took_s):
                self._learn(took_s)
                self._ended(call, effects)
            case CallDropped(call):
                self._dropped(call, effects)
            case Reminded():
                self._reminding = False
            case Closed(drop):
                self._close(drop, effects)
        self._send(effects, gather=not isinstance(event, Reminded))
        if self._closed and not (self._finished or self._sizes_bytes or self._batches):
            self._finished = True
            effects.append(Finish())
        return effects

    def _accepted(self, batch: int, effects: list[Effect]) -> None:
        self._sending = None
        if (found := self._batches.get(batch)) is not None:
            found.accepted = True
            self._cancel_unwanted(batch, found, effects)

    def _ended(self, call: int, effects: list[Effect]) -> None:
        number = self._batch_of.pop(call)
        batch = self._batches[number]
        batch.left.discard(call)
        batch.wanted.discard(call)
        if not batch.left:
            del self._batches[number]
            if self._sending == number:
                self._sending = None
        else:
            self._cancel_unwanted(number, batch, effects)

    def _dropped(self, call: int, effects: list[Effect]) -> None:
        if self._sizes_bytes.pop(call, None) is not None:
            effects.append(DropCalls((call,)))
        elif (number := self._batch_of.get(call)) is not None:
            batch = self._batches[number]
            batch.wanted.discard(call)
            self._cancel_unwanted(number, batch, effects)

    def _close(self, drop: str, effects: list[Effect]) -> None:
        self._closed = True
        dropped = [] if drop == "nothing" else list(self._sizes_bytes)
        for call in dropped:
            del self._sizes_bytes[call]
        if drop == "all":
            for number, batch in self._batches.items():
                dropped.extend(batch.wanted)
                batch.wanted.clear()
                self._cancel_unwanted(number, batch, effects)
        if dropped:
            effects.append(DropCalls(tuple(dropped)))

    def _cancel_unwanted(self, number: int, batch: _Batch, effects: list[Effect]) -> None:
        if batch.accepted and not batch.wanted and not batch.cancelled:
            batch.cancelled = True
            effects.append(CancelBatch(number))

    def _send(self, effects: list[Effect], *, gather: bool) -> None:
        room = self._in_flight_max() - len(self._batch_of)
        if self._sending is not None or room <= 0:
            return
        if gather and len(self._sizes_bytes) > room and room < self._worth_a_job():
            if not self._reminding:
                self._reminding = True
                effects.append(Remind())
            return
        calls = tuple(self._taken(min(room, BATCH_CALLS_MAX)))
        if not calls:
            return
        self._last_batch += 1
        self._sending = self._last_batch
        self._batches[self._sending] = _Batch(set(calls), set(calls))
        self._batch_of.update(dict.fromkeys(calls, self._sending))
        effects.append(SendBatch(self._sending, calls))

    def _learn(self, took_s: float | None) -> None:
        if took_s is not None:
            known_s = took_s if self._call_s is None else self._call_s
            self._call_s = known_s + _WEIGHT * (took_s - known_s)

    def _in_flight_max(self) -> int:
        if self.short_in_flight_max is None or self._call_s is None:
            return self.in_flight_max
        worth = self.short_in_flight_max * self._call_s
        share = min(1.0, _SHORT_S / worth) if worth else 1.0
        return max(self.in_flight_max, int(share * self.short_in_flight_max))

    def _worth_a_job(self) -> float:
        """So many calls; at most half of what may be in flight: machines go on meanwhile."""
        half = self._in_flight_max() / 2
        return min(half, _WORTH_A_JOB_S / self._call_s) if self._call_s else half

    def _taken(self, count_max: int) -> Iterable[int]:
        """Take what goes next from what waits; a call that was dropped has no size any more."""
        count = size_bytes = 0
        while self._waiting and count < count_max:
            call = self._waiting[0]
            one_bytes = self._sizes_bytes.get(call)
            if one_bytes is not None:
                size_bytes += one_bytes
                if count and size_bytes > BATCH_BYTES_MAX:
                    return
                count += 1
                del self._sizes_bytes[call]
                self._waiting.popleft()
                yield call
            else:
                self._waiting.popleft()
