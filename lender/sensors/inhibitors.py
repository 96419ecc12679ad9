"""Who asked this desktop to stay awake (a film, a call): the session bus; 0.3 ms if nobody did.

Sources: org.gnome.SessionManager (flag 8 is idle), org.freedesktop.PowerManagement.Inhibit,
and KDE's PolicyAgent for the names. What logind knows is read in logind.py.
"""

from lender.sensors.dbus import Bus, UnansweredError
from lender.sensors.sighting import Sighting

_IDLE = 8
_NAMES_MAX = 8
_GNOME = "org.gnome.SessionManager"
_POWER = "org.freedesktop.PowerManagement"
_POWER_PATH = "/org/freedesktop/PowerManagement/Inhibit"
_KDE = "org.kde.Solid.PowerManagement"


class SessionInhibitors:
    """Asks the session managers that answer."""

    name = "session inhibitors"
    pace_s = 5.0

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def read(self) -> list[Sighting]:
        """Name who inhibits; "" for nobody.

        Raises:
            UnansweredError: no session manager tells.
        """
        answers = []
        for ask in (self._gnome, self._power):
            try:
                answers.append(ask())
            except UnansweredError:
                continue
        if not answers:
            raise UnansweredError("no session manager tells who inhibits")
        return [Sighting(self.name, inhibited_by=next(filter(None, answers), ""))]

    def _gnome(self) -> str:
        """Name the idle inhibitors of GNOME, Budgie, Cinnamon."""
        path = "/org/gnome/SessionManager"
        if not self._bus.call(_GNOME, path, f"{_GNOME}.IsInhibited", "b", ("u", (_IDLE,))):
            return ""
        names = []
        for one in self._bus.call(_GNOME, path, f"{_GNOME}.GetInhibitors", "ao")[:_NAMES_MAX]:
            try:
                if self._bus.call(_GNOME, one, f"{_GNOME}.Inhibitor.GetFlags", "u") & _IDLE:
                    names.append(self._bus.call(_GNOME, one, f"{_GNOME}.Inhibitor.GetAppId", "s"))
            except UnansweredError:
                continue  # it ended since
        return ", ".join(dict.fromkeys(filter(None, names))) or "a program"

    def _power(self) -> str:
        """Name the inhibitors of KDE and Xfce."""
        if not self._bus.call(_POWER, _POWER_PATH, f"{_POWER}.Inhibit.HasInhibit", "b"):
            return ""
        names: list[str] = []
        try:
            path = "/org/kde/Solid/PowerManagement/PolicyAgent"
            member = f"{_KDE}.PolicyAgent.ListInhibitions"
            names = [who for who, _why in self._bus.call(_KDE, path, member, "a(ss)")]
        except UnansweredError:
            pass  # not KDE
        return ", ".join(dict.fromkeys(filter(None, names[:_NAMES_MAX]))) or "a program"
