"""The line to an MQTT server: by TLS, its faults are said, it comes back, and leaves a flood."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiomqtt import Client
from vouching_server import free_port

from broker.deployment import certificates
from lender.daemon import home_line
from lender.daemon.home_line import Access, HomeLine
from lender.daemon.home_settings import Place
from lender.link.embedded import EmbeddedServer

WITHIN_S = 30.0
AVAILABLE, STATE, COMMANDS = "lender/desk/available", "lender/desk/state", "lender/desk/set"
USERS = """
authorization { users = [
  { user: everybody, password: plug }
  { user: desk, password: d, permissions: {
    publish: ["lender.desk.>"]
    subscribe: ["lender.desk.set"]
  } }
] }
no_auth_user: everybody
"""


async def come_true(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110 - it is another process's
            await asyncio.sleep(0.02)


class Running:
    """A line, and what it heard."""

    def __init__(self, place: Place, folder: Path, ca: Path | None, *topics: str) -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self.state = b"one"
        credentials = folder / "mqtt"
        if not credentials.exists():
            credentials.write_text("desk:d\n")
            credentials.chmod(0o600)
        access = Access(place, credentials, ca, "lender-desk")
        self.line = HomeLine(access, AVAILABLE, [COMMANDS, *topics], self._hear, self._tell)

    def _hear(self, topic: str, payload: bytes, retained: bool) -> None:  # noqa: FBT001
        self.heard.append((topic, payload, retained))

    def _tell(self) -> Mapping[str, bytes]:
        return {STATE: self.state}


@asynccontextmanager
async def running(
    place: Place, folder: Path, *topics: str, ca: Path | None = None
) -> AsyncIterator[Running]:
    one = Running(place, folder, ca, *topics)
    task = asyncio.create_task(one.line.run())
    try:
        yield one
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def everybody(port: int) -> AsyncIterator[tuple[Client, dict[str, bytes]]]:
    """Another in the house, who sees everything."""
    seen: dict[str, bytes] = {}
    async with Client("127.0.0.1", port, username="everybody", password="plug") as client:
        await client.subscribe("#", 1)

        async def watch() -> None:
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                seen[str(message.topic)] = message.payload

        watching = asyncio.create_task(watch())
        try:
            yield client, seen
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


@asynccontextmanager
async def server(folder: Path, tls: str = "") -> AsyncIterator[tuple[EmbeddedServer, int]]:
    port = free_port()
    extra = f'mqtt {{ host: "127.0.0.1", port: {port}\n{tls} }}\n{USERS}'
    async with EmbeddedServer(folder / "server", extra_config=extra) as one:
        yield one, port


async def test_it_tells_hears_comes_back_and_says_goodbye(tmp_path: Path) -> None:
    async with server(tmp_path) as (house, port):
        place = Place("127.0.0.1", port, tls=False)
        async with running(place, tmp_path) as one:
            async with everybody(port) as (client, seen):
                await client.publish(COMMANDS, b"kept", qos=1, retain=True)
                await come_true(lambda: seen.get(AVAILABLE) == b"online")
                await come_true(lambda: seen.get(STATE) == b"one")
                one.state = b"two"
                one.line.nudge()
                await come_true(lambda: seen.get(STATE) == b"two")
                await client.publish(COMMANDS, b"live", qos=1)
                await come_true(lambda: (COMMANDS, b"live", False) in one.heard)
            house.kill()
            await come_true(lambda: not one.line.connected)
            one.heard.clear()
            await house.start()
            await come_true(lambda: one.line.connected)
            # What it had kept comes as such, so that nobody takes it for a command.
            await come_true(lambda: one.heard == [(COMMANDS, b"kept", True)])
            async with everybody(port) as (_, again):
                await come_true(lambda: again.get(AVAILABLE) == b"online")
                assert again[STATE] == b"two"
        async with everybody(port) as (_, after):
            await come_true(lambda: after.get(AVAILABLE) == b"offline")


async def test_a_flood_ends_the_line_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home_line, "FLOOD_MESSAGES", 20)
    async with (
        server(tmp_path) as (_, port),
        everybody(port) as (client, seen),
        running(Place("127.0.0.1", port, tls=False), tmp_path) as one,
    ):
        await come_true(lambda: seen.get(AVAILABLE) == b"online")
        for _ in range(40):
            await client.publish(COMMANDS, b"x" * 100)
        await come_true(lambda: "sends too much" in one.line.fault)
        await come_true(lambda: seen.get(AVAILABLE) == b"offline")
        assert not one.line.connected
        assert len(one.heard) <= 20


async def test_what_the_server_refuses_is_said(tmp_path: Path) -> None:
    async with server(tmp_path) as (_, port):
        place = Place("127.0.0.1", port, tls=False)
        async with running(place, tmp_path, "energy/price") as one:
            await come_true(lambda: "does not let us hear energy/price" in one.line.fault)
        (tmp_path / "mqtt").write_text("desk:wrong\n")
        async with running(place, tmp_path) as one:
            await come_true(lambda: "uthori" in one.line.fault)
        (tmp_path / "mqtt").chmod(0o644)
        async with running(place, tmp_path) as one:
            await come_true(lambda: "chmod 600" in one.line.fault)


# The library leaves the socket of a handshake that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
async def test_only_a_server_that_is_vouched_for_hears_the_password(tmp_path: Path) -> None:
    made = certificates.make("house", ["127.0.0.1"], time.time())
    other = certificates.make("house", ["127.0.0.1"], time.time())
    for name, text in (
        *(("ca.pem", made.authority), ("other.pem", other.authority)),
        *(("server.pem", made.server), ("server.key", made.server_key)),
    ):
        (tmp_path / name).write_text(text)
    tls = f'tls {{ cert_file: "{tmp_path}/server.pem", key_file: "{tmp_path}/server.key" }}'
    async with server(tmp_path, tls) as (_, port):
        place = Place("127.0.0.1", port, tls=True)
        async with running(place, tmp_path, ca=tmp_path / "other.pem") as one:
            await come_true(lambda: "certificate" in one.line.fault.lower())
            assert not one.line.connected
        async with running(place, tmp_path) as one:
            await come_true(lambda: "certificate" in one.line.fault.lower())
        async with running(place, tmp_path, ca=tmp_path / "ca.pem") as one:
            await come_true(lambda: one.line.connected)
    gc.collect()


async def test_a_server_that_talks_nonsense_or_nothing_ends_nothing(tmp_path: Path) -> None:
    came = 0

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        await reader.read(64)
        with_connack = b"\x20\x02\x00\x00" if came % 2 else b""
        writer.write(with_connack + b"\x30\xff\xff\xff\xff\xff" + b"\x90\x00" * 20)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, running(Place("127.0.0.1", port, tls=False), tmp_path) as one:
        await come_true(lambda: came >= 2)
        assert one.line.fault
        assert one.heard == []
