"""What is looked at before joining a fleet: the table of `lender preflight`."""

import importlib.metadata
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lender.cli.checks import clock, daemon, overlay, pins, runtimes, server, system
from lender.cli.checks.check import Check
from lender.cli.checks.running import WITHIN_S, Part, carry_out
from lender.cli.checks.server import Visit
from lender.cli.owner import Told
from lender.client.keys import named_path
from lender.state.folder import StateFolder


class Overlay(NamedTuple):
    """An owner's private flake, and what it calls the product."""

    path: Path
    input: str


def examine(
    visit: Visit,
    state: StateFolder,
    told: Told,
    *,
    own: bool,
    pinned_by: Overlay | None = None,
    pins_only: bool = False,
    within_s: float = WITHIN_S,
) -> list[Check]:
    """Run all of them, each once.

    Args:
        visit: which server, and as whom.
        state: of a lender on this machine, whether or not there is one.
        told: how it answered.
        own: the state folder is there, and ours to read.
        pinned_by: whose pin counts, if any.
        pins_only: look at what is pinned, and ask no server.
        within_s: for all of them.
    """
    mine = state if own else None
    parts: dict[str, Part] = {
        "lender": lambda _: _lender(),
        "python": lambda _: runtimes.python(),
        "clock": lambda _: clock.clock(state),
        "server": partial(server.visit_all, visit),
        "home": lambda _: daemon.home(told),
        "pins.key": lambda _: pins.own_key(mine, visit.way_in),
    }
    if (ca := visit.ca) is not None:
        parts["pins.ca"] = lambda _: pins.authority(ca)
    if (trusted := named_path(os.environ, pins.TRUST)) is not None:
        parts["pins.trust"] = lambda _: pins.trusted(trusted)
    way_in = visit.way_in
    if visit.role in (None, "lender"):
        if own and way_in is not None and way_in.token is not None:
            parts["pins.grants"] = lambda _: pins.grants(state, way_in, time.time())
        if own:
            parts["pins.programs"] = lambda _: pins.programs(state, time.time())
        parts["system"] = lambda _: system(state)
        parts["runtimes"] = partial(runtimes.runtimes, told)
    if pinned_by is not None:
        parts["overlay"] = lambda _: overlay.pins(pinned_by.path, pinned_by.input, told)
    if pins_only:
        kept = ("lender", "overlay")
        parts = {name: part for name, part in parts.items() if name in kept or "pins" in name}
    return carry_out(parts, "preflight", within_s)


def _lender() -> Iterator[Check]:
    yield Check("lender", "ok", f"lender {importlib.metadata.version('lender')}")
