"""Watches all sources that tell of people, in one background thread, each at its own pace."""

import logging
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from lender.sensors.dbus import Bus, UnansweredError, session_address, system_address
from lender.sensors.gamemode import GameMode
from lender.sensors.idle_evdev import EvdevIdle
from lender.sensors.idle_mac import MacIdle
from lender.sensors.idle_mutter import MutterIdle
from lender.sensors.idle_screensaver import ScreenSaverIdle
from lender.sensors.idle_wayland import WaylandIdle
from lender.sensors.idle_x11 import X11Idle
from lender.sensors.inhibitors import SessionInhibitors
from lender.sensors.logins import Logins
from lender.sensors.metered import Metered
from lender.sensors.sighting import Sighting, Surroundings, merge

RELAXED_S = 10.0
"""The pace of the faster sources while nothing is lent."""
RETRY_S = 10.0
"""A source that does not answer is asked this seldom."""
CLOSE_S = 1.0

_log = logging.getLogger(__name__)


class Source(Protocol):
    """One place that tells something of people; used by one thread.

    Attributes:
        name: unique among the sources.
        pace_s: how often it is worth asking while work is lent.
    """

    name: str
    pace_s: float

    def read(self) -> list[Sighting]:
        """Ask; bounded, may block.

        Raises:
            UnansweredError: it can't tell now.
        """
        ...


def session_sources() -> list[Source]:
    """Return what only this user's own processes can ask, the better first."""
    bus = Bus(session_address)
    return [
        MutterIdle(bus),
        X11Idle(),
        WaylandIdle(),
        ScreenSaverIdle(bus),
        GameMode(bus),
        SessionInhibitors(bus),
    ]


def machine_sources() -> list[Source]:
    """Return all sources of this machine, the better first."""
    bus = Bus(system_address)
    if sys.platform == "darwin":
        return [MacIdle(), Logins(bus)]
    return [*session_sources(), EvdevIdle(), Logins(bus), Metered(bus)]


class PresenceSensors:
    """Keeps the latest word of every source; nothing older, and nothing on disk.

    Args:
        sources: the better first.
        owner_uid: who sits here where nobody can tell.
    """

    def __init__(self, sources: Sequence[Source], owner_uid: int) -> None:
        self._sources = sources
        self._owner_uid = owner_uid
        self._latest: dict[str, tuple[float, list[Sighting]]] = {}
        self._closely = False
        self._desktop = True
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; one that is held by a source ends with the process."""
        self._closed = True
        self._wake.set()
        self._thread.join(CLOSE_S)

    def watch_closely(self, closely: bool) -> None:  # noqa: FBT001 - a switch
        """Ask at the sources' own pace (True), or not more often than every `RELAXED_S`."""
        if closely and not self._closely:
            self._wake.set()
        self._closely = closely

    def read(self, told: Sequence[Sighting] = ()) -> Surroundings:
        """Return what is known now; never waits, about 30 µs.

        An answer that its source did not renew for a while is forgotten, so that a source that
        hangs or goes away leaves "unknown" behind.

        Args:
            told: what agents of other users' sessions say.
        """
        now = time.monotonic()
        known = [one for source in self._sources for one in self._of(source, now)]
        surroundings = merge(now, [*known, *told], self._owner_uid, desktop=self._desktop)
        self._desktop = surroundings.presence.desktop
        return surroundings

    def _of(self, source: Source, now: float) -> Iterable[Sighting]:
        at, sightings = self._latest.get(source.name, (0.0, []))
        stale_s = 2 * max(source.pace_s, RELAXED_S) + RETRY_S
        return sightings if now - at <= stale_s else ()

    def _run(self) -> None:
        asked = dict.fromkeys((source.name for source in self._sources), float("-inf"))
        while not self._closed:
            self._wake.clear()
            next_at = float("inf")
            for source in self._sources:
                due = asked[source.name] + self._pace_s(source)
                if time.monotonic() >= due:
                    self._ask(source)
                    asked[source.name] = time.monotonic()
                    due = asked[source.name] + self._pace_s(source)
                next_at = min(next_at, due)
            self._wake.wait(max(0.0, next_at - time.monotonic()))

    def _pace_s(self, source: Source) -> float:
        if source.name not in self._latest:
            return max(source.pace_s, RETRY_S)
        return source.pace_s if self._closely else max(source.pace_s, RELAXED_S)

    def _ask(self, source: Source) -> None:
        try:
            self._latest[source.name] = (time.monotonic(), source.read())
        except UnansweredError as error:
            self._forget(source, str(error))
        except Exception as error:  # noqa: BLE001 - what one source trips over must not end the rest
            self._forget(source, repr(error))

    def _forget(self, source: Source, reason: str) -> None:
        if self._latest.pop(source.name, None) is not None:
            _log.info("%s does not tell any more who is here: %s", source.name, reason)
