"""The checks of `lender doctor` and `lender preflight`: each looks, changes nothing, knows a mend.

One file per theme. A check that needs another program or a server is bounded in time. The doctor's
table is here: a machine that lends. What is looked at before joining is `joining`'s.
"""

import encodings.idna  # noqa: F401  # found by name later, when root has become the owner
import sys
from functools import partial
from itertools import chain

from lender.cli.checks import clock, daemon, devices, files, rehearsal, runtimes
from lender.cli.checks.check import Check
from lender.cli.checks.running import WITHIN_S, Part, carry_out
from lender.cli.owner import tell
from lender.state.folder import StateFolder

if sys.platform == "darwin":
    from lender.cli.checks.mac import system
else:
    from lender.cli.checks.kernel import system

__all__ = ["Check", "examine", "system"]


def examine(state: StateFolder, within_s: float = WITHIN_S) -> list[Check]:
    """Run all checks of a machine that lends, each once."""
    told = tell(state, "status")
    parts: dict[str, Part] = {
        "state": lambda _: chain(files.state_folder(state), files.shared(state)),
        "consent": lambda _: files.consent(state),
        "receipts": lambda _: files.receipts(state),
        "daemon": lambda _: daemon.lenderd(told),
        "nats": lambda _: daemon.nats(told),
        "home": lambda _: daemon.home(told),
        "presence": lambda _: daemon.presence(told),
        "python": lambda _: runtimes.python(),
        "clock": lambda _: clock.clock(state),
        "system": lambda _: system(state),
        "runtimes": partial(runtimes.runtimes, told),
        "devices": lambda _: devices.devices(told),
        "gpus": lambda _: devices.gpus(),
        "rehearsal": rehearsal.revocation,
    }
    return carry_out(parts, "doctor", within_s)
