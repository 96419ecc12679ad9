"""Answers whoever looks which brokers there are and what they are asked: leaders and stand-bys."""

import asyncio
import importlib.metadata
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from nats.aio.msg import Msg

from broker.core.endpoints import Endpoints, Instance
from broker.service.service import INBOXES
from broker.service.trickle import Trickle
from lender.link.connection import Connection
from lender.link.errors import LinkError
from lender.protocol import subjects
from lender.protocol.codec import CONTENT_TYPE_HEADER, JSON

logger = logging.getLogger(__name__)

READ_MAX = 50
READ_S = 1.0
"""So many questions are read in that time: who asks more has no answer, and the leader no work."""


class Discovery:
    """A NATS micro service's part of one broker."""

    def __init__(
        self, connection: Connection, me: str, endpoints: Endpoints, leads: Callable[[], bool]
    ) -> None:
        """Prepare.

        Args:
            connection: to a NATS server.
            me: the id of this process, a token of a subject.
            endpoints: where requests are counted.
            leads: whether this broker serves.
        """
        self._connection = connection
        started = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._instance = Instance(me, importlib.metadata.version("lender"), started)
        self._endpoints = endpoints
        self._leads = leads

    async def run(self) -> None:
        """Answer until cancelled."""
        filters = (*subjects.SERVICE_FILTERS, subjects.of_service(self._instance.id))
        async with asyncio.TaskGroup() as tasks:
            for subject in filters:
                asked = Trickle(
                    *(self._connection.nc, subject, self._on_question),
                    count_max=READ_MAX,
                    within_s=READ_S,
                )
                tasks.create_task(asked.run())

    async def _on_question(self, msg: Msg) -> None:
        if not msg.reply.startswith(INBOXES):
            return
        verb = msg.subject.split(".")[1]
        told = self._endpoints.told(verb, self._instance, leads=self._leads())
        if told is None:
            return
        payload = json.dumps(told).encode()
        try:
            await self._connection.publish(msg.reply, payload, {CONTENT_TYPE_HEADER: JSON})
        except LinkError as error:
            logger.info("%s is not told: %s", msg.reply, error)
