"""What a sandbox's process answers once somebody else speaks in its place."""

from typing import Any

import pytest
from sandboxes import Workshop, open_folder, workshop

from lender.sandbox.conversation import Conversation
from lender.sandbox.port import SandboxGoneError
from lender.sandbox.processes import tree

__all__ = ["open_folder", "workshop"]  # fixtures


@pytest.mark.parametrize(
    "header",
    [
        {"unprepared": "no reason of ours"},
        {"unprepared": 5, "invalid": False, "field": ""},
        {"unprepared": "", "invalid": "yes", "field": ""},
        {"unprepared": "", "invalid": True, "field": ["limits"]},
    ],
)
async def test_who_took_it_over_while_it_is_prepared_ends_it(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, header: dict[str, Any]
) -> None:
    sandbox = workshop.sandbox(workshop.plan("wasm", "hello"))
    roots: list[tree.Root] = []

    async def speak(*_: object) -> dict[str, Any]:
        roots.extend(sandbox.root_pids)
        return header

    monkeypatch.setattr(Conversation, "be_ready", speak)
    with pytest.raises(SandboxGoneError, match="an answer that is none"):
        await sandbox.prepare()
    assert roots
    assert not sandbox.root_pids
    assert not any(map(tree.alive, roots))
