"""People logged in over the network who are at work: their terminal was typed into lately.

A `stat` per terminal, about 2 µs. A terminal's access time moves only when a program reads what
was typed, with a grain of 8 s (Linux, drivers/tty/tty_io.c); output does not move it.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from lender.sensors.logind import Session

ACTIVE_S = 300.0
"""Whoever typed less than this ago is at work; the same as for the person in front."""


def active(
    sessions: Iterable[Session], wall_s: float, typed_at: Callable[[Session], float | None]
) -> int:
    """Count the remote sessions in which somebody typed within `ACTIVE_S`.

    Args:
        sessions: all of them.
        wall_s: now, seconds since the epoch.
        typed_at: when somebody last typed in this session, seconds since the epoch.
    """
    count = 0
    for session in sessions:
        if session.remote and session.person:
            at = typed_at(session)
            count += at is not None and wall_s - at < ACTIVE_S
    return count


def typed_at(session: Session, devices: Path = Path("/dev")) -> float | None:
    """Return when somebody last typed in a session, seconds since the epoch.

    An editor that works through the connection (Remote SSH) has no terminal of its own in the
    session: there the latest of all terminals that belong to its user counts.
    """
    if session.tty:
        return _accessed(devices / session.tty)
    times = [_accessed(path, session.uid) for path in (devices / "pts").glob("[0-9]*")]
    return max((at for at in times if at is not None), default=None)


def _accessed(path: Path, owner: int | None = None) -> float | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_atime if owner in (None, status.st_uid) else None
