"""Publishes the head of the log of receipts, so that a log that was cut or replaced shows."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from lender.daemon.receipt_writer import ReceiptWriter
from lender.link.api import JetStream, answer
from lender.link.connection import Connection
from lender.link.errors import LinkError
from lender.link.message import StoredMessage
from lender.protocol import subjects
from lender.protocol.codec import CONTENT_TYPE_HEADER, JSON, decode, encode
from lender.protocol.errors import ProtocolError
from lender.protocol.log_head import LogHead, MissingHead
from lender.protocol.signature import SIGNATURE_HEADER, verify
from lender.protocol.streams import HEADS
from lender.state.receipt_chain import EMPTY, Head, LineSigner
from lender.state.receipts import ReceiptLog

log = logging.getLogger(__name__)

INTERVAL_S = 10.0
"""A head is published at most this often."""

_ANSWER_S = 2.0


class HeadPublisher:
    """One lender's head in the stream HEADS.

    Before it publishes for the first time it looks at what was published before: a head that the
    log does not hold is kept in all that is published from then on.
    """

    def __init__(
        self,
        receipts: ReceiptLog,
        writer: ReceiptWriter,
        signer: LineSigner,
        clock: Callable[[], float],
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._receipts = receipts
        self._signer = signer
        self._clock = clock
        self._interval_s = interval_s
        self._subject = subjects.head(signer.public_key)
        self._connection: Connection | None = None
        self._compared = False
        self._latest = writer.head
        self._published = EMPTY
        self._missing: MissingHead | None = None
        self._changed = asyncio.Event()
        self._quiet = False
        self._on_head(writer.head)
        writer.on_head = self._on_head

    @property
    def published(self) -> bool:
        """Whether the last durable receipt was published."""
        return self._latest == self._published

    @property
    def missing(self) -> MissingHead | None:
        """A head that was published once and is not in the log."""
        return self._missing

    async def run(self, connection: Connection) -> None:
        """Publish whenever there is more, until cancelled."""
        self._connection = connection
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._publish(connection)
                self._quiet = False
            except (LinkError, OSError) as error:
                self._changed.set()
                if not self._quiet:
                    log.warning("the head of the receipts is not published: %s", error)
                self._quiet = True
            await asyncio.sleep(self._interval_s)

    async def publish_now(self) -> None:
        """At the end: publish what is not yet, within 2 s, or leave it to the next lenderd."""
        if self._connection is None or self.published:
            return
        with contextlib.suppress(LinkError, OSError, TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                await self._publish(self._connection)

    async def answer(self) -> dict[str, Any]:
        """What the control verb `head` answers: the last published head, or why there is none."""
        if self._connection is None or not self._connection.connected:
            return {"published": None, "reason": "lenderd is not connected to the broker"}
        try:
            stored = await self._fetch(self._connection)
        except LinkError as error:
            return {"published": None, "reason": f"the broker does not tell: {error}"}
        if stored is None:
            return {"published": None, "reason": "none was published yet"}
        signature = stored.headers.get(SIGNATURE_HEADER, "")
        payload = stored.payload.decode(errors="replace")
        return {"published": {"payload": payload, "signature": signature}, "reason": ""}

    def _on_head(self, head: Head) -> None:
        self._latest = head
        if head != self._published:
            self._changed.set()

    async def _publish(self, connection: Connection) -> None:
        if not self._compared:
            await self._compare(connection)
            self._compared = True
        head = self._latest
        if head == self._published:
            return
        key = self._signer.public_key
        message = LogHead(
            lender=key, seq=head.seq, hash=head.hash, at=self._clock(), missing=self._missing
        )
        payload = encode(message, JSON)
        headers = {CONTENT_TYPE_HEADER: JSON, SIGNATURE_HEADER: self._signer.sign(payload)}
        answer(await connection.request(self._subject, payload, headers, timeout_s=_ANSWER_S))
        self._published = head

    async def _fetch(self, connection: Connection) -> StoredMessage | None:
        return await JetStream(connection, _ANSWER_S).get_last(HEADS, self._subject)

    async def _compare(self, connection: Connection) -> None:
        """Hold the log against what was published of it."""
        stored = await self._fetch(connection)
        if stored is None:
            return
        try:
            verify(self._signer.public_key, stored.payload, stored.headers.get(SIGNATURE_HEADER))
            earlier = decode(LogHead, stored.payload, JSON)
        except ProtocolError as error:
            log.warning("what is published as our head is not ours: %s", error)
            return
        wanted = [earlier.missing] if earlier.missing else []
        if earlier.seq:
            wanted.append(MissingHead(seq=earlier.seq, hash=earlier.hash, at=earlier.at))
        for head in wanted:
            found = await asyncio.to_thread(self._receipts.hash_of, head.seq)
            if found != head.hash:
                self._missing = head
                log.error(
                    "receipt %d, published earlier, is not in the log: lender log verify", head.seq
                )
                return
        if not earlier.missing:
            self._published = Head(earlier.seq, earlier.hash)
