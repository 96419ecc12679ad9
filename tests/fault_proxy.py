"""A TCP proxy on the loopback that does to a line what networks do to it."""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable
from typing import Final, Literal, Self

Way = Literal["up", "down"]
"""up: from the client to the server."""

BOTH: Final[tuple[Way, Way]] = ("up", "down")

Doubled = Callable[[Way, str], bool]
"""Tells whether what goes this way under this NATS subject comes twice."""

_CHUNK_BYTES = 64 * 1024
_LAST_BYTES_S = 1.0
"""For what was sent before an end, should its reader not read."""
_WITH_PAYLOAD = (b"PUB", b"HPUB", b"MSG", b"HMSG")


class FaultProxy:
    """Passes everything on, until told otherwise; what is told holds until the next word.

    Every word takes effect at once, on the connections that stand and on new ones. One that has
    lost bytes is reset by the next word: it can't be made whole.

    Attributes:
        port: where clients connect to, on 127.0.0.1; the same for as long as it lives.
    """

    def __init__(
        self,
        target_port: int,
        chance: random.Random | None = None,
        doubled: Doubled | None = None,
    ) -> None:
        """Prepare.

        Args:
            target_port: of the server, on 127.0.0.1.
            chance: draws random delays.
            doubled: what of NATS' messages comes twice; None leaves the bytes alone.
        """
        self._target_port = target_port
        self._chance = chance or random.Random()
        self.doubled = doubled
        # Bound but not listening: it keeps the port while connections are refused.
        self._keeper = _bound(0)
        self.port: int = self._keeper.getsockname()[1]
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._lines: dict[asyncio.Task[None], _Line] = {}
        self._delay_s = self._jitter_s = 0.0
        self.swallowed: frozenset[Way] = frozenset()
        self.flows = {way: asyncio.Event() for way in BOTH}

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def lines(self) -> int:
        """Connections that stand, as the client sees it."""
        return len(self._lines)

    async def __aenter__(self) -> Self:
        self.pass_on()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def pass_on(self) -> None:
        """All is well again."""
        self._set()

    def delay(self, delay_s: float, jitter_s: float = 0.0) -> None:
        """Pass each piece on this much later, and by up to `jitter_s` more, in order."""
        self._set(delay_s=delay_s, jitter_s=jitter_s)

    def hold(self, *ways: Way) -> None:
        """Keep what goes these ways (both, if none is named) until the next word: no byte is lost.

        So does a network that is parted and then whole again, since TCP repeats what got lost.
        """
        self._set(held=ways or BOTH)

    def swallow(self, *ways: Way) -> None:
        """Half-open: accept, and lose what goes these ways (both, if none is named).

        Nobody is told, not even when one end closes.
        """
        self._set(swallowed=frozenset(ways or BOTH))

    def cut(self) -> None:
        """Reset every connection; new ones pass."""
        self._set()
        for line in tuple(self._lines.values()):
            line.cut()

    def refuse(self) -> None:
        """Reset every connection and refuse new ones."""
        self.cut()
        self._stop_listening()

    async def close(self) -> None:
        """Reset everything and end."""
        self.refuse()
        self._keeper.close()
        await asyncio.gather(*self._lines, return_exceptions=True)

    async def weather(self, way: Way) -> None:
        """Wait as long as a piece that goes this way has to."""
        delay_s = self._delay_s + self._chance.random() * self._jitter_s
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        await self.flows[way].wait()

    def _set(
        self,
        *,
        delay_s: float = 0.0,
        jitter_s: float = 0.0,
        held: tuple[Way, ...] = (),
        swallowed: frozenset[Way] = frozenset(),
    ) -> None:
        self._delay_s, self._jitter_s, self.swallowed = delay_s, jitter_s, swallowed
        for way, flows in self.flows.items():
            if way in held:
                flows.clear()
            else:
                flows.set()
        for line in tuple(self._lines.values()):
            if line.torn:
                line.cut()
        self._listen()

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = _bound(self.port)
            self._listener.listen(128)
            self._accepting = asyncio.create_task(self._accept(self._listener))

    def _stop_listening(self) -> None:
        if self._listener is not None and self._accepting is not None:
            self._accepting.cancel()
            # Now: the number of a closed one may be another's by the time the task hears of it.
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listener)
            line = _Line(self, client, self._target_port)
            task = asyncio.create_task(line.run())
            self._lines[task] = line
            task.add_done_callback(self._lines.pop)


class _Line:
    """One client's connection, and the one to the server that belongs to it.

    Attributes:
        torn: bytes, or an end, were swallowed.
    """

    def __init__(self, proxy: FaultProxy, client: socket.socket, target_port: int) -> None:
        self._proxy = proxy
        self._client = client
        self._target_port = target_port
        self._cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.torn = False

    def cut(self) -> None:
        """Reset both ends; `run` returns soon after."""
        if not self._cut.done():
            self._cut.set_result(None)

    async def run(self) -> None:
        """Pass on until one end closes or it is cut."""
        reader, writer = await asyncio.open_connection(sock=self._client)
        ends = [writer]
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self._target_port)
            ends.append(upstream[1])
            await self._pass(reader, upstream[1], upstream[0], writer)
        except OSError:  # the server is not there
            pass
        finally:
            for end in ends:
                await _reset(end)

    async def _pass(
        self,
        client: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
    ) -> None:
        pumps = [
            asyncio.ensure_future(self._pump("up", client, to_server)),
            asyncio.ensure_future(self._pump("down", server, to_client)),
        ]
        try:
            await asyncio.wait((*pumps, self._cut), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        if not self._cut.done():  # an end in good order: what was sent before it arrives
            for end in (to_server, to_client):
                end.close()

    async def _pump(
        self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        """Return when `source` has ended and its other side may know."""
        doubler = Doubler(way, self._proxy)
        while True:
            try:
                piece = await source.read(_CHUNK_BYTES)
            except OSError:
                piece = b""
            await self._proxy.weather(way)
            if way in self._proxy.swallowed:
                self.torn = True
                if not piece:
                    await asyncio.get_running_loop().create_future()  # until it is cut
                continue
            if not piece:
                return
            try:
                sink.write(doubler.take(piece))
                await sink.drain()
            except OSError:
                return


class Doubler:
    """Repeats whole messages of the NATS client protocol that go one way."""

    def __init__(self, way: Way, proxy: FaultProxy) -> None:
        """`proxy.doubled` says which; asked anew for each message."""
        self._way = way
        self._proxy = proxy
        self._rest = b""

    def take(self, piece: bytes) -> bytes:
        """Return what is to be sent now; a message that has not come whole waits for its rest."""
        if self._proxy.doubled is None:
            return piece
        self._rest += piece
        sent = bytearray()
        start = 0
        while (end := self._end_of_message(start)) is not None:
            message = self._rest[start:end]
            subject = _subject(message)
            twice = subject is not None and self._proxy.doubled(self._way, subject)
            sent += message * (2 if twice else 1)
            start = end
        self._rest = self._rest[start:]
        return bytes(sent)

    def _end_of_message(self, start: int) -> int | None:
        line_end = self._rest.find(b"\r\n", start)
        if line_end < 0:
            return None
        words = self._rest[start:line_end].split()
        end = line_end + 2
        if words and words[0] in _WITH_PAYLOAD:
            end += int(words[-1]) + 2
        return end if end <= len(self._rest) else None


def _subject(message: bytes) -> str | None:
    verb, _, rest = message.partition(b" ")
    return rest.split(maxsplit=1)[0].decode(errors="replace") if verb in _WITH_PAYLOAD else None


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock


async def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset where the connection still stands (socket(7), SO_LINGER of zero)."""
    if writer.is_closing():
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_LAST_BYTES_S):
                await writer.wait_closed()
    else:
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
