"""Publishes what tasks write while they run: for whoever follows their jobs, and never in the way.

Ephemeral: what finds the line down or busy waits in its queue for as long as it has room there.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from nats.aio.msg import Msg

from lender.daemon.log_queues import LogQueues
from lender.link.connection import NO_RESPONDERS, Connection, status
from lender.link.errors import LinkError
from lender.protocol import codec, subjects
from lender.protocol.codec import ContentType
from lender.protocol.lease import Lease

_LINE_BUSY_BYTES = 64 << 10
"""Unsent bytes of the connection above which logs wait: results go first."""

_LINE_PAUSE_S = 0.2
_PAUSE_S_MIN = 0.01


class _Log(NamedTuple):
    content_type: ContentType
    token: str


class TaskLogs:
    """The logs of one lender's leases. Only `run` waits for anything."""

    def __init__(self, lender: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._lender = lender
        self._clock = clock
        self._queues = LogQueues(clock())
        self._logs: dict[str, _Log] = {}
        self._leases: dict[str, str] = {}
        # Submitters see it. They must not see the inbox where the broker's answers come.
        self._complaints = f"_INBOX_{lender}.log"
        self._changed = asyncio.Event()

    def open(self, lease: Lease) -> None:
        """Begin the log of a lease."""
        subject = subjects.task_log(lease.submitter, lease.job, self._lender)
        self._queues.open(lease.lease, subject, lease.attempt)
        one = self._logs[lease.lease] = _Log(lease.content_type, secrets.token_hex(8))
        self._leases[one.token] = lease.lease

    def write(self, lease: str, task: int, content: bytes) -> None:
        """Take what a task of the lease wrote; of one that was closed nothing is taken."""
        if self._queues.add(lease, task, content):
            self._changed.set()

    def halt(self, lease: str) -> None:
        """Publish nothing of a lease until `go_on`."""
        self._queues.halt(lease)

    def go_on(self, lease: str) -> None:
        """Publish what waits."""
        self._queues.go_on(lease)
        self._changed.set()

    def close(self, lease: str) -> None:
        """Publish nothing more of a lease."""
        self._queues.close(lease)
        if one := self._logs.pop(lease, None):
            del self._leases[one.token]

    async def run(self, connection: Connection) -> None:
        """Publish on an open connection, until cancelled."""
        await connection.nc.subscribe(f"{self._complaints}.*", cb=self._on_complaint)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s(connection)):
                    await self._changed.wait()
            self._changed.clear()
            await self._publish_due(connection)

    def _pause_s(self, connection: Connection) -> float | None:
        wait_s = self._queues.wait_s(self._clock())
        if wait_s is None:
            return None
        return max(wait_s, _PAUSE_S_MIN if _has_room(connection) else _LINE_PAUSE_S)

    async def _publish_due(self, connection: Connection) -> None:
        while _has_room(connection) and (outgoing := self._queues.next(self._clock())):
            lease, subject, piece = outgoing
            content_type, token = self._logs[lease]
            payload = codec.encode(piece, content_type)
            headers: dict[str, str] = {codec.CONTENT_TYPE_HEADER: content_type}
            with contextlib.suppress(LinkError):  # its reader sees by the offsets that it is gone
                await connection.publish(subject, payload, headers, f"{self._complaints}.{token}")
            await asyncio.sleep(0)  # all else goes first

    async def _on_complaint(self, msg: Msg) -> None:
        """Hear from the server that nobody listens; nobody else has a reason to answer."""
        lease = self._leases.get(subjects.last_token(msg.subject))
        if lease is not None and status(msg) == NO_RESPONDERS:
            self._queues.nobody_heard(self._clock(), lease)


def _has_room(connection: Connection) -> bool:
    return connection.connected and connection.nc.pending_data_size < _LINE_BUSY_BYTES
