"""What lenderd may do on the house's MQTT server: the topics of its own machine, and its signals.

A server of a deployment takes no MQTT (docs/decisions/0026-identity.md), so that these rights are
no role's there: they are for whoever runs the house's server. docs/home-automation.md.
"""

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

NODE: Final = "{node}"


class HouseRight(NamedTuple):
    """One line of the table. Topics are MQTT's, with `NODE` in place of the machine's name."""

    verb: Literal["publish", "subscribe"]
    topic: str
    why: str


HOUSE_RIGHTS: Final = (
    HouseRight("publish", f"lender/{NODE}/state", "tells what the switch and the sensors show"),
    HouseRight("publish", f"lender/{NODE}/available", "tells that it is there; also its last will"),
    HouseRight(
        "publish",
        f"homeassistant/device/lender_{NODE}/config",
        "shows itself to Home Assistant, below the discovery prefix that is set",
    ),
    HouseRight("subscribe", f"lender/{NODE}/set", "hears commands, which are signed"),
)
"""And to subscribe to the topic of each of the owner's signals."""


def house_topics(
    verb: Literal["publish", "subscribe"], node: str, signals: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the topics of one machine.

    Args:
        verb: which of both.
        node: what it is called in topics.
        signals: topics of its owner's conditions.
    """
    own = (one.topic.replace(NODE, node) for one in HOUSE_RIGHTS if one.verb == verb)
    return (*own, *(signals if verb == "subscribe" else ()))


def nats_subject(topic: str) -> str:
    """Return the subject that a nats-server makes of a topic that has no dots of its own."""
    return topic.replace("/", ".")
