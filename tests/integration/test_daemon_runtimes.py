"""The setting `runtimes`, and what becomes of a runtime that does not work at the start."""

from typing import Any

import pytest
from sandboxes import Workshop, open_folder, workshop

from lender.daemon.capabilities import Trials
from lender.protocol.job import Runtime
from lender.sandbox import selftest
from lender.sandbox.launcher import Launcher
from lender.sandbox.selftest import Unavailable, Verdict

__all__ = ["open_folder", "workshop"]  # fixtures


def trials_of(workshop: Workshop, *offered: Runtime) -> Trials:
    return Trials(workshop.launcher, workshop.folder, None, offered)


async def test_only_what_is_offered_is_tried(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    spawn = Launcher.spawn

    async def watched(launcher: Launcher, runtime: str, *more: object) -> object:
        tried.append(runtime)
        return await spawn(launcher, runtime, *more)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(Launcher, "spawn", watched)
    trials = trials_of(workshop, "wasm")
    found = await trials.run()
    assert tried == ["wasm"]
    assert found is not None
    assert found.runtimes == {"wasm"}
    assert {name: verdict["available"] for name, verdict in trials.told.items()} == {
        "wasm": True,
        "process": False,
        "python": False,
        "oci": False,
    }
    assert trials.told["oci"]["reason"] == "your settings leave it out"
    assert trials.doubtful == []


async def test_what_had_no_time_is_tried_again_and_offered_once_it_works(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, late = selftest.check, Unavailable("the time limit was hit", "")

    async def hurried(*what: Any) -> dict[Runtime, Verdict]:  # noqa: ANN401 - passed on
        return {**await check(*what), "process": late}

    monkeypatch.setattr(selftest, "check", hurried)
    trials = trials_of(workshop, "wasm", "process")
    found = await trials.run()
    assert found is not None
    assert found.runtimes == {"wasm"}
    assert trials.doubtful == ["process"]
    assert await trials.run() is None, "no news"
    monkeypatch.undo()
    found = await trials.run()
    assert found is not None
    assert found.runtimes == {"wasm", "process"}
    assert trials.doubtful == []


async def test_a_wall_that_did_not_stand_is_not_believed_again(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fallen(*_: object) -> dict[Runtime, Verdict]:
        return {"wasm": Unavailable("sees /home", "report this", breached=True)}

    monkeypatch.setattr(selftest, "check", fallen)
    trials = trials_of(workshop, "wasm")
    found = await trials.run()
    assert found is not None
    assert found.runtimes == set()
    assert trials.doubtful == []
