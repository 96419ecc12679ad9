"""The AsyncAPI document: as the code has it, whole in itself, and all that the table grants.

These look at structure. Against AsyncAPI's own schema, which is not at hand without the network,
`make conformance` holds it.
"""

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lender.protocol.permissions import RIGHTS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    spec = importlib.util.spec_from_file_location("asyncapi_made", DOCS / "generate_asyncapi.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "asyncapi.json").read_text())
    return found


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def pointed_at(document: object, reference: str) -> object:
    file, _, path = reference.partition("#")
    found: Any = json.loads((DOCS / file).read_text()) if file else document
    for token in path.split("/")[1:]:
        found = found[token]
    return found


def test_it_is_that_of_the_code(generator: ModuleType) -> None:
    assert generator.FILE.read_text() == generator.text(), "run make schemas"


def test_whatever_it_points_at_is_there(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert "./schemas/JobSpec.json" in found
    for reference in found:
        assert pointed_at(document, reference), reference


def test_each_operation_is_of_its_channels_messages(document: dict[str, Any]) -> None:
    for operation in document["operations"].values():
        for of in (operation, operation.get("reply", operation)):
            assert of["messages"]
            for message in of["messages"]:
                assert message["$ref"].startswith(f"{of['channel']['$ref']}/messages/")
    for channel in document["channels"].values():
        named = set(re.findall(r"{(\w+)}", channel["address"] or ""))
        assert named == set(channel.get("parameters", ()))


def test_every_right_is_an_operation_of_its_role_and_nothing_else_is(
    document: dict[str, Any],
) -> None:
    told = {
        (name.split("-")[0], operation["action"], subject)
        for name, operation in document["operations"].items()
        for subject in operation["x-nats-subjects"]
    }
    granted = {
        (right.role, "receive" if right.verb == "subscribe" else "send", right.subject)
        for right in RIGHTS
        # Answers are in the operations that they are answers to.
        if not right.subject.startswith("_INBOX") and right[1:3] != ("answer", ">")
    }
    assert told == granted


def test_who_submits_signs_and_says_in_what_it_is_written(document: dict[str, Any]) -> None:
    message = document["components"]["messages"]["Submission"]
    assert message["headers"]["required"] == ["Lender-Signature"]
    types = message["headers"]["properties"]["Content-Type"]["enum"]
    assert types == ["application/json", "application/msgpack"]
    asked = document["operations"]["submitter-send-submit"]
    assert asked["security"] == [{"$ref": "#/components/securitySchemes/submitter"}]
    assert asked["reply"]["messages"] == [{"$ref": "#/channels/answers/messages/PublishAck"}]
    assert document["channels"]["submit"]["address"] == "submit.{submitter}.{job}"
