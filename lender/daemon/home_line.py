"""The line to the house's MQTT server: connects, comes back, hears, tells. It decides nothing.

Loaded only where the owner has set `[mqtt]`. docs/decisions/0035-home-automation.md.
"""

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from aiomqtt import Client, MqttError, Will
from paho.mqtt.reasoncodes import ReasonCode

from lender.daemon.home_assistant import OFFLINE, ONLINE
from lender.daemon.home_settings import Place
from lender.link.credentials import connect_options, trusting

log = logging.getLogger(__name__)

TELL_S: Final = 5.0
"""What changes is told this often at most; at once after a command."""
AGAIN_S: Final = 60.0
"""That the machine is there is told again: the will of a lost connection may come late."""

FLOOD_MESSAGES: Final = 600
FLOOD_WITHIN_S: Final = 10.0
FLOOD_AWAY_S: Final = 60.0
"""More would take the loop that answers `lender pause`: then nothing is heard for a while."""
CALM_S: Final = 0.5
"""Between two that are told at once."""

_KEEPALIVE_S: Final = 10
"""Also the bound of a TLS handshake, which holds a thread that our own end waits for."""
_ANSWER_S: Final = 10.0
_GOODBYE_S: Final = 1.0
_FIRST_PAUSE_S: Final = 1.0
_LAST_PAUSE_S: Final = 60.0
_QUEUED_MAX: Final = 256
_REFUSED: Final = 0x80
_QUIET: Final = logging.getLogger("lender.daemon.mqtt")
"""The library's: it would say a line for each message that it drops."""
_QUIET.setLevel(logging.CRITICAL)


class LineError(Exception):
    """The server is there, but does not do what is asked; the text says what to mend."""


class FloodError(LineError):
    """It sends too much."""


class Access(NamedTuple):
    """How to reach the server.

    Attributes:
        place: of it.
        credentials: a file; None: it asks for none.
        authorities: who may vouch for it; None: those that the system trusts.
        identifier: ours, the same at every connection: then the server ends the one before. Known
            to nobody else, who could end ours in that way.
    """

    place: Place
    credentials: Path | None
    authorities: Path | None
    identifier: str


class HomeLine:
    """One connection after another.

    Attributes:
        connected: the server has taken our subscriptions.
        fault: why not, in words; empty where it is, or was never tried.
    """

    def __init__(
        self,
        access: Access,
        available: str,
        topics: Sequence[str],
        hear: Callable[[str, bytes, bool], None],
        tell: Callable[[], Mapping[str, bytes]],
    ) -> None:
        """Prepare.

        Args:
            access: how to reach the server.
            available: topic on which we say that we are there, and the server that we are gone.
            topics: what to subscribe to.
            hear: told each message: topic, payload, retained.
            tell: asked for what is to be known now, by topic; published where it has changed.
        """
        self._access = access
        self._available = available
        self._topics = list(topics)
        self._hear = hear
        self._tell = tell
        self._nudged = asyncio.Event()
        self.connected = False
        self.fault = ""

    def nudge(self) -> None:
        """Tell soon what has changed."""
        self._nudged.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        longest_s = _FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            try:
                await self._session()
            except FloodError as error:
                self._failed(str(error))
                await asyncio.sleep(FLOOD_AWAY_S)
            except Exception as error:  # noqa: BLE001 - no server may end lenderd by what it says
                self._failed(str(error) or type(error).__name__)
            if time.monotonic() - began > _LAST_PAUSE_S:
                longest_s = _FIRST_PAUSE_S
            await asyncio.sleep(random.uniform(longest_s / 2, longest_s))  # noqa: S311 - jitter
            longest_s = min(2 * longest_s, _LAST_PAUSE_S)

    def _failed(self, fault: str) -> None:
        if fault != self.fault:
            log.warning("no line to the MQTT server %s: %s", self._access.place, fault)
        self.fault = fault

    async def _session(self) -> None:
        """Serve over one connection, until it ends by an error."""
        async with self._client() as client:
            await self._subscribe(client)
            self.connected, self.fault = True, ""
            log.info("connected to the MQTT server %s", self._access.place)
            parts = [
                asyncio.create_task(part) for part in (self._listen(client), self._report(client))
            ]
            try:
                done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
                for part in done:
                    part.result()
            except (asyncio.CancelledError, FloodError):
                with contextlib.suppress(MqttError):
                    await client.publish(self._available, OFFLINE, retain=True, timeout=_GOODBYE_S)
                raise
            finally:
                self.connected = False
                for part in parts:
                    part.cancel()
                await asyncio.gather(*parts, return_exceptions=True)

    def _client(self) -> Client:
        """Prepare a connection.

        Raises:
            CredentialsError, OSError: a file that can't be used.
        """
        place, authorities = self._access.place, self._access.authorities
        context = None
        if place.tls:
            context = trusting(authorities) if authorities else ssl.create_default_context()
        known = connect_options(self._access.credentials) if self._access.credentials else {}
        if known.keys() - {"user", "password"}:
            raise LineError(f"{self._access.credentials}: it takes one line user:password")
        return Client(
            place.host,
            place.port,
            username=known.get("user"),
            password=known.get("password"),
            identifier=self._access.identifier,
            will=Will(self._available, OFFLINE, retain=True),
            keepalive=_KEEPALIVE_S,
            timeout=_ANSWER_S,
            tls_context=context,
            max_queued_incoming_messages=_QUEUED_MAX,
            logger=_QUIET,
        )

    async def _subscribe(self, client: Client) -> None:
        # What is lost with a connection is old by the next: no server needs to keep any for us.
        answers = await client.subscribe([(topic, 0) for topic in self._topics])
        refused = [
            topic
            for topic, code in zip(self._topics, answers, strict=False)
            if (code.value if isinstance(code, ReasonCode) else code) == _REFUSED
        ]
        if refused or len(answers) < len(self._topics):
            raise LineError(f"it does not let us hear {', '.join(refused) or 'all topics'}")

    async def _listen(self, client: Client) -> None:
        began, count = time.monotonic(), 0
        async for message in client.messages:
            now = time.monotonic()
            if now - began > FLOOD_WITHIN_S:
                began, count = now, 0
            count += 1
            if count > FLOOD_MESSAGES:
                raise FloodError("it sends too much: nothing is heard for a minute")
            if isinstance(message.payload, bytes):
                self._hear(str(message.topic), message.payload, message.retain)

    async def _report(self, client: Client) -> None:
        told: dict[str, bytes] = {}
        told_at = -AGAIN_S
        while True:
            self._nudged.clear()
            for topic, content in self._tell().items():
                if told.get(topic) != content:
                    await client.publish(topic, content, qos=1, retain=True)
                    told[topic] = content
            if time.monotonic() - told_at >= AGAIN_S:
                await client.publish(self._available, ONLINE, qos=1, retain=True)
                told_at = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TELL_S):
                    await asyncio.sleep(CALM_S)
                    await self._nudged.wait()
