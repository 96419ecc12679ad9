"""What an owner's overlay pins, held against what is installed and what runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from lender.cli.checks import overlay
from lender.cli.checks.overlay import LockError, Pin, pin_of, pins
from lender.cli.owner import Told
from lender.service.build import revision

REVISION, OTHER = "0f" * 20, "ab" * 20


def lock(
    locked: Any = None,  # noqa: ANN401 - whatever JSON
    original: Any = None,  # noqa: ANN401
    **more: Any,  # noqa: ANN401
) -> str:
    node = {
        "locked": {"rev": REVISION, "type": "github"} if locked is None else locked,
        "original": {"rev": REVISION, "type": "github"} if original is None else original,
    }
    root = {"inputs": {"lender": "lender_2"}}
    return json.dumps(
        {"nodes": {"lender_2": node, "root": root}, "root": "root", "version": 7, **more}
    )


def levels(overlay_at: Path, told: Told) -> dict[str, str]:
    found = list(pins(overlay_at, "lender", told))
    assert all(check.mend or check.level == "ok" for check in found)
    return {check.name.removeprefix("overlay."): check.level for check in found}


def running(found: object) -> Told:
    return Told("answered", {"revision": found})


ABSENT = Told("absent", {})


def test_it_pins_by_revision() -> None:
    assert pin_of(lock(), "lender") == Pin(REVISION, "")
    assert pin_of(lock(original={"ref": "main"}), "lender").follows == "main"
    assert pin_of(lock(original={}), "lender").follows == "its usual branch"


def test_an_input_may_follow_another_ones() -> None:
    nodes = {
        "root": {"inputs": {"fleet": "fleet", "lender": ["fleet", "core"]}},
        "fleet": {"inputs": {"core": "core"}},
        "core": {"locked": {"rev": OTHER}, "original": {"rev": OTHER}},
    }
    text = json.dumps({"nodes": nodes, "root": "root", "version": 7})
    assert pin_of(text, "lender").revision == OTHER
    nodes["root"] = {"inputs": {"lender": ["lender"]}}
    with pytest.raises(LockError, match="circles"):
        pin_of(json.dumps({"nodes": nodes, "root": "root", "version": 7}), "lender")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no JSON"),
        ("[]", "no lock of version"),
        (lock(version=8), "no lock of version"),
        (lock(root="other"), "names no inputs"),
        (
            lock(locked={"type": "path", "narHash": "sha256-x"}),
            "no revision, as a flake of the kind path",
        ),
        (lock(locked={"rev": "main"}), "no revision"),
        (lock(locked=[]), "names no inputs"),
        (lock(nodes=[]), "names no inputs"),
        (lock(nodes={"root": {"inputs": {"nixpkgs": "x"}}}), "no input lender; it has nixpkgs"),
        (lock(nodes={"root": {"inputs": {"lender": [1]}}}), "names no inputs"),
        (lock(nodes={"root": {"inputs": {"lender": "gone"}}}), "names no inputs"),
    ],
)
def test_what_pins_nothing_is_told(text: str, says: str) -> None:
    with pytest.raises(LockError, match=says):
        pin_of(text, "lender")


def test_what_is_installed_and_what_runs_have_to_be_what_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flake.lock").write_text(lock())
    for mine, theirs, installed, runs in (
        (REVISION, REVISION, "ok", "ok"),
        (REVISION, OTHER, "ok", "blocker"),  # upgraded, and not started anew
        (OTHER, OTHER, "blocker", "blocker"),
        (None, None, "blocker", "blocker"),  # what can't be compared does not pass
    ):
        monkeypatch.setattr(overlay, "revision", lambda mine=mine: mine)
        found = levels(tmp_path, running(theirs))
        assert found == {"lock": "ok", "installed": installed, "running": runs}
    monkeypatch.setattr(overlay, "revision", lambda: REVISION)
    assert levels(tmp_path / "flake.lock", ABSENT) == {"lock": "ok", "installed": "ok"}
    (tmp_path / "flake.lock").write_text(lock(original={"ref": "main"}))
    assert levels(tmp_path, ABSENT) == {"lock": "warning", "installed": "ok"}
    (tmp_path / "flake.lock").write_bytes(b"\xff")
    assert levels(tmp_path, ABSENT) == {"lock": "blocker"}
    assert levels(tmp_path / "none", ABSENT) == {"lock": "blocker"}


def test_a_revision_is_where_installers_leave_it(tmp_path: Path) -> None:
    assert revision(tmp_path) is None
    place = tmp_path / "lender-0.1.0.dist-info"
    place.mkdir()
    about = place / "direct_url.json"
    for text, found in (
        (json.dumps({"vcs_info": {"commit_id": REVISION}}), REVISION),
        (json.dumps({"vcs_info": {"commit_id": "main"}}), None),
        (json.dumps({"dir_info": {"editable": True}}), None),
        (json.dumps({"vcs_info": None}), None),
        ("[", None),
    ):
        about.write_text(text)
        assert revision(tmp_path) == found
