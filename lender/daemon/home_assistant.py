"""What Home Assistant is told: the device with its entities, its state, and how to sign commands.

Fields as Home Assistant's MQTT integration has them: device discovery
(`<prefix>/device/<id>/config`), `command_template` of switch, select and button, availability.
docs/home-automation.md.
"""

from typing import Any, Final, NamedTuple

from lender.core.home_commands import CommandKey
from lender.core.policy import Rung
from lender.core.status import LenderStatus

ONLINE: Final = "online"
OFFLINE: Final = "offline"

_MODES: Final = {"lending": "resume", "draining": "drain", "paused": "pause"}
"""What the owner chooses, and the command that it becomes."""
_PHASES: Final = ("lending", "yielding", "paused", "draining", "offline", "unconsented")
_GIB: Final = 1 << 30


class Topics(NamedTuple):
    """Where a machine and its house speak."""

    commands: str
    state: str
    available: str
    discovery: str

    @classmethod
    def of(cls, node: str, prefix: str) -> "Topics":
        """Return those of one machine."""
        own = f"lender/{node}"
        discovery = f"{prefix}/device/lender_{node}/config"
        return cls(f"{own}/set", f"{own}/state", f"{own}/available", discovery)


def macro_file(node: str) -> str:
    """Return the name of the file in Home Assistant's `custom_templates/`."""
    return f"lender_{node}.jinja"


def macro(node: str, key: CommandKey) -> str:
    """Return what that file holds: a macro that signs a word, here and now.

    It takes no time and no name of a machine: else a template that is not the owner's could have
    something signed for later, or for another machine.
    """
    return (
        f"{{#- Signs commands for {node}. Whoever reads this can pause and revoke there. -#}}\n"
        "{%- macro say(word) -%}\n"
        "{%- set at = now().timestamp() | round(3) -%}\n"
        f"{{%- set said = 'lender {node} ' ~ word ~ ' ' ~ at -%}}\n"
        f"{{{{- word }}}} {{{{ at }}}} {{{{ sha256('{key.outer}' ~ sha256(\n"
        f"'{key.inner}' ~ said)) -}}}}\n"
        "{%- endmacro -%}\n"
    )


def discovery(node: str, name: str, version: str, topics: Topics) -> dict[str, Any]:
    """Return the one message that makes Home Assistant show a machine; it holds no key.

    Args:
        node: in topics.
        name: what people call the machine.
        version: of lenderd.
        topics: where it speaks.
    """

    def signed(value: str) -> str:
        return f"{{% from '{macro_file(node)}' import say %}}{{{{ say({value}) }}}}"

    def shown(key: str) -> str:
        return f"{{{{ value_json.{key} }}}}"

    def entity(platform: str, key: str, label: str, **fields: object) -> dict[str, object]:
        return {"platform": platform, "unique_id": f"lender_{node}_{key}", "name": label, **fields}

    def button(key: str, label: str, word: str) -> dict[str, object]:
        template = {"command_topic": topics.commands, "command_template": signed("value")}
        return entity("button", key, label, payload_press=word, **template)

    def sensor(key: str, label: str, **fields: object) -> dict[str, object]:
        return entity("sensor", key, label, value_template=shown(key), **fields)

    choice = "{" + ", ".join(f"'{mode}': '{word}'" for mode, word in _MODES.items()) + "}"
    entities = {
        "lending": entity(
            *("switch", "lending", "Lending"),
            command_topic=topics.commands,
            command_template=signed("value"),
            value_template=shown("lending"),
            payload_on="resume",
            payload_off="pause",
            state_on="on",
            state_off="off",
        ),
        "mode": entity(
            *("select", "mode", "Mode"),
            command_topic=topics.commands,
            command_template=signed(f"{choice}[value]"),
            value_template=shown("mode"),
            options=list(_MODES),
        ),
        "phase": sensor("phase", "Phase", device_class="enum", options=list(_PHASES)),
        "slots_free": sensor("slots_free", "Free slots"),
        "cores_free": sensor("cores_free", "Spare cores"),
        "memory_free_gib": sensor("memory_free_gib", "Spare memory", unit_of_measurement="GiB"),
        "pause_hour": button("pause_hour", "Pause for an hour", "pause-1h"),
        "revoke": button("revoke", "Revoke everything", "revoke"),
    }
    return {
        "device": {"identifiers": [f"lender_{node}"], "name": name, "sw_version": version},
        "origin": {"name": "lender", "sw_version": version},
        "availability_topic": topics.available,
        "state_topic": topics.state,
        "components": entities,
    }


def state_of(status: LenderStatus, now: float) -> dict[str, Any]:
    """Return what is published: of what runs, for whom, and why it stops, nothing.

    Args:
        status: of the core.
        now: seconds since the epoch, by the wall clock.
    """
    intent = status.intent
    paused = intent is None or intent.holds(now)
    mode = "lending"
    if paused:
        mode = "draining" if intent is not None and intent.finishing(now) else "paused"
    frozen = status.verdict.rung <= Rung.FROZEN
    return {
        "lending": "off" if paused else "on",
        "mode": mode,
        "phase": status.phase,
        "slots_free": status.slots_free,
        "cores_free": 0 if frozen else int(status.cpu_free),
        "memory_free_gib": status.memory_free_bytes // _GIB,
    }
