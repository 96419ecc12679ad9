"""The leadership key on the server: read, written by compare-and-set, given back."""

import importlib.metadata
import json
import logging
from collections.abc import Callable

from broker.core.leadership import KeyRead, KeyRefused, KeyStored, KeyUnanswered
from lender.link.api import JetStream, answer, number
from lender.link.batch import WRONG_LAST_SEQUENCE
from lender.link.connection import Connection
from lender.link.errors import JetStreamError, LinkError, NoRespondersError
from lender.protocol import streams, subjects
from lender.protocol.version import PROTOCOL

TIMEOUT_S = 1.0
_PING_S = 0.5

logger = logging.getLogger(__name__)

_OURS = {"protocol": PROTOCOL, "version": importlib.metadata.version("lender")}
"""For whoever looks before joining (`lender preflight`), and must not ask a broker."""

_EXPECTED_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"


def holder_of(payload: bytes) -> str | None:
    """Return whose the key is, as it is stored; None for nobody's.

    Raises:
        ValueError: it does not say.
    """
    try:
        holder = json.loads(payload)["broker"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{payload[:200]!r} names no broker") from error
    if holder is not None and not isinstance(holder, str):
        raise ValueError(f"{payload[:200]!r} names no broker")
    return holder


class LeaderKey:
    """The key as broker `me` sees it.

    A single server forgets a stream in memory when it restarts: it is made again.
    """

    def __init__(
        self,
        connection: Connection,
        me: str,
        replicas: int,
        authorities: Callable[[], str] = lambda: "",
    ) -> None:
        """Prepare; `authorities` returns who may vouch for the fleet's servers, as of now."""
        self._connection = connection
        self._js = JetStream(connection, TIMEOUT_S)
        self._me = me
        self._stream = streams.leader_config(replicas)
        self._authorities = authorities

    async def read(self) -> KeyRead | KeyUnanswered:
        """Return whose it is, and whether that broker's process is still there."""
        try:
            stored = await self._js.get_last(streams.LEADER, subjects.LEADERSHIP_KEY)
        except NoRespondersError:
            return await self._make()
        except LinkError:
            return KeyUnanswered()
        if stored is None:
            return KeyRead(0, None)
        try:
            holder = holder_of(stored.payload)
        except ValueError as error:
            logger.error("the key of leadership can't be read: %s", error)  # noqa: TRY400 - told whole
            return KeyUnanswered()
        gone = holder not in (None, self._me) and await self._is_gone(str(holder))
        return KeyRead(stored.sequence, holder, gone)

    async def write(self, expected_sequence: int) -> KeyStored | KeyRefused | KeyUnanswered:
        """Make it ours, if nobody has written it since it had this sequence."""
        return await self._put(self._me, expected_sequence)

    async def give_back(self, expected_sequence: int) -> None:
        """Make it nobody's, if it is still ours: the next broker need not wait."""
        await self._put(None, expected_sequence)

    async def _make(self) -> KeyRead | KeyUnanswered:
        try:
            state = await self._js.ensure_stream(self._stream)
        except LinkError:
            return KeyUnanswered()
        # Whoever made it first may have written it already.
        return KeyRead(0, None) if not state.last_sequence else KeyUnanswered()

    async def _put(
        self, holder: str | None, expected_sequence: int
    ) -> KeyStored | KeyRefused | KeyUnanswered:
        said = {"broker": holder, **_OURS, "authorities": self._authorities()}
        payload = json.dumps(said).encode()
        headers = {_EXPECTED_SEQUENCE: str(expected_sequence)}
        try:
            msg = await self._connection.request(
                subjects.LEADERSHIP_KEY, payload, headers, TIMEOUT_S
            )
            return KeyStored(number(answer(msg), "seq"))
        except JetStreamError as error:
            return KeyRefused() if error.err_code == WRONG_LAST_SEQUENCE else KeyUnanswered()
        except LinkError:
            return KeyUnanswered()

    async def _is_gone(self, broker: str) -> bool:
        try:
            await self._connection.request(subjects.broker_ping(broker), timeout_s=_PING_S)
        except NoRespondersError:
            return True
        except LinkError:
            pass  # it is slow, or hangs: time will tell
        return False
