"""What an attempt's tasks moved over the network, as their proxies count it: a file per sandbox.

Standard library only: `lender revoke` reads it as well. It outlives lenderd, so that what was moved
under a lenderd that died is paid for too.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lender.sandbox.egress.counters import Counters
from lender.state.attempt_records import AttemptRecord
from lender.state.folder import StateFolder

_SUFFIX = ".moved"


class MovedBytes(NamedTuple):
    """Both ways.

    Attributes:
        in_bytes: from servers.
        out_bytes: to servers.
    """

    in_bytes: int = 0
    out_bytes: int = 0


def counters_path(state: StateFolder, sandbox: str) -> Path:
    """Return the file of a sandbox, by the name of its scratch folder."""
    return state.attempts / f"{sandbox}{_SUFFIX}"


def moved_by(state: StateFolder, record: AttemptRecord) -> MovedBytes | None:
    """Return what an attempt moved; None: it had no network, or nobody can tell."""
    if record.terms is None or not record.terms.network:
        return None
    try:
        counters = Counters.at(_path_of(state, record))
    except OSError:
        return None
    try:
        now, before = counters.read(), record.terms.moved_before
    finally:
        counters.close()
    return MovedBytes(max(0, now.in_bytes - before[0]), max(0, now.out_bytes - before[1]))


def forget_moved(state: StateFolder, but: Iterable[AttemptRecord]) -> None:
    """Remove the files of all sandboxes but those that have a record yet; no lenderd is alive."""
    kept = {_path_of(state, record) for record in but}
    for path in {*state.attempts.glob(f"*{_SUFFIX}")} - kept:
        with contextlib.suppress(OSError):
            path.unlink()


def _path_of(state: StateFolder, record: AttemptRecord) -> Path:
    return counters_path(state, Path(record.scratch).name)
