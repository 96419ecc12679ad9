"""Who is logged in, what screens are locked, who keeps the machine awake: systemd-logind, elogind.

One call and one more per session: about 1 ms for two sessions. `IdleHint` is not read: many
desktops never set it. Source: org.freedesktop.login1(5).
"""

from dataclasses import dataclass
from typing import Any

from lender.sensors.dbus import PROPERTIES, Bus, UnansweredError

NAME = "org.freedesktop.login1"
ROOT = "/org/freedesktop/login1"
MANAGER = "org.freedesktop.login1.Manager"

GRAPHICAL = frozenset({"x11", "wayland", "mir"})

_PEOPLE = frozenset({"user", "user-early", "user-light", "user-early-light"})
_GATES = frozenset({"greeter", "lock-screen"})


@dataclass(frozen=True, slots=True)
class Session:
    """One login.

    Attributes:
        uid: whose.
        person: somebody's own session; False: a login or lock screen.
        kind: x11, wayland, mir, tty, or unspecified.
        seat: whose screen and keyboard it uses; "": none, as over the network.
        active: it is in front on its seat; without a seat always so.
        remote: it came over the network.
        locked: it says so itself (`LockedHint`).
        tty: device name such as "tty2" or "pts/0"; "": none.
    """

    uid: int
    person: bool
    kind: str
    seat: str
    active: bool
    remote: bool
    locked: bool
    tty: str

    @property
    def visible(self) -> bool:
        """Tell whether it can be looked at: on a seat, in front or not, or as a remote desktop."""
        return self.kind in GRAPHICAL or bool(self.seat and self.tty)

    @property
    def in_front(self) -> bool:
        """Tell whether somebody could be looking at it now."""
        return self.visible and (self.active or not self.seat)


def sessions(bus: Bus) -> tuple[Session, ...]:
    """Return all sessions that are not about to end.

    Raises:
        UnansweredError: no logind.
    """
    listed = bus.call(NAME, ROOT, f"{MANAGER}.ListSessions", "a(susso)")
    found = []
    for *_, path in listed:
        try:
            fields = bus.call(
                NAME,
                path,
                f"{PROPERTIES}.GetAll",
                "a{sv}",
                ("s", ("org.freedesktop.login1.Session",)),
            )
        except UnansweredError as error:
            if "UnknownObject" in str(error):
                continue  # it ended since
            raise
        session = _session(fields)
        if session is not None:
            found.append(session)
    return tuple(found)


def idle_inhibitors(bus: Bus, our_pid: int) -> tuple[str, ...]:
    """Return who keeps the machine from going idle, other than us.

    Raises:
        UnansweredError: no logind.
    """
    listed = bus.call(NAME, ROOT, f"{MANAGER}.ListInhibitors", "a(ssssuu)")
    return tuple(
        who or "a program"
        for what, who, _why, mode, _uid, pid in listed
        if "idle" in what.split(":") and mode.startswith("block") and pid != our_pid
    )


def _session(fields: dict[str, tuple[str, Any]]) -> Session | None:
    kind = _value(fields, "Class", "s")
    person = kind in _PEOPLE
    if not (person or kind in _GATES) or _value(fields, "State", "s") == "closing":
        return None
    return Session(
        uid=_value(fields, "User", "(uo)")[0],
        person=person,
        kind=_value(fields, "Type", "s"),
        seat=_value(fields, "Seat", "(so)")[0],
        active=_value(fields, "Active", "b"),
        remote=_value(fields, "Remote", "b"),
        # systemd before 230 does not know the property.
        locked=_value(fields, "LockedHint", "b") if "LockedHint" in fields else False,
        tty=_value(fields, "TTY", "s").removeprefix("/dev/"),
    )


def _value(fields: dict[str, tuple[str, Any]], name: str, signature: str) -> Any:  # noqa: ANN401 - typed by `signature`
    found, value = fields.get(name, ("", None))
    if found != signature:
        raise UnansweredError(f"logind gives no {name}")
    return value
