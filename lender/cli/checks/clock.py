"""The clock: grants, budgets and schedules go by it."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from lender.cli.checks.check import Check
from lender.state.folder import StateFolder

_TIMEDATECTL_S = 2.0


def clock(state: StateFolder) -> Iterator[Check]:
    """Grants end by this clock: one that was set back would prolong them."""
    now = time.time()
    known = [p.stat().st_mtime for p in (state.intent, state.receipts, state.grants) if p.exists()]
    code = Path(__file__).stat().st_mtime
    if any(then > now + 60 for then in (*known, code)):
        mend = "set the clock; switch on time synchronisation"
        yield Check("clock", "blocker", "the clock is behind what was written here before", mend)
    else:
        yield Check("clock", "ok", f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}")
    if _synchronized() is False:
        mend = "timedatectl set-ntp true"
        yield Check("clock.sync", "info", "nothing keeps the clock right", mend)


def _synchronized() -> bool | None:
    """Whether it is kept right over the network, by systemd's word; None: it can't tell."""
    program = shutil.which("timedatectl")
    if program is None:
        return None
    command = [program, "show", "--property=NTPSynchronized", "--value"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEDATECTL_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    return {"yes": True, "no": False}.get(done.stdout.strip())
