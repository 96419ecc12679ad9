"""An owner's overlay: whether the revision that it pins is what is installed here, and what runs.

An overlay is a private flake with all that is about one owner's machines; the product is one of its
inputs, pinned by flake.lock (nix/examples/owner-overlay). Its format: the Nix manual, "nix flake",
"Lock files", versions 5 to 7.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from lender.cli.checks.check import Check
from lender.cli.owner import Told
from lender.cli.words import printable
from lender.service.bounded_text import read_bounded
from lender.service.build import REVISION_PATTERN, revision

LOCK: Final = "flake.lock"
_VERSIONS: Final = (5, 6, 7)
_FOLLOWED_MAX: Final = 16
_SWITCH = "switch this machine to the overlay: nixos-rebuild, home-manager or darwin-rebuild switch"


class LockError(ValueError):
    """It pins nothing that could be compared; says why."""


class Pin(NamedTuple):
    """What an overlay pins.

    Attributes:
        revision: of the product.
        follows: branch or tag that the next update would move it along; empty: it is asked for by
            its revision.
    """

    revision: str
    follows: str


def pin_of(text: str, name: str) -> Pin:
    """Return what a flake.lock pins an input to.

    Args:
        text: of the file.
        name: of the input.

    Raises:
        LockError: it pins none, or not by a revision.
    """
    try:
        lock = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LockError("is no JSON") from error
    if not isinstance(lock, dict) or lock.get("version") not in _VERSIONS:
        raise LockError(f"is no lock of version {_VERSIONS[0]} to {_VERSIONS[-1]}")
    nodes, root = lock.get("nodes"), lock.get("root")
    if not isinstance(nodes, dict) or not isinstance(root, str):
        raise LockError("names no inputs")
    node = _node(nodes, root, [name])
    locked, original = _table(node, "locked"), _table(node, "original")
    found = locked.get("rev")
    if not isinstance(found, str) or not re.fullmatch(REVISION_PATTERN, found):
        kind = printable(str(locked.get("type"))[:20])
        raise LockError(f"pins {name} by no revision, as a flake of the kind {kind}")
    asked = original.get("rev") or original.get("ref") or "its usual branch"
    return Pin(found, "" if asked == found else printable(str(asked)[:80]))


def pins(overlay: Path, name: str, told: Told) -> Iterator[Check]:
    """Hold what an overlay pins against what is installed here, and against lenderd.

    Args:
        overlay: its folder, or the lock itself.
        name: of the input.
        told: how lenderd answered.
    """
    path = overlay / LOCK if overlay.is_dir() else overlay
    try:
        pin = pin_of(read_bounded(path), name)
    except OSError as error:
        text = f"{path} can't be read: {error.strerror or error}"
        yield Check("overlay.lock", "blocker", text, f"nix flake lock, in {path.parent}")
        return
    except ValueError as error:
        mend = f"have an input {name} there, by its revision, then: nix flake lock"
        yield Check("overlay.lock", "blocker", f"{path} {error}", mend)
        return
    if pin.follows:
        text = f"{path} pins {name} to {pin.revision}, and asks for {pin.follows}"
        mend = "ask for a revision (rev=…), so that no update moves it unseen"
        yield Check("overlay.lock", "warning", text, mend)
    else:
        yield Check("overlay.lock", "ok", f"{path} pins {name} to {pin.revision}")
    yield _installed(pin)
    yield from _running(pin, told)


def _installed(pin: Pin) -> Check:
    mine = revision()
    if mine == pin.revision:
        return Check("overlay.installed", "ok", "that is what is installed here")
    if mine is None:
        text = "what is installed here does not say from which revision it was built"
        mend = "install it by Nix from the overlay, or by pip from the repository (git+https://…)"
        return Check("overlay.installed", "blocker", text, mend)
    return Check("overlay.installed", "blocker", f"installed here is revision {mine}", _SWITCH)


def _running(pin: Pin, told: Told) -> Iterator[Check]:
    if told.outcome != "answered":
        return
    theirs = told.reply.get("revision")
    if theirs == pin.revision:
        yield Check("overlay.running", "ok", "that is what lenderd runs")
    elif isinstance(theirs, str):
        text = f"lenderd runs revision {printable(theirs[:64])}"
        yield Check("overlay.running", "blocker", text, f"{_SWITCH}, or restart lenderd")
    else:
        text = "lenderd does not say from which revision it was built"
        yield Check("overlay.running", "blocker", text, f"{_SWITCH}, or restart lenderd")


def _node(nodes: Mapping[str, Any], start: str, way: list[str]) -> Mapping[str, Any]:
    """Follow names of inputs from a node on; a list among them begins at the root."""
    root, here, followed = start, start, 0
    while way:
        name, *way = way
        inputs = _table(_table(nodes, here), "inputs")
        if name not in inputs:
            raise LockError(f"has no input {printable(name[:80])}; it has {_some(inputs)}")
        found = inputs[name]
        followed += 1
        if followed > _FOLLOWED_MAX:
            raise LockError("has inputs that follow each other in circles")
        if isinstance(found, str):
            here = found
        elif isinstance(found, list) and all(isinstance(one, str) for one in found):
            here, way = root, [*found, *way]
        else:
            raise LockError("names no inputs")
    return _table(nodes, here)


def _some(inputs: Mapping[str, Any]) -> str:
    return printable(", ".join(sorted(inputs))[:200]) or "none"


def _table(outer: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = outer.get(key)
    if not isinstance(found, dict):
        raise LockError("names no inputs")
    return found
