"""The checks of `lender doctor`: each looks, changes nothing, and knows a mend.

One file per theme. A check that needs another program or a server is bounded in time.
"""

import encodings.idna  # noqa: F401  # found by name later, when root has become the owner
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from lender.cli.checks import clock, daemon, files, rehearsal, runtimes
from lender.cli.checks.check import Check
from lender.cli.owner import tell
from lender.state.folder import StateFolder

if sys.platform == "darwin":
    from lender.cli.checks.mac import system
else:
    from lender.cli.checks.kernel import system

__all__ = ["Check", "examine"]

_MEND: Final = "try again once the machine is less busy"


WITHIN_S: Final = 30.0
"""For all of them: what has not begun by then is left out, and said to be. Each is bounded too."""

Part = Callable[[float], Iterator[Check]]
"""A check or several; told how many seconds are left."""


def examine(state: StateFolder, within_s: float = WITHIN_S) -> list[Check]:
    """Run all checks, each once. One that fails itself, or is not come to, is a warning."""
    end = time.monotonic() + within_s
    told = tell(state, "status")
    parts: dict[str, Part] = {
        "state": lambda _: files.state_folder(state),
        "consent": lambda _: files.consent(state),
        "receipts": lambda _: files.receipts(state),
        "daemon": lambda _: daemon.lenderd(told),
        "nats": lambda _: daemon.nats(told),
        "presence": lambda _: daemon.presence(told),
        "python": lambda _: runtimes.python(),
        "clock": lambda _: clock.clock(state),
        "system": lambda _: system(state),
        "runtimes": partial(runtimes.runtimes, told),
        "rehearsal": rehearsal.revocation,
    }
    found: list[Check] = []
    for name, part in parts.items():
        left_s = end - time.monotonic()
        if left_s <= 0:
            text = f"not checked, as the others took {within_s:g} s: {name}"
            found.append(Check(name, "warning", text, _MEND))
            continue
        try:
            found += part(left_s)
        except (OSError, ValueError) as error:
            found.append(Check("doctor", "warning", f"{name} could not be checked: {error}"))
    return found
