"""The setting `runtimes`: what an owner leaves out is neither offered nor even tried."""

import pytest
from sandboxes import Workshop, open_folder, workshop

from lender.daemon import capabilities
from lender.sandbox.launcher import Launcher

__all__ = ["open_folder", "workshop"]  # fixtures


async def test_only_what_is_offered_is_tried(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    spawn = Launcher.spawn

    async def watched(launcher: Launcher, runtime: str, *more: object) -> object:
        tried.append(runtime)
        return await spawn(launcher, runtime, *more)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(Launcher, "spawn", watched)
    found, verdicts = await capabilities.find(
        workshop.launcher, workshop.folder, None, offered=["wasm"]
    )
    assert tried == ["wasm"]
    assert found.runtimes == {"wasm"}
    assert {name: verdict["available"] for name, verdict in verdicts.items()} == {
        "wasm": True,
        "process": False,
        "python": False,
        "oci": False,
    }
    assert verdicts["oci"]["reason"] == "your settings leave it out"
