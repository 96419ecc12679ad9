"""Gives each submitter that is allowed buckets of its own, before it stores anything."""

import asyncio
import logging
from collections.abc import Mapping
from types import MappingProxyType

from lender.link.api import JetStream
from lender.link.connection import Connected, Connection, State
from lender.link.errors import JetStreamError, LinkError, passing
from lender.protocol.streams import bucket_config, left_config

logger = logging.getLogger(__name__)

_PAUSE_FIRST_S = 0.5
_PAUSE_MAX_S = 30.0
_NO_ROOM = (10005, 10023, 10047)
"""JetStream's error codes of a stream whose bound the server, or a cluster, can't set aside."""


class Buckets:
    """Makes the streams of submitters' contents, and keeps their bounds as the operator says.

    Each has two: what it stores itself, and what lenders leave for it, with a bound for each, so
    that no lender keeps a submitter from storing its inputs.

    Who is not allowed any more keeps a bucket, which empties with age: what its jobs have left is
    read yet, and an empty stream costs the server little.
    """

    def __init__(self, connection: Connection, replicas: int = 1) -> None:
        """Prepare; `replicas` of each stream."""
        self._js = JetStream(connection)
        self._replicas = replicas
        self._wanted: Mapping[str, int | None] = MappingProxyType({})
        self._made: dict[str, int | None] = {}
        self._complaints: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._unwatch = connection.watch(self._on_state)

    def want(self, bytes_max: Mapping[str, int | None]) -> None:
        """Have these submitters' buckets made: how much each may hold, None for no bound.

        The bound is one for what a submitter stores, and the same again for what lenders leave.
        """
        self._wanted = bytes_max
        self._wake.set()

    async def make(self) -> bool:
        """Make what is missing, and tell whether all is there."""
        for submitter, bytes_max in tuple(self._wanted.items()):
            if submitter not in self._made or self._made[submitter] != bytes_max:
                await self._make(submitter, bytes_max)
        return all(one in self._made for one in self._wanted)

    async def run(self) -> None:
        """Make what is missing for ever."""
        pause_s = _PAUSE_FIRST_S
        while True:
            self._wake.clear()
            if await self.make():
                pause_s = _PAUSE_FIRST_S
                await self._wake.wait()
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    def close(self) -> None:
        """Stop listening to the connection."""
        self._unwatch()

    async def _make(self, submitter: str, bytes_max: int | None) -> None:
        self._made.pop(submitter, None)
        try:
            await self._js.ensure_stream(bucket_config(submitter, self._replicas, bytes_max))
            await self._make_left(submitter, bytes_max)
        except LinkError as error:
            level = logging.INFO if passing(error) else logging.WARNING
            if self._complaints.get(submitter) != str(error):
                logger.log(level, "%s has no bucket to store contents in: %s", submitter, error)
                self._complaints[submitter] = str(error)
            return
        self._complaints.pop(submitter, None)
        self._made[submitter] = bytes_max

    async def _make_left(self, submitter: str, bytes_max: int | None) -> None:
        """Have lenders' contents bounded, also where an earlier version has set no room aside."""
        try:
            await self._js.ensure_stream(left_config(submitter, self._replicas, bytes_max))
        except JetStreamError as error:
            if bytes_max is None or error.err_code not in _NO_ROOM:
                raise
            logger.warning(
                "the server sets no %d bytes aside for what lenders leave for %s (%s): they may "
                "leave so much in whole pieces of 512 KiB, and small ones count as whole; give "
                "it more room, or allow less by --stored",
                bytes_max,
                submitter,
                error,
            )
            await self._js.ensure_stream(
                left_config(submitter, self._replicas, bytes_max, set_aside=False)
            )

    def _on_state(self, state: State) -> None:
        if isinstance(state, Connected):
            self._made.clear()  # the server may have come back on another store
            self._wake.set()
