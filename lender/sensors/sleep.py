"""Says when the machine is about to sleep, holds it back meanwhile, and says when it woke up.

Also tells of a sleep that nobody announced. logind's delay inhibitor gives 5 s
(InhibitDelayMaxSec). Costs nothing between sleeps but two clock readings every 2 s.
Source: systemd's "Inhibitor Locks", org.freedesktop.login1(5).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lender.sensors.dbus import (
    BUS,
    BUS_PATH,
    PROPERTIES,
    BusConnection,
    UnansweredError,
    method_call,
    system_address,
)
from lender.sensors.logind import MANAGER, NAME, ROOT
from lender.sensors.sleep_clocks import Clocks, read_clocks, slept_s

if TYPE_CHECKING:
    from jeepney import Message

TICK_S = 2.0
RECONNECT_S = 5.0

_RULES = (
    f"type='signal',sender='{NAME}',path='{ROOT}',interface='{MANAGER}',member='PrepareForSleep'",
    f"type='signal',sender='{BUS}',member='NameOwnerChanged',arg0='{NAME}'",
)

_log = logging.getLogger(__name__)


class SleepTracker:
    """Tells each sleep's end once, whether by logind's word or by the clocks. Pure."""

    def __init__(self, clocks: Clocks) -> None:
        self._last = clocks
        self._announced = False

    def announced(self) -> bool:
        """Take the announcement; False: it was taken before."""
        news = not self._announced
        self._announced = True
        return news

    def ended(self, clocks: Clocks) -> float | None:
        """Take logind's word that the sleep is over, or that it won't be.

        Returns:
            how long the machine slept, in seconds; None: that was told already.
        """
        asleep_s, announced = self._asleep_s(clocks), self._announced
        self._announced = False
        return asleep_s if asleep_s or announced else None

    def ticked(self, clocks: Clocks) -> float | None:
        """Look at the clocks; return how long the machine slept meanwhile, None if not."""
        asleep_s = self._asleep_s(clocks)
        if not asleep_s:
            return None
        self._announced = False
        return asleep_s

    def _asleep_s(self, clocks: Clocks) -> float:
        last, self._last = self._last, clocks
        return slept_s(last, clocks)


class SleepWatch:
    """Calls back on the loop that runs `run`.

    Args:
        on_announced: hand the work back, then call `release`.
        on_woken: gets the seconds slept; 0.0 for a sleep that was announced and did not happen.
        address: of the system bus.
        clocks: read at every tick.
    """

    def __init__(
        self,
        on_announced: Callable[[], None],
        on_woken: Callable[[float], None],
        address: Callable[[], str] = system_address,
        clocks: Callable[[], Clocks] = read_clocks,
    ) -> None:
        self._on_announced = on_announced
        self._on_woken = on_woken
        self._address = address
        self._clocks = clocks
        self._tracker = SleepTracker(clocks())
        self._lost = asyncio.Event()
        self._logind = ""
        self._connection: BusConnection | None = None
        self._why_not = ""
        self._asked_inhibitor = 0
        self._inhibitor: Any = None

    @property
    def holds(self) -> bool:
        """Whether the machine would wait for `release` before it sleeps."""
        return self._inhibitor is not None

    def release(self) -> None:
        """Let the machine sleep; nothing happens if it was not held back."""
        if self._inhibitor is not None:
            self._inhibitor.close()
            self._inhibitor = None

    async def run(self) -> None:
        """Watch until cancelled; where logind is missing, try again every `RECONNECT_S`."""
        try:
            while True:
                await self._connect()
                if self._connection is not None:
                    await self._until(self._lost.wait())
                    self._disconnect()
                await self._until(asyncio.sleep(RECONNECT_S))
        finally:
            self._disconnect()

    async def _connect(self) -> None:
        opened, why_not = None, "no message bus"
        if address := self._address():
            try:
                opened = await asyncio.to_thread(_open, address)
            except (UnansweredError, OSError) as error:
                why_not = str(error)
        if opened is None:
            if why_not != self._why_not:
                _log.info("sleep is not announced to us: %s", why_not)
            self._why_not = why_not
            return
        self._why_not = ""
        self._connection, self._logind, self._inhibitor, preparing = opened
        self._lost.clear()
        asyncio.get_running_loop().add_reader(self._connection.fileno(), self._on_readable)
        self._announce() if preparing else self._wake()

    def _disconnect(self) -> None:
        self.release()
        if self._connection is not None:
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            self._connection.close()
            self._connection = None

    async def _until(self, event: Any) -> None:  # noqa: ANN401 - any awaitable
        """Look at the clocks every `TICK_S` until something happens."""
        waiting = asyncio.ensure_future(event)
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=TICK_S)
                if (asleep_s := self._tracker.ticked(self._clocks())) is not None:
                    self._woke(asleep_s)
        finally:
            waiting.cancel()

    def _on_readable(self) -> None:
        assert self._connection is not None
        try:
            while (message := self._connection.receive(0.0)) is not None:
                self._take(message)
        except OSError as error:
            _log.info("sleep is not announced to us any more: %s", error)
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            self._lost.set()

    def _take(self, message: "Message") -> None:
        from jeepney import HeaderFields, MessageType  # noqa: PLC0415  # see dbus.py

        fields = message.header.fields
        if message.header.message_type is MessageType.method_return:
            if fields.get(HeaderFields.reply_serial) == self._asked_inhibitor:
                self.release()
                self._inhibitor = message.body[0]
            return
        member, sender = fields.get(HeaderFields.member), fields.get(HeaderFields.sender)
        # Anybody may send us a signal of any name: the bus vouches for the sender alone.
        if member == "PrepareForSleep" and sender == self._logind:
            if fields.get(HeaderFields.signature) == "b":
                self._announce() if message.body[0] else self._wake()
        elif member == "NameOwnerChanged" and sender == BUS:
            raise ConnectionResetError("logind restarted")

    def _announce(self) -> None:
        if self._tracker.announced():
            self._on_announced()

    def _wake(self) -> None:
        if (asleep_s := self._tracker.ended(self._clocks())) is not None:
            self._woke(asleep_s)
        elif not self.holds:
            self._hold()

    def _woke(self, asleep_s: float) -> None:
        if not self.holds:
            self._hold()
        self._on_woken(asleep_s)

    def _hold(self) -> None:
        """Ask for a new inhibitor; it comes as a message."""
        if self._connection is not None:
            try:
                self._asked_inhibitor = self._connection.send(_inhibit())
            except OSError:
                self._lost.set()


def _open(address: str) -> tuple[BusConnection, str, Any, bool]:
    """Subscribe and take the inhibitor; returns also logind's unique name and whether sleep is due.

    Raises:
        UnansweredError, OSError: no logind.
    """
    connection = BusConnection(address, takes_fds=True)
    try:
        owner = connection.call(_bus_call("GetNameOwner", NAME)).body[0]
        for rule in _RULES:
            connection.call(_bus_call("AddMatch", rule))
        try:
            inhibitor = connection.call(_inhibit()).body[0]
        except UnansweredError as error:
            _log.info("the machine won't wait for us before it sleeps: %s", error)
            inhibitor = None
        asked = method_call(NAME, ROOT, f"{PROPERTIES}.Get", ("ss", (MANAGER, "PreparingForSleep")))
        preparing = connection.call(asked).body[0][1] is True
    except BaseException:
        connection.close()
        raise
    return connection, owner, inhibitor, preparing


def _bus_call(member: str, argument: str) -> "Message":
    return method_call(BUS, BUS_PATH, f"{BUS}.{member}", ("s", (argument,)))


def _inhibit() -> "Message":
    why = "hands lent work back first"
    return method_call(
        NAME, ROOT, f"{MANAGER}.Inhibit", ("ssss", ("sleep", "lender", why, "delay"))
    )
