"""The owner's way into lenderd: JSON lines over a Unix socket, with the peer's credentials.

A request is one line `{"v": 1, "verb": "status", ...}`; the answer one line, `{"ok": true, ...}`
or `{"ok": false, "error": {"code": ..., "message": ...}}`. Codes: malformed, too_long,
unknown_verb, not_permitted, too_many_clients, failed. A connection may ask one after another.

Anyone local may connect (the socket has mode 0666 in a folder of mode 0711 whose other contents
are private) and use the verbs in `OPEN_VERBS`; all others are for the owner (the uid of the state
folder) and root. A request that was sent is carried out even if its sender does not wait.

What the handlers return is merged into `{"ok": true}`:

- `status`: what `lender status --json` prints: see `status_view`, and `owner` for the rest. Times
  are seconds since the epoch.
- `pause` (from the owner also `intent`: {`paused_at`, `until`, `finish_by`}): carries the intent
  out, writes it durably unless it stands there already, verifies: `report`: {`verified`,
  `processes`, `jobs`, `duration_s`}.
- `resume`, `reload`: re-read consent and intent and carry out what follows, kills included, before
  they answer: nothing more.
- `presence`: what a session's agent says of its user, see `agent_reports`: nothing more.
- `head`: what was last published of the log of receipts, see `receipt_head`.
"""

import asyncio
import inspect
import json
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from lender.daemon.peer import Peer, peer_of
from lender.daemon.socket_address import address_of

LINE_BYTES_MAX = 64 * 1024
CLIENTS_PER_UID_MAX = 32
IDLE_S_MAX = 30.0
"""A client that sends no line, or does not read its answer, for so long is cut off."""

OPEN_VERBS = frozenset({"status", "pause", "presence"})

_log = logging.getLogger(__name__)


class MalformedError(Exception):
    """A handler can't make sense of the request; the message says of what."""


Handler = Callable[[dict[str, Any], Peer], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]


class ControlServer:
    """Serves `handlers` at a socket path, for one daemon.

    Args:
        path: of any length; a leftover of a daemon that died is replaced.
        handlers: verb to callable(request, peer), plain or async, that returns the answer's
            fields. What it raises is logged, and answered as `failed`.
        owner_uid: who may use every verb, besides root.
    """

    def __init__(self, path: Path, handlers: Mapping[str, Handler], owner_uid: int) -> None:
        self._path = path
        self._handlers = handlers
        self._owner_uid = owner_uid
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._clients: Counter[int] = Counter()

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the path can't be bound.
        """
        self._server = await asyncio.start_unix_server(
            self._serve, sock=_listening(self._path), limit=LINE_BYTES_MAX
        )

    async def close(self) -> None:
        """Stop listening, cut off every client, remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        peer = None
        try:
            peer = peer_of(writer.get_extra_info("socket"))
            self._clients[peer.uid] += 1
            if self._clients[peer.uid] > CLIENTS_PER_UID_MAX:
                await _send(writer, _error("too_many_clients", "too many open connections"))
            else:
                await self._answer_lines(reader, writer, peer)
        except (OSError, TimeoutError):
            pass  # the client went away, or is too slow
        finally:
            self._connections.discard(task)
            if peer is not None:
                self._clients[peer.uid] -= 1
                self._clients += Counter()  # drops the uids without a client
            # What was answered has left our buffer, see `_send`; there is nothing to wait for.
            writer.transport.abort()

    async def _answer_lines(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer
    ) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_S_MAX):
                    line = await reader.readline()
            except ValueError:
                message = f"a request has at most {LINE_BYTES_MAX} bytes"
                await _send(writer, _error("too_long", message))
                return
            if not line:
                return
            await _send(writer, await self._answer(line, peer))

    async def _answer(self, line: bytes, peer: Peer) -> bytes:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return _error("malformed", "not a line of JSON")
        if not isinstance(request, dict) or request.get("v") != 1:
            return _error("malformed", 'not an object with "v": 1')
        verb = request.get("verb")
        if not isinstance(verb, str) or (handler := self._handlers.get(verb)) is None:
            return _error("unknown_verb", f"known: {', '.join(sorted(self._handlers))}")
        if verb not in OPEN_VERBS and peer.uid not in (0, self._owner_uid):
            return _error("not_permitted", f"only the owner (uid {self._owner_uid}) may {verb}")
        return await self._carry_out(verb, handler, request, peer)

    async def _carry_out(
        self, verb: str, handler: Handler, request: dict[str, Any], peer: Peer
    ) -> bytes:
        try:
            answer = handler(request, peer)
            fields = await answer if inspect.isawaitable(answer) else answer
            return _encode({"ok": True, **fields})
        except MalformedError as error:
            return _error("malformed", str(error))
        except Exception:  # noqa: BLE001  # a fault of one verb must not end the others
            _log.exception("control verb %s failed", verb)
            return _error("failed", f"lenderd could not {verb}: its log says why")


def _listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        with address_of(path) as address:
            listener.bind(address)
        path.chmod(0o666)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


async def _send(writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.transport.set_write_buffer_limits(high=0)  # so that `drain` waits for all of it
    writer.write(line)
    async with asyncio.timeout(IDLE_S_MAX):
        await writer.drain()


def _encode(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def _error(code: str, message: str) -> bytes:
    return _encode({"ok": False, "error": {"code": code, "message": message}})
