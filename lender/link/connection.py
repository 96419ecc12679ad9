"""A NATS connection that comes back by itself, and says so."""

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from nats import errors as nats_errors
from nats.aio.client import Server
from nats.aio.msg import Msg

from lender.link.credentials import connect_options, trusting, without_credentials
from lender.link.errors import (
    DisconnectedError,
    LinkError,
    NoRespondersError,
    NotConnectedError,
    PayloadTooLargeError,
    RequestTimeoutError,
)
from lender.link.hardened import HardenedClient, is_refusal
from lender.link.inbox import Inbox

logger = logging.getLogger(__name__)

NO_RESPONDERS = "503"

_BACKOFF_FIRST_S = 0.05
_BACKOFF_MAX_S = 4.0
_FIRST_CONNECT_PAUSE_S = 0.2
# A half-open line is noticed after about 15 s.
_PING_INTERVAL_S = 5
_PINGS_OUTSTANDING_MAX = 2
_CLOSE_TIMEOUT_S = 5.0
_CANCEL_AGAIN_S = 0.2
_FLUSH_TIMEOUT_S = 10.0
_FLUSH_KNOWN_S = 5


@dataclass(frozen=True, slots=True)
class Connected:
    """The line is up (again); subscriptions are in place."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The line broke; reconnecting goes on by itself."""


@dataclass(frozen=True, slots=True)
class Closed:
    """It won't come back by itself: our own `close`, or the server refused for good.

    nats-py gives up on a revoked or expired credential, and on a protocol violation. `reason`
    holds the server's words, None after our own close. Who wants to go on connects anew.
    """

    reason: str | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The server does not let us in; `connect` was told that this may pass, and tries on."""

    reason: str


State = Connected | Disconnected | Closed | Refused
Listener = Callable[[State], None]
"""Called in the event loop; must neither block nor raise."""


class ConnectError(LinkError):
    """No server reached within the time allowed; names the error."""


class StrangerError(ConnectError):
    """The server knows nobody of us, and lets us do no more than ask to be let in: enrol."""

    def __init__(self, url: str) -> None:
        place = without_credentials(url)
        super().__init__(f"the server at {place} does not know us, and takes us for a stranger")


class Connection:
    """A connection; `nc` is the nats-py client for whatever needs no more than it offers."""

    def __init__(
        self, nc: HardenedClient, on_state: Listener | None = None, *, stays: bool = False
    ) -> None:
        self.nc = nc
        nc.stays = stays
        self.inbox: Inbox
        self.last_error: Exception | None = None
        self._listeners: list[Listener] = [on_state] if on_state else []
        self._waiting: set[asyncio.Future[Msg]] = set()
        self._closing = False

    @property
    def connected(self) -> bool:
        """Whether a server is on the line, as far as is known."""
        return self.nc.is_connected

    def watch(self, listener: Listener) -> Callable[[], None]:
        """Have each change of state reported; returns what ends that, any number of times."""
        self._listeners.append(listener)

        def unwatch() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unwatch

    def awaited(self) -> asyncio.Future[Msg]:
        """Make a future that fails with DisconnectedError when the line breaks before it is set.

        Cancel it when it is not needed any more.
        """
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        headers: dict[str, str] | None = None,
        reply: str = "",
    ) -> None:
        """Hand a message to the server, or refuse it here.

        Unlike `nc.publish`, nothing is kept for later while there is no server.

        Raises:
            NotConnectedError, PayloadTooLargeError.
        """
        size = len(payload)
        if headers:
            # "NATS/1.0", a blank line, and ": " and a line end for each.
            size += 12 + sum(len(key) + len(value.encode()) + 4 for key, value in headers.items())
        self._check(size)
        task = asyncio.current_task()
        cancelled = 0 if task is None else task.cancelling()
        await self.nc.publish(subject, payload, reply, headers)
        # While it waits for its buffer to empty, nats-py keeps a cancellation to itself.
        if task is not None and task.cancelling() > cancelled:
            raise asyncio.CancelledError

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        headers: dict[str, str] | None = None,
        timeout_s: float = 5.0,
    ) -> Msg:
        """Publish and wait for the one answer; ends early when the line breaks.

        Raises:
            NotConnectedError, PayloadTooLargeError, NoRespondersError: nothing has happened.
            DisconnectedError, RequestTimeoutError: the outcome is unknown.
        """
        answer: asyncio.Future[Msg] = self.awaited()

        def settle(_: int, msg: Msg) -> None:
            if not answer.done():
                answer.set_result(msg)

        token, reply = self.inbox.add(settle)
        try:
            async with asyncio.timeout(timeout_s):
                await self.publish(subject, payload, headers, reply)
                msg = await answer
        except TimeoutError:
            raise RequestTimeoutError(subject, timeout_s) from None
        finally:
            self.inbox.drop(token)
            answer.cancel()
        if status(msg) == NO_RESPONDERS:
            raise NoRespondersError(subject)
        return msg

    def ask(self, subject: str, payload: bytes, timeout_s: float) -> asyncio.Future[Msg]:
        """Do as `request`, but hand the question to the kernel before this returns.

        Who has more to do behind it so does that while the question is on its way. The future ends
        as `request` does; cancel it when the answer is not needed any more.

        Raises:
            NotConnectedError, PayloadTooLargeError: nothing has happened.
        """
        self._check(len(payload))
        answer = self.awaited()

        def settle(_: int, msg: Msg) -> None:
            if answer.done():
                return
            if status(msg) == NO_RESPONDERS:
                answer.set_exception(NoRespondersError(subject))
            else:
                answer.set_result(msg)

        def give_up() -> None:
            if not answer.done():
                answer.set_exception(RequestTimeoutError(subject, timeout_s))

        def forget(_: asyncio.Future[Msg]) -> None:
            self.inbox.drop(token)
            timer.cancel()

        token, reply = self.inbox.add(settle)
        timer = asyncio.get_running_loop().call_later(timeout_s, give_up)
        answer.add_done_callback(forget)
        self.nc.publish_at_once(subject, payload, reply)
        return answer

    def _check(self, size: int) -> None:
        if not self.nc.is_connected:
            raise NotConnectedError("no NATS server on the line")
        if size > self.nc.max_payload:
            raise PayloadTooLargeError(size, self.nc.max_payload)

    async def come_back(self) -> None:
        """Let go of the server and connect anew, by the credentials as their file has them now.

        Nothing happens where there is no line: then they are read at the next try.
        """
        await self.nc.force_reconnect()

    async def close(self) -> None:
        """Close for good; `Closed(None)` is reported."""
        self._closing = True
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self.nc.close()
        except TimeoutError:
            logger.warning("nats: closing took over %s s, given up", _CLOSE_TIMEOUT_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _report(self, state: State) -> None:
        if not isinstance(state, Connected):
            for future in self._waiting:
                if not future.done():
                    future.set_exception(DisconnectedError("the line broke before the answer"))
        for listener in tuple(self._listeners):
            listener(state)

    async def _on_disconnected(self) -> None:
        self._report(Disconnected())

    async def _on_reconnected(self) -> None:
        self.last_error = None
        self._report(Connected())

    async def _on_closed(self) -> None:
        error = self.nc.last_error
        self._report(Closed(None if self._closing else str(error or "closed by the server")))

    async def _on_error(self, error: Exception) -> None:
        if not (isinstance(error, OSError) and self.last_error):
            # The server's words say more than the hang-up that follows them.
            self.last_error = error
        transport: Any = self.nc._transport  # noqa: SLF001 - no public way to it
        if transport is not None and not self.nc.is_connected:
            # nats-py forgets the socket of a failed handshake without closing it.
            transport.close()
        lasting = isinstance(error, nats_errors.SlowConsumerError) or "ermission" in str(error)
        logger.log(logging.WARNING if lasting else logging.INFO, "nats: %r", error)
        if self.nc.stays and is_refusal(str(error)):
            self._report(Refused(str(error)))


def status(msg: Msg) -> str | None:
    """Return the status code that the server sent in place of a message; None for a message.

    A stored message may carry a header `Status` of its author's making; the server always adds
    its sequence to it.
    """
    headers = msg.headers
    return headers.get("Status") if headers and "Nats-Sequence" not in headers else None


async def connect(
    url: str,
    *,
    name: str,
    credentials: Path | None = None,
    ca: Path | None = None,
    inbox_prefix: str = "_INBOX",
    on_state: Listener | None = None,
    timeout_s: float | None = None,
    stays: bool = False,
) -> Connection:
    """Connect, and from then on reconnect forever with a random, growing pause.

    Args:
        url: one address, or several of one cluster separated by commas; where one begins with
            `tls://`, nothing is said without TLS.
        name: shown in the server's monitoring.
        credentials: file that the server lets us in by; see `connect_options`.
        ca: certificates of those who may vouch for the server; then nothing is said without TLS.
        inbox_prefix: where replies come; a restricted user has one of its own.
        on_state: told of every later change of state.
        timeout_s: bound on reaching a server the first time; None tries forever.
        stays: try on where the server refuses us, since the file of credentials may be replaced:
            `Refused` is reported, and not `Closed`.

    Raises:
        ConnectError: `timeout_s` went by.
        StrangerError: without a token of the server's we may not hear our own answers.
        CredentialsError: a file can't be used.
    """
    nc = HardenedClient()
    connection = Connection(nc, on_state, stays=stays)
    first_pause_s = _FIRST_CONNECT_PAUSE_S * (1 + random.random())  # noqa: S311 - jitter
    options: dict[str, Any] = {"reconnect_time_wait": first_pause_s}
    if credentials:
        options |= connect_options(credentials)
    if ca:
        options["tls"] = trusting(ca)
    elif any(part.strip().lower().startswith("tls://") for part in url.split(",")):
        # nats-py goes by what the server says alone: whoever stands before it could say no.
        options["tls"] = ssl.create_default_context()

    async def back_off(error: Exception) -> None:
        if ca:
            # There may be a new authority in it since, and this server have a certificate by that.
            with contextlib.suppress(OSError):  # ssl.SSLError is one
                options["tls"].load_verify_locations(cafile=str(ca))
        # nats-py paces its first connection by this option alone, without end.
        if not nc.is_connected and not hasattr(connection, "inbox"):
            pause_s = nc.options["reconnect_time_wait"]
            nc.options["reconnect_time_wait"] = min(_BACKOFF_MAX_S, 1.3 * pause_s)
        await connection._on_error(error)  # noqa: SLF001 - wired up here only

    connecting = nc.connect(
        [part.strip() for part in url.split(",")],
        name=name,
        inbox_prefix=inbox_prefix,
        error_cb=back_off,
        disconnected_cb=connection._on_disconnected,  # noqa: SLF001 - wired up here only
        reconnected_cb=connection._on_reconnected,  # noqa: SLF001
        closed_cb=connection._on_closed,  # noqa: SLF001
        max_reconnect_attempts=-1,
        reconnect_to_server_handler=_next_server,
        ping_interval=_PING_INTERVAL_S,
        max_outstanding_pings=_PINGS_OUTSTANDING_MAX,
        flush_timeout=_FLUSH_TIMEOUT_S,
        **options,
    )
    try:
        await _within(timeout_s, connecting)
    except TimeoutError:
        await connection.close()
        place = without_credentials(url)
        raise ConnectError(
            f"no NATS server at {place} within {timeout_s} s: {connection.last_error}"
        ) from None
    nc.options["reconnect_time_wait"] = first_pause_s
    connection.inbox = Inbox(nc)
    await connection.inbox.open()
    if nc._server_info.get("auth_required") and "user_credentials" not in options:  # noqa: SLF001
        await _check_known(connection, url)
    return connection


async def _check_known(connection: Connection, url: str) -> None:
    """Find out whether the server lets us hear answers: who has no token is a stranger there."""
    with contextlib.suppress(nats_errors.Error, TimeoutError):  # it will come back, or time is up
        await connection.nc.flush(_FLUSH_KNOWN_S)
    if "ermissions violation for subscription" in str(connection.last_error).lower():
        await connection.close()
        raise StrangerError(url)


async def _within(timeout_s: float | None, connecting: Coroutine[Any, Any, None]) -> None:
    """Wait for nats-py's `connect`, or end it.

    It may swallow a cancellation, where that comes while it closes a line, and then goes on for
    ever: so it is asked again.

    Raises:
        TimeoutError: time is up.
    """
    task = asyncio.create_task(connecting)
    try:
        await asyncio.wait((task,), timeout=timeout_s)
        if not task.done():
            raise TimeoutError
        task.result()
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=_CANCEL_AGAIN_S)
        if not task.cancelled():
            task.exception()  # it is told already, or too late


def _next_server(servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
    """Choose the server tried least, after a full-jitter exponential pause.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    server = min(servers, key=lambda candidate: candidate.reconnects)
    longest_s = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2 ** min(server.reconnects, 10))
    return server, random.uniform(0, longest_s)  # noqa: S311 - jitter
