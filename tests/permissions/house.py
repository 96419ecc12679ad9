"""A house's MQTT server, a real nats-server as it is shipped, and what it lets lenderd do there."""

import asyncio
from typing import Final

from aiomqtt import Client, MqttError
from house_server import HouseServer

from lender.protocol.house_rights import HOUSE_RIGHTS, NODE, house_topics

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


async def taken(one: HouseServer) -> tuple[set[str], set[str]]:
    """What lenderd could publish to, and what it could subscribe to, of all that it tried."""
    async with one.client("witness") as witness, one.client("desk") as desk:
        await witness.subscribe([("#", 0), ("$SYS/#", 0)])
        subscribed = {topic for topic in tried("subscribe") if await subscribes(desk, topic)}
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


async def subscribes(client: Client, topic: str) -> bool:
    """Tell whether the server lets it."""
    try:
        (answer,) = await client.subscribe(topic)
    except MqttError:
        return False
    return getattr(answer, "value", answer) != 0x80
