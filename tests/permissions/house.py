"""A house's MQTT server, which is a real nats-server, and what it lets lenderd do there."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from aiomqtt import Client, MqttError
from vouching_server import free_port

from lender.link.embedded import EmbeddedServer
from lender.protocol.house_rights import HOUSE_RIGHTS, NODE, house_topics, nats_subject

SIGNAL: Final = "energy/price"
PUBLISHES: Final = house_topics("publish", "desk", [SIGNAL])
SUBSCRIBES: Final = house_topics("subscribe", "desk", [SIGNAL])
_OTHERS: Final = (
    *(one.topic.replace(NODE, "attic") for one in HOUSE_RIGHTS),
    *("lender/desk", "lender/desk/state/x", "lender/desk/other", "energy", "energy/price/x"),
    *("homeassistant/device/lender_desk", "homeassistant/switch/x/config", "homeassistant/status"),
    *("zigbee2mqtt/door/set", "$SYS/x", "$JS/API/INFO", "$MQTT/sub/x", "x"),
)
_WIDE: Final = (
    *("#", "+", "lender/#", "lender/+/set", "lender/desk/#", "+/desk/set", "$MQTT/#", "$SYS/#"),
)
_WITHIN_S: Final = 20.0


class House(NamedTuple):
    """Where it listens: for MQTT, and for NATS's own protocol. `credentials`: lenderd's."""

    mqtt_port: int
    url: str
    credentials: Path


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    """A server with everybody, and lenderd as the table has it."""
    port = free_port()
    rights = "\n".join(
        f"{verb}: {json.dumps([nats_subject(one) for one in topics])}"
        for verb, topics in (("publish", PUBLISHES), ("subscribe", SUBSCRIBES))
    )
    extra = f"""
mqtt {{ host: "127.0.0.1", port: {port} }}
authorization {{ users = [
  {{ user: everybody, password: plug }}
  {{ user: desk, password: d, allowed_connection_types: ["MQTT"], permissions: {{ {rights} }} }}
] }}
"""
    credentials = folder / "desk"
    credentials.write_text("desk:d\n")
    credentials.chmod(0o600)
    async with EmbeddedServer(folder / "house", extra_config=extra) as server:
        yield House(port, server.url, credentials)


async def taken(one: House) -> tuple[set[str], set[str]]:
    """What lenderd could publish to, and what it could subscribe to, of all that it tried."""
    port = one.mqtt_port
    async with (
        Client("127.0.0.1", port, username="everybody", password="plug") as witness,
        Client("127.0.0.1", port, username="desk", password="d") as desk,
    ):
        await witness.subscribe([("#", 0), ("$SYS/#", 0)])
        subscribed = {topic for topic in tried("subscribe") if await _subscribes(desk, topic)}
        for topic in tried("publish"):
            await desk.publish(topic, b"from desk", retain=True)
        # Of one connection all comes in its order: this is the last.
        await desk.publish(PUBLISHES[0], b"the end")
        published = set()
        async with asyncio.timeout(_WITHIN_S):
            async for message in witness.messages:
                if message.payload == b"the end":
                    break
                published.add(str(message.topic))
    return published, subscribed


def tried(verb: str) -> tuple[str, ...]:
    """All topics that are tried."""
    return (*PUBLISHES, *SUBSCRIBES, *_OTHERS, *(_WIDE if verb == "subscribe" else ()))


async def _subscribes(client: Client, topic: str) -> bool:
    try:
        (answer,) = await client.subscribe(topic)
    except MqttError:
        return False
    return getattr(answer, "value", answer) != 0x80
