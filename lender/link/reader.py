"""Reading a stream from a sequence on and then live, over crashes and reconnects, without a gap.

The consumer is ephemeral and acknowledges nothing: what was read is known here alone, so a lost
consumer is simply replaced by one that starts after the last message seen.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, Self

from nats.aio.msg import Msg

from lender.link.api import JetStream
from lender.link.connection import Closed, Connection, State
from lender.link.deliveries import Deliveries
from lender.link.errors import LinkError, NotConnectedError, passing
from lender.link.message import StoredMessage, delivery_info

_BATCH_BYTES = 16 * 1024 * 1024
_PAUSE_FIRST_S = 0.02
_PAUSE_MAX_S = 2.0
_INACTIVE_S = 60
_HEARTBEATS_PER_PULL = 12
_HEARTBEATS_MISSED = 2.5
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """Messages in the order of the stream.

    `caught_up` is true exactly once in a reader's life: after this batch, which may be empty,
    the reader has seen everything that the stream held, and what follows is live. So it is also
    where the consumer was on a replica that is behind, and knew of no more.
    """

    messages: list[StoredMessage]
    caught_up: bool


class StreamRewoundError(LinkError):
    """The stream ends before what was already read: it was restored or made anew.

    What was derived from the messages read is void; start over from the stream's beginning.
    """

    def __init__(self, stream: str, last_sequence: int, read: int) -> None:
        super().__init__(f"stream {stream} ends at {last_sequence}, but {read} was read already")


class StreamReader:
    """Iterates over the batches of a stream, forever; one task at a time.

    The iteration raises JetStreamError (the stream is gone), StreamRewoundError, and
    NotConnectedError once the connection is closed for good; everything else it outlives.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        filter_subjects: list[str],
        from_sequence: int = 1,
        *,
        batch_max: int = 1000,
        heartbeat_s: float = 5.0,
        headers_only: bool = False,
    ) -> None:
        """Prepare to read; nothing is asked for before the first iteration.

        Args:
            connection: outlives the reader.
            stream: a stream with limits retention.
            filter_subjects: what to read; empty for all.
            from_sequence: first sequence wanted, from 1.
            batch_max: bound on messages in a batch; up to two batches are kept in memory.
            heartbeat_s: idle sign of life; a consumer silent for 2.5 of them is replaced.
            headers_only: leave the payloads, which then read as empty, on the server.
        """
        self._connection = connection
        self._js = JetStream(connection)
        self._stream = stream
        self._filter = filter_subjects
        self._next_sequence = from_sequence
        self._batch_max = batch_max
        self._heartbeat_s = heartbeat_s
        self._headers_only = headers_only
        self._unwatch = connection.watch(self._on_state)
        self._buffer: list[StoredMessage] = []
        self._wake = asyncio.Event()
        self._deliveries: Deliveries | None = None
        self._consumer = ""
        self._consumer_sequence = 0
        self._pull_left = 0
        self._heard_at = 0.0
        self._failures = 0
        self._num_pending: int | None = None
        self._end_sequence = 0
        self._caught_up = False
        self._closed = False

    @property
    def num_pending(self) -> int:
        """How many messages the stream held beyond the last one that came from it."""
        return self._num_pending or 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReadBatch:
        while True:
            self._wake.clear()
            if self._deliveries is None:
                await self._open()
            elif self._pull_left == 0:
                await self._pull(self._deliveries)
            at_end = not self._caught_up and self._num_pending == 0 and await self._has_all()
            if self._buffer or at_end:
                return self._take(caught_up=at_end)
            await self._listen()

    async def close(self) -> None:
        """Stop reading and remove the consumer, if the line is up."""
        self._unwatch()
        had_consumer = self._deliveries is not None
        self._drop_consumer()
        if had_consumer:
            with contextlib.suppress(LinkError):
                await self._js.delete_consumer(self._stream, self._consumer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _take(self, *, caught_up: bool) -> ReadBatch:
        messages, self._buffer = self._buffer, []
        self._caught_up = self._caught_up or caught_up
        return ReadBatch(messages, caught_up)

    async def _has_all(self) -> bool:
        """Tell whether we have read all that the stream's leader held when we asked it."""
        if self._next_sequence > self._end_sequence:
            return True
        try:
            # What comes last may be gone, or match no filter.
            found = [
                await self._js.next_sequence(self._stream, self._next_sequence, subject)
                for subject in self._filter or [">"]
            ]
        except LinkError as error:
            if not passing(error):
                raise
            return False
        return all(one is None or one > self._end_sequence for one in found)

    async def _open(self) -> None:
        """Make the consumer that goes on after the last message seen; waits for the line."""
        while not self._connection.connected:
            if self._closed:
                raise NotConnectedError("the connection is closed for good")
            self._wake.clear()
            await self._wake.wait()
        if self._failures:
            await asyncio.sleep(min(_PAUSE_MAX_S, _PAUSE_FIRST_S * 2 ** min(self._failures, 10)))
        self._failures += 1
        deliveries = Deliveries(self._connection.nc, self._receive)
        self._consumer = f"reader-{deliveries.subject.rpartition('.')[2]}"
        try:
            await self._check_not_rewound()
            consumer = await self._js.ensure_consumer(self._stream, self._config())
        except LinkError as error:
            if not passing(error):
                raise
            return
        await deliveries.open()
        self._deliveries = deliveries
        self._consumer_sequence = 0
        self._num_pending = consumer.num_pending
        await self._pull(deliveries)

    async def _check_not_rewound(self) -> None:
        last_sequence = (await self._js.stream_state(self._stream)).last_sequence
        if last_sequence < self._next_sequence - 1:
            raise StreamRewoundError(self._stream, last_sequence, self._next_sequence - 1)
        self._end_sequence = last_sequence

    def _config(self) -> dict[str, Any]:
        return {
            "name": self._consumer,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._next_sequence,
            "ack_policy": "none",
            "filter_subjects": self._filter,
            "headers_only": self._headers_only,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _INACTIVE_S * _NS,
        }

    async def _pull(self, deliveries: Deliveries) -> None:
        self._pull_left = self._batch_max
        self._heard_at = asyncio.get_running_loop().time()
        request = (
            f'{{"batch":{self._batch_max}'
            f',"max_bytes":{max(_BATCH_BYTES, 2 * self._connection.nc.max_payload)}'
            f',"expires":{int(self._heartbeat_s * _HEARTBEATS_PER_PULL * _NS)}'
            f',"idle_heartbeat":{int(self._heartbeat_s * _NS)}}}'
        )
        next_message = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        try:
            await self._connection.publish(next_message, request.encode(), reply=deliveries.subject)
        except NotConnectedError:
            self._drop_consumer()

    async def _listen(self) -> None:
        """Wait for something to happen, or for the consumer to have been silent for too long."""
        if self._deliveries is None:
            return
        silence_max_s = self._heartbeat_s * _HEARTBEATS_MISSED
        try:
            async with asyncio.timeout_at(self._heard_at + silence_max_s):
                await self._wake.wait()
        except TimeoutError:
            if asyncio.get_running_loop().time() >= self._heard_at + silence_max_s:
                self._drop_consumer()

    def _receive(self, msg: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        if not msg.reply:
            self._on_status(msg.headers or {})
            return
        info = delivery_info(msg.reply)
        self._consumer_sequence += 1
        if info.consumer_sequence != self._consumer_sequence:
            self._drop_consumer()  # a message got lost on its way
        elif info.stream_sequence >= self._next_sequence:
            self._next_sequence = info.stream_sequence + 1
            self._buffer.append(
                StoredMessage(msg.subject, info.stream_sequence, msg.data, msg.headers or {})
            )
            self._num_pending = info.num_pending
            self._pull_left -= 1
            self._failures = 0
        self._wake.set()

    def _on_status(self, headers: dict[str, str]) -> None:
        """React to a word of the server that is no message of the stream."""
        code, description = headers.get("Status"), headers.get("Description", "")
        if code == "100" or description == "Batch Completed":
            return
        if code == "408" or "MaxBytes" in description:
            self._pull_left = 0
        else:  # consumer deleted, no responders, shutdown, leadership change
            self._drop_consumer()
        self._wake.set()

    def _on_state(self, state: State) -> None:
        self._closed = isinstance(state, Closed)
        self._drop_consumer()
        self._failures = 0
        self._wake.set()

    def _drop_consumer(self) -> None:
        if self._deliveries is not None:
            self._deliveries.close()
            self._deliveries = None
        self._wake.set()
