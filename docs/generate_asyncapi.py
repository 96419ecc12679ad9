# noqa: INP001 - a script, run by its path
"""Write docs/asyncapi.json: the wire as an AsyncAPI 3.0 document, from the code.

Operations are the lines of the table of permissions, one for each role and channel. `--check`
writes nothing and fails when the file is missing or stale.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from generated import write_or_check
from wire_channels import CHANNELS, MESSAGES, PARAMETERS, Channel, Message

from lender.protocol.permissions import HOME, RIGHTS, STRANGERS_INBOX, Right, Role, pattern_of
from lender.protocol.version import PROTOCOL

FILE = Path(__file__).parent / "asyncapi.json"

_JSON_SCHEMA = "application/schema+json;version=draft-2020-12"
_ANSWERS = "answers"
_ELSEWHERE = "jetstream"
_SUBJECTS = "x-nats-subjects"

_ABOUT = """\
What submitters, lenders and the broker say to each other over NATS, as protocol.md tells it in \
words. Written by `make schemas` from the code: operations are the lines of the table of \
permissions (permissions.md), whose subjects stand in `x-nats-subjects`, so whatever a role may do \
is in here and what is not is refused by the server. In payloads by MessagePack byte strings are \
themselves; in JSON, for which the schemas are written, they are base64."""


def document() -> dict[str, Any]:
    """Return the whole document."""
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "lender", "version": f"{PROTOCOL}.0.0", "description": _ABOUT},
        "defaultContentType": "application/msgpack",
        "servers": {
            "nats": {
                "host": "{host}:{port}",
                "protocol": "nats",
                "description": "a NATS server with JetStream, or one of a cluster; TLS where it "
                "is reached from elsewhere",
                "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "4222"}},
            }
        },
        "channels": {**{one.name: _channel(one) for one in CHANNELS}, _ANSWERS: _answers()},
        "operations": _operations(),
        "components": {
            "messages": {name: _message(name, one) for name, one in MESSAGES.items()},
            "securitySchemes": {
                role: _security(role) for role in get_args(Role) if role != "stranger"
            },
        },
    }


def channel_of(right: Right) -> tuple[Channel, ...]:
    """Return the channels that a line of the table is about; none where it is about answers."""
    if right.verb == "answer" and right.subject == ">":
        return ()
    if right.subject.startswith(("_INBOX.", "_INBOX_")):
        return ()
    pattern = pattern_of(right.subject).split(".")
    found = [one for one in CHANNELS if _meet(pattern, _pattern(one).split("."))]
    own = tuple(one for one in found if one.name != _ELSEWHERE)
    if own or not right.subject.startswith("$JS.API."):
        return own
    return tuple(one for one in CHANNELS if one.name == _ELSEWHERE)


def _pattern(channel: Channel) -> str:
    """Return what all its subjects have in common, as a NATS server reads it."""
    return ".".join("*" if "{" in token else token for token in channel.address.split("."))


def _meet(first: list[str], second: list[str]) -> bool:
    """Tell whether two patterns have a subject in common."""
    for one, other in zip(first, second, strict=False):
        if ">" in (one, other):
            return True
        if "*" not in (one, other) and one != other:
            return False
    return len(first) == len(second)


def _channel(one: Channel) -> dict[str, Any]:
    names = dict.fromkeys(re.findall(r"{(\w+)}", one.address))
    parameters = {name: {"description": PARAMETERS[name]} for name in names}
    return {
        "address": one.address,
        "description": one.text,
        "messages": {name: _ref("components", "messages", name) for name in one.messages},
        **({"parameters": parameters} if parameters else {}),
    }


def _answers() -> dict[str, Any]:
    names = dict.fromkeys(name for one in CHANNELS for name in one.replies)
    return {
        "address": None,
        "description": "Answers go to the reply subject of what they answer. Who asks makes it up, "
        "below `_INBOX_<its public key>.`; the server lets nobody else listen there. "
        f"Strangers have `{STRANGERS_INBOX}.` in common, brokers `_INBOX.`",
        "messages": {name: _ref("components", "messages", name) for name in names},
    }


def _operations() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for right in RIGHTS:
        for channel in channel_of(right):
            action = "receive" if right.verb == "subscribe" else "send"
            operation = found.setdefault(
                f"{right.role}-{action}-{channel.name}", _operation(right, channel, action)
            )
            operation[_SUBJECTS].append(right.subject)
            if right.why not in operation["description"].split("; "):
                operation["description"] += f"; {right.why}"
    return dict(sorted(found.items()))


def _operation(right: Right, channel: Channel, action: str) -> dict[str, Any]:
    replies = [_ref("channels", _ANSWERS, "messages", name) for name in channel.replies]
    reply = {"channel": _ref("channels", _ANSWERS), "messages": replies}
    security = [_ref("components", "securitySchemes", right.role)]
    return {
        "action": action,
        "channel": _ref("channels", channel.name),
        "description": right.why,
        "messages": [_ref("channels", channel.name, "messages", name) for name in channel.messages],
        **({"reply": reply} if replies else {}),
        **({"security": security} if right.role != "stranger" else {}),
        _SUBJECTS: [],
    }


def _message(name: str, one: Message) -> dict[str, Any]:
    return {
        "name": name,
        "summary": one.text,
        **({"contentType": one.content_type} if one.content_type else {}),
        **({"headers": _headers(one)} if one.headers else {}),
        "payload": _payload(one),
    }


def _headers(one: Message) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            header: {"type": "string"}
            | ({"description": said} if isinstance(said, str) else {"enum": list(said)})
            for header, said in one.headers.items()
        },
        **({"required": list(one.required)} if one.required else {}),
    }


def _payload(one: Message) -> dict[str, Any]:
    if one.schema is None:
        return {"type": "string", "maxLength": 0}
    if not isinstance(one.schema, str):
        return one.schema
    file = one.schema if ".json" in one.schema else f"{one.schema}.json"
    return {"schemaFormat": _JSON_SCHEMA, "schema": {"$ref": f"./schemas/{file}"}}


def _security(role: Role) -> dict[str, Any]:
    return {
        "type": "asymmetricEncryption",
        "description": f"An nkey of type user that signs the server's nonce, and a token (JWT) in "
        f"which the deployment vouches for it as a {role}: account `{HOME[role]}`. A server of "
        "one's own, without a deployment, asks for neither",
    }


def _ref(*path: str) -> Mapping[str, str]:
    return {"$ref": "#/" + "/".join(path)}


def text() -> str:
    """Return the file's content."""
    return json.dumps(document(), indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(write_or_check(FILE, text(), sys.argv[1:]))
