"""lenderd on a house's MQTT server, which is a real nats-server: its own topics, and no others."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiomqtt import Client, MqttError
from vouching_server import free_port

from lender.link.connection import ConnectError, connect
from lender.link.embedded import EmbeddedServer
from lender.protocol.house_rights import HOUSE_RIGHTS, NODE, house_topics, nats_subject

SIGNAL = "energy/price"
PUBLISHES = house_topics("publish", "desk", [SIGNAL])
SUBSCRIBES = house_topics("subscribe", "desk", [SIGNAL])
OTHERS = (
    *(one.topic.replace(NODE, "attic") for one in HOUSE_RIGHTS),
    *("lender/desk", "lender/desk/state/x", "lender/desk/other", "energy", "energy/price/x"),
    *("homeassistant/device/lender_desk", "homeassistant/switch/x/config", "homeassistant/status"),
    *("zigbee2mqtt/door/set", "$SYS/x", "$JS/API/INFO", "$MQTT/sub/x", "x"),
)
WIDE = ("#", "+", "lender/#", "lender/+/set", "lender/desk/#", "+/desk/set", "$MQTT/#", "$SYS/#")


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    mqtt = free_port()
    lists = {"publish": PUBLISHES, "subscribe": SUBSCRIBES}
    rights = "\n".join(
        f"{verb}: {json.dumps([nats_subject(one) for one in topics])}"
        for verb, topics in lists.items()
    )
    extra = f"""
mqtt {{ host: "127.0.0.1", port: {mqtt} }}
authorization {{ users = [
  {{ user: everybody, password: plug }}
  {{ user: desk, password: d, allowed_connection_types: ["MQTT"], permissions: {{ {rights} }} }}
] }}
"""
    async with EmbeddedServer(tmp_path / "house", extra_config=extra) as server:
        (tmp_path / "desk").write_text("desk:d\n")
        (tmp_path / "desk").chmod(0o600)
        # By NATS's own protocol, which knows more subjects, the user is not let in at all.
        with pytest.raises(ConnectError, match="uthoriz"):
            await connect(server.url, name="x", credentials=tmp_path / "desk", timeout_s=2)
        yield mqtt


async def test_the_server_does_as_the_table_says(port: int) -> None:
    async with (
        Client("127.0.0.1", port, username="everybody", password="plug") as witness,
        Client("127.0.0.1", port, username="desk", password="d") as desk,
    ):
        await witness.subscribe([("#", 0), ("$SYS/#", 0)])
        for topic in (*SUBSCRIBES, *PUBLISHES, *OTHERS, *WIDE):
            try:
                (answer,) = await desk.subscribe(topic)
                taken = getattr(answer, "value", answer) != 0x80
            except MqttError:
                taken = False
            assert taken == (topic in SUBSCRIBES), topic
        for topic in {*OTHERS, *SUBSCRIBES}:
            await desk.publish(topic, b"not ours")
        for topic in PUBLISHES:
            await desk.publish(topic, b"ours", retain=True)
        seen = set()
        async with asyncio.timeout(20):
            async for message in witness.messages:
                seen.add(str(message.topic))
                assert message.payload == b"ours", message.topic
                if seen == {*PUBLISHES}:
                    break
