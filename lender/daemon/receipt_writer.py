"""Makes receipts durable in the order of their coming; the event loop waits for no disk."""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from lender.state.receipt_chain import EMPTY, Head
from lender.state.receipts import ReceiptLog

log = logging.getLogger(__name__)

HELD_MAX = 1000
"""Receipts that are kept in memory while the disk takes none."""

RETRY_S = 1.0
GATHER_S = 0.05
"""So long the first of a batch waits for others: a sync to disk costs as much as many of them, and
its thread holds up a short job's report. Meanwhile the attempt's record tells of it. A revocation,
which has one receipt to add and looks each 5 ms whether the log is free, comes in between."""
_BATCH_MAX = 500


class _Held(NamedTuple):
    fields: Mapping[str, Any]
    written: asyncio.Future[bool] | None


class ReceiptWriter:
    """One thread that appends to `receipts`; made and used in the event loop.

    Attributes:
        head: the last line that is durable; empty before the log was looked at.
        on_head: called in the loop with it whenever more has become durable.
    """

    def __init__(self, receipts: ReceiptLog) -> None:
        self._receipts = receipts
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._held: deque[_Held] = deque()
        self._dropped = 0
        self._fault = ""
        self._closing = False
        self._abandoned = False
        self._awaited = False
        self._by_lease: dict[str, asyncio.Future[bool]] = {}
        self.head = EMPTY
        self.on_head: Callable[[Head], None] = lambda _head: None
        self._thread = threading.Thread(target=self._run, name="receipts", daemon=True)
        self._thread.start()

    @property
    def fault(self) -> str:
        """Why receipts wait in memory, in words; empty when they don't."""
        if not self._fault:
            return ""
        lost = f", {self._dropped} more could not be kept" if self._dropped else ""
        return f"{len(self._held)} receipts wait in memory{lost}: {self._fault}"

    def append(self, fields: Mapping[str, Any]) -> None:
        """Have a receipt written; returns at once. `fields` are JSON values, `lease` is one."""
        written: asyncio.Future[bool] = self._loop.create_future()
        lease = str(fields.get("lease", ""))
        with self._changed:
            if self._abandoned or len(self._held) >= HELD_MAX:
                self._dropped += 1
                written.set_result(False)
            else:
                self._held.append(_Held(fields, written))
                self._changed.notify()
        self._by_lease[lease] = written
        written.add_done_callback(lambda done: self._forget(lease, done))

    async def durable(self, lease: str) -> bool:
        """Wait for the receipt of a lease, if one was appended.

        Returns:
            False: it never became durable. The record of its attempt must stay: the next lenderd
            writes a receipt from that.
        """
        written = self._by_lease.get(lease)
        return True if written is None else await asyncio.shield(written)

    async def flush(self) -> None:
        """Have all that was appended so far written at once; wait until it is, or given up."""
        with self._changed:
            self._awaited = True
            self._changed.notify()
        await asyncio.gather(*(asyncio.shield(one) for one in self._by_lease.values()))

    async def close(self, timeout_s: float = 2.0) -> None:
        """Write what is left, for at most `timeout_s`; then give it up."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join, timeout_s)
        with self._changed:
            self._abandoned = True
            left = list(self._held)
            self._changed.notify()
        if left:
            log.error("%d receipts could not be written: %s", len(left), self._fault)
        await asyncio.sleep(0)  # what the thread has reported is told first
        for one in left:
            if one.written is not None and not one.written.done():
                one.written.set_result(False)

    def _forget(self, lease: str, done: asyncio.Future[bool]) -> None:
        # One that failed stays known: whoever asks later must not take it for written.
        if done.result() and self._by_lease.get(lease) is done:
            del self._by_lease[lease]

    def _run(self) -> None:
        """The thread."""
        self._write(())  # looks at what an earlier lenderd left
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held or self._closing)
                self._changed.wait_for(lambda: self._closing or self._awaited, GATHER_S)
                self._awaited = False
                if self._abandoned or not self._held:
                    return
                batch = tuple(islice(self._held, _BATCH_MAX))
            written = self._write(batch)
            if not written:
                with self._changed:
                    self._changed.wait_for(lambda: self._abandoned, RETRY_S)

    def _write(self, batch: tuple[_Held, ...]) -> bool:
        try:
            head = self._receipts.append_all([one.fields for one in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is: the owner sees it, nothing is lost
            self._told(str(getattr(error, "strerror", None) or error))
            return False
        with self._changed:
            for _ in batch:
                self._held.popleft()
            dropped = self._dropped
            if dropped and not self._held:
                note = f"{dropped} receipts could not be kept: {self._fault}"
                self._held.append(_Held({"kind": "repair", "note": note}, None))
                self._dropped = 0
        self._told(self._receipts.head_fault and f"receipts.head: {self._receipts.head_fault}")
        with contextlib.suppress(RuntimeError):  # the loop has ended before us
            self._loop.call_soon_threadsafe(self._written, batch, head)
        return True

    def _told(self, fault: str) -> None:
        """Log a fault when it comes and when it goes, not as long as it stays."""
        if fault and fault != self._fault:
            log.error("the log of receipts can't be written, they wait in memory: %s", fault)
        elif self._fault and not fault:
            log.warning("the log of receipts is written again")
        self._fault = fault

    def _written(self, batch: tuple[_Held, ...], head: Head) -> None:
        for one in batch:
            if one.written is not None and not one.written.done():
                one.written.set_result(True)
        self.head = head
        self.on_head(head)
