"""The people logged in at this machine and from elsewhere: logind, else utmp and open displays.

About 1 ms a reading with logind and two sessions, 0.1 ms without.
"""

import os
import pwd
import re
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from lender.sensors import logind, remote_sessions
from lender.sensors.dbus import Bus, UnansweredError
from lender.sensors.logind import Session
from lender.sensors.sighting import Sighting

_DISPLAYS = ("/tmp/.X11-unix/X", "/wayland-")  # noqa: S108  # where X11 says that its sockets are
_CONSOLE = re.compile(r"tty\d+|ttyv\d+|console")
_NOBODY = -1
_UNIX_SOCKETS = Path("/proc/net/unix")
_LISTENS = "00010000"  # __SO_ACCEPTCON, include/uapi/linux/net.h


class Logins:
    """Tells who sits here, whether the screens are locked, and who works from elsewhere."""

    name = "logind"
    pace_s = 5.0

    def __init__(self, bus: Bus, devices: Path = Path("/dev")) -> None:
        self._bus = bus
        self._devices = devices

    def read(self) -> list[Sighting]:
        """Ask logind; where it does not answer, what the kernel and utmp still tell."""
        now, wall_s = time.monotonic(), time.time()
        try:
            sessions = logind.sessions(self._bus)
            told = [_seen(sessions)]
        except UnansweredError:
            sessions = tuple(_from_utmp())
            told = [_seen_without_logind(sessions)]
        told.append(self._remote(sessions, wall_s))
        told.extend(self._consoles(sessions, now, wall_s))
        told.extend(self._inhibited())
        return told

    def _remote(self, sessions: tuple[Session, ...], wall_s: float) -> Sighting:
        count = remote_sessions.active(
            sessions, wall_s, lambda one: remote_sessions.typed_at(one, self._devices)
        )
        return Sighting("remote", remote_sessions=count)

    def _consoles(
        self, sessions: tuple[Session, ...], now: float, wall_s: float
    ) -> Iterable[Sighting]:
        """Yield when somebody typed on each text console that is in front.

        Where a display server runs, it may have been started from that console and read the
        keyboard itself: such a console vouches for nobody.
        """
        seen_alone = not _display_listens()
        for one in sessions:
            if one.kind == "tty" and one.seat and one.in_front and one.person:
                at = remote_sessions.typed_at(one, self._devices)
                if at is not None:
                    typed_at = now - max(0.0, wall_s - at)
                    uid = one.uid if seen_alone else _NOBODY
                    yield Sighting("tty", uid=uid, last_input_at=typed_at)

    def _inhibited(self) -> Iterable[Sighting]:
        try:
            names = logind.idle_inhibitors(self._bus, os.getpid())
        except UnansweredError:
            return
        yield Sighting("inhibitors", inhibited_by=", ".join(dict.fromkeys(names)))


def _seen(sessions: tuple[Session, ...]) -> Sighting:
    """Say who sits here: nobody does where only the login screen is in front.

    Where no session is in front of a seat (somebody is at another console's login prompt), any
    of its people may sit there.
    """
    visible = [one for one in sessions if one.visible]
    used = {one.seat for one in visible if one.in_front}
    screens = [one for one in visible if one.in_front or one.seat not in used]
    people = [one for one in screens if one.person]
    return Sighting(
        "logind",
        sitting=frozenset(one.uid for one in people if one.seat),
        remote_desktops=frozenset(one.uid for one in people if not one.seat),
        desktop=bool(screens),
        locked=all(one.locked or not one.person for one in screens) if screens else None,
    )


def _seen_without_logind(sessions: tuple[Session, ...]) -> Sighting:
    """Say who sits at the consoles; in front of a display server anybody may."""
    if _display_listens():
        return Sighting("utmp", desktop=True)
    people = frozenset(one.uid for one in sessions if one.seat)
    return Sighting("utmp", sitting=people, desktop=bool(people))


def _from_utmp() -> Iterable[Session]:
    """Yield what utmp knows; a system without it (musl, Debian 13) has no entries."""
    for entry in psutil.users():
        terminal, host = entry.terminal or "", entry.host or ""
        remote = bool(host) and not host.startswith((":", "tmux", "screen", "localhost"))
        console = not remote and _CONSOLE.fullmatch(terminal) is not None
        yield Session(
            uid=_uid_of(entry.name),
            person=True,
            kind="tty",
            seat="seat0" if console else "",
            active=True,
            remote=remote,
            locked=False,
            tty="" if terminal.startswith(":") else terminal,
        )


def _uid_of(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return _NOBODY


def _display_listens() -> bool:
    """Tell whether an X11 or Wayland server waits for programs, in our network namespace."""
    try:
        lines = _UNIX_SOCKETS.read_text(errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[3] == _LISTENS and any(d in fields[7] for d in _DISPLAYS):
            return True
    return False
