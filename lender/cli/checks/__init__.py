"""The checks of `lender doctor`: each looks, changes nothing, and knows a mend.

One file per theme. A check that needs another program or a server is bounded in time.
"""

import encodings.idna  # noqa: F401  # found by name later, when root has become the owner
import sys
from collections.abc import Callable, Iterator

from lender.cli.checks import clock, daemon, files, rehearsal, runtimes
from lender.cli.checks.check import Check
from lender.cli.owner import tell
from lender.state.folder import StateFolder

if sys.platform == "darwin":
    from lender.cli.checks.mac import system
else:
    from lender.cli.checks.kernel import system

__all__ = ["Check", "examine"]


def examine(state: StateFolder) -> list[Check]:
    """Run all checks, a few seconds at most. A check that fails itself is a warning."""
    told = tell(state, "status")
    parts: list[Callable[[], Iterator[Check]]] = [
        lambda: files.state_folder(state),
        lambda: files.consent(state),
        lambda: files.receipts(state),
        lambda: daemon.lenderd(told),
        lambda: daemon.nats(told),
        lambda: daemon.presence(told),
        lambda: runtimes.runtimes(told),
        runtimes.python,
        lambda: clock.clock(state),
        lambda: system(state),
        rehearsal.revocation,
    ]
    found: list[Check] = []
    for part in parts:
        try:
            found += part()
        except (OSError, ValueError) as error:
            found.append(Check("doctor", "warning", f"a check could not be made: {error}"))
    return found
