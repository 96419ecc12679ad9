"""The JetStream API calls that we need, as JSON requests."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from nats.aio.msg import Msg

from lender.link.connection import NO_RESPONDERS, Connection, status
from lender.link.errors import (
    JetStreamError,
    NoRespondersError,
    RequestTimeoutError,
    StrangeAnswerError,
)
from lender.link.message import StoredMessage

STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014

_STREAM_NAME_IN_USE = 10058
# A sequence that was deleted, and one that never was.
_NO_MESSAGE = (10043, 10057)
_NO_MESSAGE_FOUND = 10037
_NOT_AS_TOLD = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
_END_OF_BATCH = "204"
_NOT_FOUND = "404"


class StreamState(NamedTuple):
    """How far a stream has come; an empty stream's `first_sequence` is its last plus one."""

    messages: int
    bytes: int
    first_sequence: int
    last_sequence: int


class ConsumerState(NamedTuple):
    """A consumer, and how many messages it has yet to deliver."""

    name: str
    num_pending: int


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of a stream: `num_pending` more messages that match come after it."""

    messages: list[StoredMessage]
    num_pending: int


class JetStream:
    """JetStream's API over a connection.

    Every method raises, besides what it names: JetStreamError (the server's refusal),
    NotConnectedError and NoRespondersError (nothing has happened; the latter also when JetStream
    is not enabled or a stream has no direct access), DisconnectedError and RequestTimeoutError
    (outcome unknown; every call here may simply be repeated).
    """

    def __init__(self, connection: Connection, timeout_s: float = 5.0) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    async def call(self, api: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask `$JS.API.<api>`; returns the answer."""
        payload = json.dumps(request).encode() if request is not None else b""
        msg = await self._connection.request(f"$JS.API.{api}", payload, timeout_s=self._timeout_s)
        return answer(msg)

    async def ensure_stream(self, config: dict[str, Any]) -> StreamState:
        """Create the stream, or bring an existing one to this configuration."""
        name = config["name"]
        try:
            info = await self.call(f"STREAM.CREATE.{name}", config)
        except JetStreamError as error:
            if error.err_code != _STREAM_NAME_IN_USE:
                raise
            info = await self.call(f"STREAM.UPDATE.{name}", config)
        return _stream_state(info)

    async def stream_state(self, stream: str) -> StreamState:
        """Return where the stream is now."""
        return _stream_state(await self.call(f"STREAM.INFO.{stream}"))

    async def purge(self, stream: str, subject: str) -> int:
        """Remove every message on the subject (wildcards allowed); returns how many."""
        purged = await self.call(f"STREAM.PURGE.{stream}", {"filter": subject})
        return number(purged, "purged")

    async def delete_message(self, stream: str, sequence: int) -> bool:
        """Remove one message; False when it was gone already."""
        request = {"seq": sequence, "no_erase": True}
        try:
            await self.call(f"STREAM.MSG.DELETE.{stream}", request)
        except JetStreamError as error:
            if error.err_code not in _NO_MESSAGE:
                raise
            return False
        return True

    async def ensure_consumer(self, stream: str, config: dict[str, Any]) -> ConsumerState:
        """Create the consumer, or bring an existing one to this configuration.

        `config` has a `durable_name`, or a `name` for an ephemeral one.
        """
        name = config.get("durable_name") or config["name"]
        request = {"stream_name": stream, "config": {"name": name, **config}}
        info = await self.call(f"CONSUMER.CREATE.{stream}.{name}", request)
        return ConsumerState(name, number(info, "num_pending"))

    async def delete_consumer(self, stream: str, consumer: str) -> bool:
        """Remove a consumer; False when there was none."""
        try:
            await self.call(f"CONSUMER.DELETE.{stream}.{consumer}")
        except JetStreamError as error:
            if error.err_code != CONSUMER_NOT_FOUND:
                raise
            return False
        return True

    async def get_last(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the last message on a subject, by direct access; None when there is none."""
        msg = await self._connection.request(
            f"$JS.API.DIRECT.GET.{stream}.{subject}", timeout_s=self._timeout_s
        )
        return None if _absent(msg) else _stored(msg)

    async def next_sequence(self, stream: str, sequence: int, subject: str = ">") -> int | None:
        """Return the sequence of the first message on `subject` from `sequence` on.

        The stream's leader answers, which has all that was acknowledged; a replica that answers
        by direct access, or serves a consumer, may be behind. None when there is no such message.
        """
        request = {"seq": sequence, "next_by_subj": subject}
        try:
            found = await self.call(f"STREAM.MSG.GET.{stream}", request)
        except JetStreamError as error:
            if error.err_code != _NO_MESSAGE_FOUND:
                raise
            return None
        return number(found, "message", "seq")

    async def get_page(
        self,
        stream: str,
        sequence: int,
        count: int,
        *,
        subject: str = ">",
        max_bytes: int | None = None,
    ) -> Page:
        """Return up to `count` messages on `subject` from `sequence` on, by direct access.

        A page of several subjects must not be mistaken for a snapshot: others may write
        meanwhile. `max_bytes` ends a page early, though never before its first message.
        """
        request: dict[str, Any] = {"seq": sequence, "batch": count, "next_by_subj": subject}
        if max_bytes is not None:
            request["max_bytes"] = max_bytes
        done = self._connection.awaited()
        messages: list[StoredMessage] = []

        def receive(_: int, msg: Msg) -> None:
            if done.done():
                return
            try:
                if status(msg) is None:
                    messages.append(_stored(msg))
                else:
                    done.set_result(msg)
            except StrangeAnswerError as error:
                done.set_exception(error)

        api = f"$JS.API.DIRECT.GET.{stream}"
        token, reply = self._connection.inbox.add(receive)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._connection.publish(api, json.dumps(request).encode(), reply=reply)
                end = await done
        except TimeoutError:
            raise RequestTimeoutError(api, self._timeout_s) from None
        finally:
            self._connection.inbox.drop(token)
            done.cancel()
        return Page(messages, _pending_after(end, api))


def answer(msg: Msg) -> dict[str, Any]:
    """Read a JSON answer of JetStream.

    Raises:
        JetStreamError: it is a refusal.
        StrangeAnswerError: it is no answer of JetStream's.
    """
    try:
        body: dict[str, Any] = json.loads(msg.data)
        error = body.get("error")
        if error is None:
            return body
        refusal = JetStreamError(
            int(error.get("code", 0)),
            int(error.get("err_code", 0)),
            str(error.get("description", "")),
        )
    except _NOT_AS_TOLD as fault:
        raise StrangeAnswerError(f"answer {msg.data[:200]!r}") from fault
    raise refusal


def number(body: dict[str, Any], *names: str) -> int:
    """Return a whole number of an answer, by the names that lead to it.

    Raises:
        StrangeAnswerError: there is none.
    """
    found: Any = body
    try:
        for name in names:
            found = found[name]
        return int(found)
    except _NOT_AS_TOLD as fault:
        raise StrangeAnswerError(f"answer without {'.'.join(names)}") from fault


def _pending_after(end: Msg, api: str) -> int:
    code, headers = status(end), end.headers or {}
    if code == _END_OF_BATCH:
        return _number_in(headers, "Nats-Num-Pending")
    if code == _NOT_FOUND:
        return 0
    if code == NO_RESPONDERS:
        raise NoRespondersError(api)
    raise JetStreamError(_number_in(headers, "Status"), 0, headers.get("Description", ""))


def _absent(msg: Msg) -> bool:
    code = status(msg)
    if code is None or code == _NOT_FOUND:
        return code is not None
    headers = msg.headers or {}
    raise JetStreamError(_number_in(headers, "Status"), 0, headers.get("Description", ""))


def _stored(msg: Msg) -> StoredMessage:
    headers: dict[str, str] = msg.headers or {}
    subject = headers.get("Nats-Subject")
    if subject is None:
        raise StrangeAnswerError("message without a subject")
    return StoredMessage(subject, _number_in(headers, "Nats-Sequence"), msg.data, headers)


def _stream_state(info: dict[str, Any]) -> StreamState:
    names = ("messages", "bytes", "first_seq", "last_seq")
    return StreamState(*(number(info, "state", name) for name in names))


def _number_in(headers: dict[str, str], name: str) -> int:
    try:
        return int(headers[name])
    except (KeyError, ValueError) as fault:
        raise StrangeAnswerError(f"message without {name}") from fault
