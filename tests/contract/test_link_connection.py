"""The connection: comes back, says so, never hangs on a broken line, never gets itself closed."""

import asyncio
import os
import signal
from pathlib import Path

import nkeys
import pytest
from nats.aio.msg import Msg
from nats_server import until

from lender.link.connection import (
    Closed,
    Connected,
    ConnectError,
    Connection,
    Disconnected,
    Refused,
    State,
    connect,
)
from lender.link.embedded import EmbeddedServer
from lender.link.errors import (
    DisconnectedError,
    NoRespondersError,
    NotConnectedError,
    PayloadTooLargeError,
    RequestTimeoutError,
)
from lender.link.hardened import HardenedClient


class States:
    """Collects reported states and lets a test wait for one."""

    def __init__(self) -> None:
        self.seen: list[State] = []
        self._changed = asyncio.Event()

    def __call__(self, state: State) -> None:
        self.seen.append(state)
        self._changed.set()

    async def until(self, *kinds: type[State]) -> State:
        async with asyncio.timeout(10):
            while not (self.seen and isinstance(self.seen[-1], kinds)):
                self._changed.clear()
                await self._changed.wait()
        return self.seen[-1]


async def echo(connection: Connection) -> None:
    async def answer(msg: Msg) -> None:
        await connection.nc.publish(msg.reply, msg.data)

    await connection.nc.subscribe("echo", cb=answer)
    await connection.nc.flush()


async def test_requests_work_again_after_a_crash_of_the_server(nats: EmbeddedServer) -> None:
    states = States()
    async with await connect(nats.url, name="t", on_state=states, timeout_s=5) as connection:
        await echo(connection)
        nats.kill()
        await states.until(Disconnected)
        assert not connection.connected
        with pytest.raises(NotConnectedError):
            await connection.request("echo", b"1")
        await nats.start()
        await states.until(Connected)
        assert (await connection.request("echo", b"2")).data == b"2"
    assert states.seen == [Disconnected(), Connected(), Disconnected(), Closed(None)]


async def test_a_request_in_flight_ends_when_the_line_breaks(
    nats: EmbeddedServer, connection: Connection
) -> None:
    await connection.nc.subscribe("mute")
    request = asyncio.create_task(connection.request("mute", timeout_s=30))
    await connection.nc.flush()
    nats.kill()
    with pytest.raises(DisconnectedError):
        async with asyncio.timeout(5):
            await request


async def test_each_end_of_a_request_has_its_own_error(connection: Connection) -> None:
    with pytest.raises(NoRespondersError):
        await connection.request("nobody")
    await connection.nc.subscribe("mute")
    with pytest.raises(RequestTimeoutError):
        await connection.request("mute", timeout_s=0.05)


async def test_a_message_too_large_is_refused_here_and_the_line_stays(
    connection: Connection,
) -> None:
    most = connection.nc.max_payload
    await echo(connection)
    with pytest.raises(PayloadTooLargeError):
        await connection.publish("x", bytes(most + 1))
    # nats-py counts the payload alone; the server counts the headers too and would hang up.
    headers = {"Name": "välue"}
    size = len(b"NATS/1.0\r\nName: \r\n\r\n") + len("välue".encode())
    with pytest.raises(PayloadTooLargeError):
        await connection.publish("x", bytes(most - size + 1), headers)
    await connection.publish("x", bytes(most - size), headers)
    assert (await connection.request("echo", b"up")).data == b"up"


async def test_connecting_is_bounded_and_names_the_last_error(nats: EmbeddedServer) -> None:
    nats.kill()
    with pytest.raises(ConnectError, match=r"within 0\.3 s.*Connect call failed"):
        await connect(nats.url, name="t", timeout_s=0.3)


async def test_connecting_waits_for_a_server_that_comes_later(nats: EmbeddedServer) -> None:
    nats.kill()
    late = asyncio.create_task(connect(nats.url, name="t", timeout_s=20))
    await asyncio.sleep(0.05)
    await nats.start()
    async with await late as connection:
        await echo(connection)
        assert (await connection.request("echo", b"x")).data == b"x"


def _seed(path: Path, first: int) -> tuple[Path, str]:
    seed = nkeys.encode_seed(bytes([first]) * 32, nkeys.PREFIX_BYTE_USER)
    path.write_bytes(seed)
    path.chmod(0o600)
    return path, nkeys.from_seed(bytearray(seed)).public_key.decode()


async def test_an_nkey_opens_the_door_until_it_is_revoked(tmp_path: Path) -> None:
    seed, public = _seed(tmp_path / "seed", 1)
    _, other = _seed(tmp_path / "other", 2)
    users = "authorization {{ users: [ {{ nkey: {} }} ] }}"
    server = EmbeddedServer(tmp_path / "nats", extra_config=users.format(public))
    states = States()
    async with server:
        connection = await connect(
            server.url,
            name="t",
            credentials=seed,
            inbox_prefix="_INBOX_me",
            on_state=states,
            timeout_s=5,
        )
        assert connection.inbox.subject.startswith("_INBOX_me.")
        config = server.folder / "nats.conf"
        config.write_text(config.read_text().replace(public, other))
        assert server.pid is not None
        os.kill(server.pid, signal.SIGHUP)
        await states.until(Disconnected, Closed)
        with pytest.raises(NotConnectedError):
            await connection.request("x")
        with pytest.raises(ConnectError, match=r"uthorization|reset by peer"):
            await connect(server.url, name="t", credentials=seed, timeout_s=0.5)
        await connection.close()


async def test_the_time_to_connect_ends_though_nats_py_swallows_its_cancellation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    swallowed = 0

    async def tries_for_ever(*_: object, **__: object) -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:  # as nats-py does while it closes a line
                swallowed += 1
                if swallowed == 3:
                    raise

    monkeypatch.setattr(HardenedClient, "_select_next_server", tries_for_ever)
    with pytest.raises(ConnectError):
        await connect("nats://127.0.0.1:1", name="t", timeout_s=0.05)
    assert swallowed == 3


async def test_a_watcher_is_told_until_it_unwatches(
    nats: EmbeddedServer, connection: Connection
) -> None:
    states = States()
    unwatch = connection.watch(states)
    nats.kill()
    await states.until(Disconnected)
    unwatch()
    await nats.start()
    await until(lambda: connection.connected)
    assert states.seen == [Disconnected()]


async def test_a_line_that_the_server_closed_for_good_is_reported_with_its_words(
    nats: EmbeddedServer,
) -> None:
    states = States()
    connection = await connect(nats.url, name="t", on_state=states, timeout_s=5)
    await connection.nc._send_command(b"GIBBERISH\r\n")
    await connection.nc._flush_pending()
    closed = await states.until(Closed)
    assert isinstance(closed, Closed)
    assert "unknown protocol" in str(closed.reason)
    with pytest.raises(NotConnectedError):
        await connection.request("x")
    await connection.close()


async def test_whatever_a_server_complains_of_who_is_to_stay_comes_back(
    nats: EmbeddedServer,
) -> None:
    # One such word, of a server that lies or has its own trouble, ended lenderd and what ran there.
    states = States()
    async with await connect(
        nats.url, name="t", on_state=states, timeout_s=5, stays=True
    ) as connection:
        await connection.nc._send_command(b"GIBBERISH\r\n")
        await connection.nc._flush_pending()
        await states.until(Connected)
        assert not any(isinstance(one, Closed | Refused) for one in states.seen)
        with pytest.raises(NoRespondersError):
            await connection.request("x")


async def test_a_servers_words_are_told_short_and_steer_nothing() -> None:
    states = States()
    word = b"-ERR 'authentication \x1b]0;mine\x07 " + b"x" * 100_000 + b"'\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"S","version":"2.12.0","headers":true}\r\n')
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
            elif line.startswith(b"SUB"):
                writer.write(word)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        one = await connect(url, name="t", on_state=states, timeout_s=10, stays=True)
        async with one:
            await until(lambda: any(isinstance(x, Refused) for x in states.seen))
    refused = next(x for x in states.seen if isinstance(x, Refused))
    assert "\\x1b]0;mine\\x07" in refused.reason
    assert len(refused.reason) < 400


async def test_a_flush_that_was_answered_means_that_what_was_sent_before_has_come() -> None:
    came: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"S","version":"2.12.0","headers":true}\r\n')
        while line := await reader.readline():
            came.append(line.split()[0])
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with await connect(f"nats://127.0.0.1:{port}", name="one", timeout_s=10) as one:
            await one.nc.flush()
            came.clear()
            await one.nc.subscribe("first")
            await one.nc.subscribe("second")
            await one.nc.flush()
            assert came == [b"SUB", b"SUB", b"PING"]
