"""The `[mqtt]` table of lenderd.toml: the house's MQTT server, and conditions that it tells of.

docs/home-automation.md; nothing of it is loaded or connected where the table is missing.
"""

import re
from pathlib import Path
from typing import Annotated, Final, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator

from lender.core.conditions import Source
from lender.core.policy import Condition
from lender.daemon.policy_settings import Level, Table

TOPIC_CHARS_MAX: Final = 256
SIGNALS_MAX: Final = 32

NodeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
"""A part of topics, of a file's name and of templates: nothing in it means anything there."""
Topic = Annotated[
    str,
    StringConstraints(
        pattern=r"^[^$+#\x00-\x1f\x7f][^+#\x00-\x1f\x7f]*$", max_length=TOPIC_CHARS_MAX
    ),
]
"""A topic without wildcards."""
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_NAMES: Final = {"price": "power price", "surplus": "power surplus", "presence": "presence at home"}


class Place(NamedTuple):
    """Where an MQTT server is."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


class SignalSettings(Table):
    """`[[mqtt.signals]]`: lent work runs only while this holds."""

    topic: Topic
    kind: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9 _-]{0,31}$")]
    """`price`, `surplus`, `presence`, or what you call it."""
    key: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{0,128}$")] = ""
    """Where it stands in a JSON document: `now.price`. Empty: the message is the value."""
    below: Level | None = None
    above: Level | None = None
    equals: list[Annotated[str, StringConstraints(min_length=1, max_length=64)]] = Field(default=[])
    expires_s: float = Field(gt=0, le=7 * 86_400)
    """Not known any more after so long without news, and what is not known does not hold."""

    @field_validator("equals", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        self.condition()
        return self

    @property
    def name(self) -> str:
        """What it is called in reasons."""
        return _NAMES.get(self.kind, self.kind)

    def condition(self) -> Condition:
        """Return it for the core."""
        return Condition(self.name, self.below, self.above, tuple(self.equals))

    def source(self) -> Source:
        """Return where its value comes from."""
        return Source(self.name, self.key, not self.equals, self.expires_s)


class MqttSettings(Table):
    """`[mqtt]`: where Home Assistant's MQTT server is, and as whom to go there."""

    url: str
    """`mqtt://host:1883`, or `mqtts://host:8883` for TLS."""
    credentials: Path | None = None
    """A file with one line `user:password`, which nobody else can read."""
    ca: Path | None = None
    """Certificates of who may vouch for that server. None: those that the system trusts."""
    node: NodeName | None = None
    """What this machine is called in topics. None: made of `name`."""
    discovery_prefix: Topic = "homeassistant"
    """Where Home Assistant looks for devices."""
    signals: Annotated[list[SignalSettings], Field(max_length=SIGNALS_MAX)] = Field(default=[])

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        _place(url)
        return url

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        for what in ("name", "topic"):
            said = [getattr(one, what) for one in self.signals]
            if len(set(said)) != len(said):
                raise ValueError(f"two signals have the same {what.replace('name', 'kind')}")
        return self

    @property
    def place(self) -> Place:
        """Where the server is."""
        return _place(self.url)

    def node_of(self, machine: str) -> str:
        """Return what a machine of that name is called in topics."""
        return self.node or node_name(machine)

    def conditions(self) -> tuple[Condition, ...]:
        """Return what has to hold for anything lent to run."""
        return tuple(one.condition() for one in self.signals)


def node_name(machine: str) -> str:
    """Return a name for topics, made of what people call a machine."""
    plain = re.sub("[^a-z0-9_]+", "-", machine.lower())[:32].strip("-_")
    return plain or "machine"


def _place(url: str) -> Place:
    """Take an address apart.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError("write it like mqtt://host:1883, or mqtts://host:8883 for TLS")
    if "@" in parts.netloc:
        raise ValueError("a name and a password go into a file: see `credentials`")
    return Place(parts.hostname, parts.port or _PORTS[parts.scheme], parts.scheme == "mqtts")
