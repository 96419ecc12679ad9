"""What the shipped server of a house lets each device do: its own topics, and no others."""

import asyncio
import socket
import struct
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiomqtt import MqttError
from house_server import SHIPPED, WITHIN_S, WITNESS, HouseServer, machine, seeing

from lender.link.connection import ConnectError, connect
from permissions.house import PUBLISHES, SUBSCRIBES, subscribes, taken

SET, STATE, PRICE = "lender/desk/set", "lender/desk/state", "energy/price"
DISCOVERY = "homeassistant/device/lender_desk/config"
HALVES = (
    '{ user: bare, password: "of bare" }',
    '{ user: muted, password: "of muted", permissions: { subscribe: [x] } }',
)


@pytest.fixture
def server(tmp_path: Path) -> HouseServer:
    return HouseServer(tmp_path, WITNESS, machine("attic", [PRICE]), *HALVES)


async def test_lenderd_may_do_what_the_table_says(server: HouseServer) -> None:
    checked = server.check()
    assert checked.returncode == 0, checked.stderr
    async with server:
        published, subscribed = await taken(server)
        assert published == {*PUBLISHES}
        assert subscribed == {*SUBSCRIBES}
        # By NATS's own protocol, which knows more subjects, the user is not let in at all.
        credentials = server.credentials("desk")
        with pytest.raises(ConnectError, match="uthoriz"):
            await connect(server.nats_url, name="x", credentials=credentials, timeout_s=2)


def test_no_shipped_user_comes_by_another_way_or_lacks_a_half() -> None:
    users = SHIPPED.read_text().split("user: ")[1:]
    assert len(users) == 3
    for user in users:
        assert 'allowed_connection_types: ["MQTT"]' in user
        assert "publish: [" in user
        assert "subscribe: [" in user or 'subscribe: { deny: ">" }' in user


async def test_what_is_shipped_is_for_nobody_else(server: HouseServer) -> None:
    """No other device commands this machine, reads it, or shows itself as it."""
    async with server, AsyncExitStack() as stack:
        witness = await stack.enter_async_context(server.client("witness"))
        seen = await stack.enter_async_context(seeing(witness, "#"))
        desk = await stack.enter_async_context(server.client("desk", identifier="lender-desk-7f"))
        heard = await stack.enter_async_context(seeing(desk, SET))
        await desk.publish(STATE, b"at the machine", qos=1, retain=True)
        for user in ("attic", "meter", "bare"):
            async with server.client(user) as other:
                for topic in (STATE, SET, "lender/+/state", "lender/#", "#", DISCOVERY):
                    assert not await subscribes(other, topic), (user, topic)
                for topic in (SET, STATE, DISCOVERY, "$MQTT/sub/x", "$JS/API/INFO"):
                    await other.publish(topic, b"a stranger's", retain=False)
                    await other.publish(topic, b"a stranger's", retain=True)
                await other.publish(SET, b"a stranger's", qos=1, retain=True)
            # Nor by what is said of it once it is gone, nor by a session that outlives it.
            await asyncio.to_thread(vanish, server, user)
        async with server.client("homeassistant") as home:
            await home.publish(SET, b"signed", qos=1)
            await come(heard, (SET, b"signed", False))
            for topic in ("homeassistant/#", "homeassistant/+/+/config", "lender/+/state"):
                assert await subscribes(home, topic), topic
            for topic in ("#", "lender/#", "lender/+/set"):
                assert not await subscribes(home, topic), topic
        assert [said for said in seen if said[1] not in (b"signed", b"at the machine")] == []
        assert heard == [(SET, b"signed", False)]
        # What nobody could say is not kept for those who come later either.
        async with server.client("witness") as late, seeing(late, "#") as kept:
            await late.publish("the/end", b"")
            await come(kept, ("the/end", b"", False))
            assert kept == [(STATE, b"at the machine", True), ("the/end", b"", False)]


async def test_nobody_comes_in_without_password_or_tls_or_with_too_much(
    server: HouseServer,
) -> None:
    async with server:
        for wrong in (
            {"password": "x"},
            {"username": None, "password": None},
            {"tls_context": None},
        ):
            with pytest.raises(MqttError):
                async with server.client("desk", timeout=1, **wrong):
                    pass
        async with server.client("witness") as witness, seeing(witness, "#") as seen:
            async with server.client("meter") as meter:
                await meter.publish(PRICE, b"0.2", qos=1)
                with pytest.raises(MqttError):
                    await meter.publish(PRICE, b"9" * 100_000, qos=1, timeout=1)
            async with server.client("meter") as meter:
                await meter.publish(PRICE, b"0.3", qos=1)
            await come(seen, (PRICE, b"0.3", False))
        assert [said[1] for said in seen] == [b"0.2", b"0.3"]


async def test_why_each_user_has_both_halves(server: HouseServer) -> None:
    """As the page says: where one is left out, a user may do all of it."""
    async with server, server.client("witness") as witness, seeing(witness, "#") as seen:
        async with server.client("muted") as muted:
            assert not await subscribes(muted, "y")
            await muted.publish("y", b"said", qos=1)
        await come(seen, ("y", b"said", False))


async def come(seen: list[tuple[str, bytes, bool]], message: tuple[str, bytes, bool]) -> None:
    """Wait for a message, with a bound."""
    async with asyncio.timeout(WITHIN_S):
        while message not in seen:  # noqa: ASYNC110 - it is the server that brings it
            await asyncio.sleep(0.02)


def vanish(server: HouseServer, user: str) -> None:
    """Come with a session that is to be kept and a last will, and end without a word.

    Written out (MQTT 3.1.1, 3.1), since libraries end as they should.
    """

    def field(content: str) -> bytes:
        return struct.pack(">H", len(content)) + content.encode()

    flags = 0x80 | 0x40 | 0x20 | 0x04  # name, password, will to be kept, will
    said = field("MQTT") + struct.pack(">BBH", 4, flags, 60)
    for content in (f"gone-{user}", SET, "from a will", user, server.passwords[user]):
        said += field(content)
    with (
        socket.create_connection(("localhost", server.mqtt_port), WITHIN_S) as plain,
        server.trusting().wrap_socket(plain, server_hostname="localhost") as line,
    ):
        line.sendall(bytes([0x10, len(said)]) + said)
        assert line.recv(4) == b"\x20\x02\x00\x00", "it was let in"
