"""The fault proxy: what each of its words does to both ends of a line."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fault_proxy import FaultProxy
from nats_server import until

GREETING = b"hello\n"


class Server:
    """Greets, keeps what it hears, and says what it is told to say."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.clients: list[asyncio.StreamWriter] = []
        self.ended = 0
        self._server: asyncio.Server

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients.append(writer)
        writer.write(GREETING)
        try:
            while piece := await reader.read(4096):
                self.heard += piece
        except ConnectionResetError:
            pass
        finally:
            self.ended += 1
            writer.transport.abort()

    async def close(self) -> None:
        for writer in self.clients:
            writer.transport.abort()
        await until(lambda: self.ended == len(self.clients))
        self._server.close()
        await self._server.wait_closed()


class Caller:
    """A client's end of one line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, words: bytes) -> None:
        self.writer.write(words)

    async def hears(self, words: bytes = GREETING) -> None:
        async with asyncio.timeout(5):
            assert await self.reader.readexactly(len(words)) == words

    async def hears_nothing(self, for_s: float = 0.1) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(for_s):
                await self.reader.read(1)

    async def is_reset(self) -> None:
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(5):
                await self.reader.read(1)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    running = Server()
    await running.start()
    yield running
    await running.close()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[FaultProxy]:
    before = len(asyncio.all_tasks())
    async with FaultProxy(server.port) as passing:
        yield passing
        await passing.close()
        assert passing.lines == 0
    # The server's own tasks end a moment later, by themselves.
    await until(lambda: len(asyncio.all_tasks()) <= before)


@pytest.fixture
async def caller(proxy: FaultProxy) -> AsyncIterator[Caller]:
    calling = await call(proxy)
    yield calling
    calling.writer.transport.abort()


async def call(proxy: FaultProxy) -> Caller:
    return Caller(*await asyncio.open_connection("127.0.0.1", proxy.port))


async def test_it_passes_everything_on_and_the_end_too(server: Server, caller: Caller) -> None:
    await caller.hears()
    caller.say(b"x" * 1_000_000)
    caller.writer.write_eof()
    await until(lambda: server.ended == 1)
    assert server.heard == b"x" * 1_000_000


async def test_the_servers_last_words_arrive_before_its_end(server: Server, caller: Caller) -> None:
    await caller.hears()
    server.clients[0].write(b"bye")
    server.clients[0].close()
    assert await caller.reader.read() == b"bye"


async def test_a_delay_keeps_the_order(server: Server, proxy: FaultProxy, caller: Caller) -> None:
    await caller.hears()
    proxy.delay(0.05, jitter_s=0.05)
    begun = asyncio.get_running_loop().time()
    for number in range(5):
        caller.say(b"%d" % number)
        await caller.writer.drain()
        await asyncio.sleep(0.01)
    await until(lambda: len(server.heard) == 5)
    assert server.heard == b"01234"
    assert asyncio.get_running_loop().time() - begun >= 0.05


async def test_what_is_held_comes_later_and_whole(
    server: Server, proxy: FaultProxy, caller: Caller
) -> None:
    await caller.hears()
    proxy.hold("up")
    caller.say(b"one ")
    server.clients[0].write(b"meanwhile")
    await caller.hears(b"meanwhile")
    caller.say(b"two")
    assert server.heard == b""
    proxy.pass_on()
    await until(lambda: server.heard == b"one two")
    assert server.ended == 0


async def test_a_cut_resets_both_ends_and_lets_new_ones_pass(
    server: Server, proxy: FaultProxy, caller: Caller
) -> None:
    await caller.hears()
    proxy.cut()
    await caller.is_reset()
    await until(lambda: server.ended == 1)
    again = await call(proxy)
    await again.hears()
    again.writer.transport.abort()


async def test_what_is_refused_passes_again_on_the_same_port(
    proxy: FaultProxy, caller: Caller
) -> None:
    await caller.hears()
    proxy.refuse()
    await caller.is_reset()
    with pytest.raises(ConnectionRefusedError):
        await call(proxy)
    proxy.pass_on()
    again = await call(proxy)
    await again.hears()
    again.writer.transport.abort()


async def test_a_server_that_is_gone_resets_its_clients(server: Server, proxy: FaultProxy) -> None:
    server._server.close()
    caller = await call(proxy)
    await caller.is_reset()


async def test_half_open_upwards_loses_words_and_tells_nobody(
    server: Server, proxy: FaultProxy, caller: Caller
) -> None:
    await caller.hears()
    proxy.swallow("up")
    caller.say(b"lost")
    server.clients[0].write(b"meanwhile")
    await caller.hears(b"meanwhile")
    await caller.hears_nothing()
    assert not server.heard
    assert server.ended == 0
    proxy.pass_on()
    await caller.is_reset()  # a line with a hole in it is no line
    await until(lambda: server.ended == 1)
    assert server.heard == b""


async def test_half_open_downwards_keeps_the_end_from_the_client(
    server: Server, proxy: FaultProxy, caller: Caller
) -> None:
    await caller.hears()
    proxy.swallow("down")
    caller.say(b"heard")
    await until(lambda: server.heard == b"heard")
    server.clients[0].close()
    await until(lambda: server.ended == 1)
    await caller.hears_nothing()
    proxy.pass_on()
    await caller.is_reset()


async def test_half_open_takes_new_connections_and_leaves_them_alone(
    proxy: FaultProxy,
) -> None:
    proxy.swallow()
    caller = await call(proxy)
    await caller.hears_nothing()
    proxy.pass_on()
    await caller.is_reset()


@pytest.mark.parametrize("step", [1, 3, 1000])
async def test_it_doubles_whole_messages_however_they_are_cut(server: Server, step: int) -> None:
    sent = (
        b'CONNECT {"verbose":false}\r\nSUB a 1\r\nPUB done.L _INBOX.1 4\r\nP\r\nB\r\n'
        b"PUB other 2\r\nhi\r\nHPUB done.L 12 14\r\nNATS/1.0\r\n\r\nxy\r\nPING\r\n"
    )
    frames = (
        b"PUB done.L _INBOX.1 4\r\nP\r\nB\r\n",
        b"HPUB done.L 12 14\r\nNATS/1.0\r\n\r\nxy\r\n",
    )
    expected = sent
    for frame in frames:
        expected = expected.replace(frame, frame * 2)
    wanted = {("up", "done.L")}
    async with FaultProxy(server.port, doubled=lambda *of: of in wanted) as proxy:
        caller = await call(proxy)
        await asyncio.sleep(0)
        for start in range(0, len(sent), step):
            caller.say(sent[start : start + step])
            await caller.writer.drain()
        await until(lambda: len(server.heard) >= len(expected))
        assert server.heard == expected
        caller.writer.transport.abort()
