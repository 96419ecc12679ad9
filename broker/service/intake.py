"""What waits for the core, and in which order it gets it."""

import asyncio
import contextlib
from collections import deque

from broker.core.events import DoneReported, Event, JobSubmitted, OfferReceived, QueryReceived
from broker.core.intake.lanes import Lanes

LENDER_MAX = 256
LENDER_BYTES_MAX = 16 * 1024 * 1024
"""Words of one lender that wait; what is more it says again."""

LENDERS_BYTES_MAX = 256 * 1024 * 1024
"""Of all lenders; beyond it only who has nothing waiting is heard."""

LANE_MAX = 1_000
LANE_BYTES_MAX = 4 * 1024 * 1024
"""Submissions and cancellations of one submitter that wait; the ledger keeps the others."""

QUESTIONS_MAX = 16
"""Of one submitter."""

_AHEAD_MAX_S = 0.1


class Intake:
    """Outcomes first; then lenders and submitters, half of the time each while both wait.

    Outcomes are of what the core has asked for, which bounds them. Each lender has a lane, each
    submitter one for its submissions and one for its questions.
    """

    def __init__(self) -> None:
        self._outcomes: deque[Event] = deque()
        self._lenders: Lanes[Event] = Lanes()
        self._lanes: Lanes[Event] = Lanes()
        self._side = 0
        """Whose the last event was: 1 a submitter's, -1 a lender's, 0 nobody's."""
        self._ahead_s = 0.0
        """How much more time the submitters have had than the lenders."""
        self._wake = asyncio.Event()
        self._taken = asyncio.Event()

    def note(self, event: Event) -> None:
        """Take in an outcome."""
        self._outcomes.append(event)
        self._wake.set()

    def hear(self, event: OfferReceived | DoneReported) -> bool:
        """Take in a lender's word; False where it has too many waiting.

        An offer says all that there is to say: it takes the place of one that waits just before.
        """
        who, size_bytes = event.lender, len(event.payload)
        newest = self._lenders.newest(who)
        if isinstance(event, OfferReceived) and isinstance(newest, OfferReceived):
            self._lenders.replace_newest(who, event, size_bytes)
            return True
        count, waiting_bytes = self._lenders.waiting(who)
        full = count >= LENDER_MAX or waiting_bytes >= LENDER_BYTES_MAX
        if count and (full or self._lenders.bytes >= LENDERS_BYTES_MAX):
            return False
        self._lenders.put(who, event, size_bytes)
        self._wake.set()
        return True

    def has_room(self, submitter: str) -> bool:
        """Tell whether a submitter's lane takes one more message of the ledger."""
        count, size_bytes = self._lanes.waiting(submitter)
        return count < LANE_MAX and size_bytes < LANE_BYTES_MAX

    def is_low(self, submitter: str) -> bool:
        """Tell whether there is room for many."""
        count, size_bytes = self._lanes.waiting(submitter)
        return count <= LANE_MAX // 2 and size_bytes <= LANE_BYTES_MAX // 2

    async def wait_for_room(self, timeout_s: float) -> None:
        """Wait until something of a submitter's was taken up, or time is up."""
        self._taken.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._taken.wait()

    def hurry(self, submitter: str, event: Event) -> None:
        """Take in a cancellation that need not wait for its place; it comes there again."""
        lane = f"!{submitter}"
        if self._lanes.waiting(lane)[0] < LANE_MAX:
            self._lanes.put(lane, event, 0)
            self._wake.set()

    def take_in(self, submitter: str, event: Event) -> None:
        """Take in a message of the ledger, for which there is room."""
        size_bytes = len(event.payload) if isinstance(event, JobSubmitted) else 0
        self._lanes.put(submitter, event, size_bytes)
        self._wake.set()

    def ask(self, event: QueryReceived) -> bool:
        """Take in a question; False where its submitter has too many waiting."""
        lane = f"?{event.submitter}"
        if self._lanes.waiting(lane)[0] >= QUESTIONS_MAX:
            return False
        self._lanes.put(lane, event, 0)
        self._wake.set()
        return True

    def is_ready(self, *, congested: bool) -> bool:
        """Tell whether `next` has something."""
        submitters = len(self._lanes) and not congested
        return bool(self._outcomes or submitters or len(self._lenders))

    def next(self, *, congested: bool) -> Event | None:
        """Return what comes next; nothing of submitters while commits are `congested`."""
        self._side = 0
        if self._outcomes:
            return self._outcomes.popleft()
        submitters = len(self._lanes) > 0 and not congested
        if len(self._lenders) and not (submitters and self._ahead_s < 0.0):
            self._side = -1
            return self._lenders.take()
        if not submitters:
            return None
        self._side = 1
        self._taken.set()
        return self._lanes.take()

    def charge(self, took_s: float) -> None:
        """Note how long it took to take up what came last."""
        if self._side > 0:
            self._lanes.charge(took_s)
        elif self._side < 0:
            self._lenders.charge(took_s)
        ahead_s = self._ahead_s + self._side * took_s
        self._ahead_s = max(-_AHEAD_MAX_S, min(_AHEAD_MAX_S, ahead_s))

    async def wait(self, timeout_s: float) -> None:
        """Wait until something comes, or time is up."""
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
