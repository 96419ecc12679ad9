"""Whether somebody is there: present, idle or away, from what the sources can tell.

The first of these that holds decides:

1. Somebody is logged in from elsewhere and active: present, on any machine.
2. The screen is locked: away. What bumps against a locked machine is nobody at work.
3. Something keeps the screen awake (a film, a call): present, without any input.
4. No source knows of input: present where somebody could sit, away where nobody can.
5. By the time since the last input: present, idle, away.

Any input counts as somebody at once. If it was only a touch (`touch_s`) after a long calm and
none follows within `forgiven_s`, it was a bump against the desk: what was before holds again,
instead of waiting anew. A second touch before somebody would have been idle is no bump, nor is
an unlocked screen.
"""

from lender.core.policy import PresenceRule
from lender.core.signals import Presence, PresenceState, Signals


class PresenceWatch:
    """Follows the readings, so as to tell a bump from somebody who sits down."""

    def __init__(self, rule: PresenceRule) -> None:
        self._rule = rule
        self._input_at: float | None = None
        self._touch_at: float | None = None
        self._locked = False

    def forget(self) -> None:
        """Begin anew: what was read before says nothing of now."""
        self._input_at, self._touch_at, self._locked = None, None, False

    def read(self, now: float, signals: Signals) -> PresenceState:
        """Take up a reading at `now`, seconds since the epoch."""
        presence = signals.presence
        unlocked = self._locked and not presence.locked
        self._locked = bool(presence.locked)
        if presence.remote_sessions > 0:
            return "present"
        if presence.locked:
            return "away"
        if unlocked or signals.inhibited_by:
            self._input_at, self._touch_at = now, None
            return "present"
        if presence.idle_s is None:
            return "present" if presence.desktop else "away"
        return self._state(self._idle_s(now, now - presence.idle_s))

    def _state(self, idle_s: float) -> PresenceState:
        if idle_s < self._rule.idle_after_s:
            return "present"
        return "idle" if idle_s < self._rule.away_after_s else "away"

    def _idle_s(self, now: float, input_at: float) -> float:
        """Return how long nobody was there, without what may have been a bump."""
        rule = self._rule
        if self._input_at is None or input_at - self._input_at < rule.idle_after_s:
            self._input_at = max(input_at, self._input_at or input_at)
            return now - self._input_at
        if self._touch_at is None or input_at - self._touch_at >= rule.idle_after_s:
            self._touch_at = input_at
        elif input_at - self._touch_at > rule.touch_s:
            self._input_at, self._touch_at = input_at, None
            return now - input_at
        if now - self._touch_at < rule.forgiven_s:
            return now - input_at
        return now - self._input_at


def presence_words(state: PresenceState, presence: Presence) -> str:
    """Say it with what it is known from: `away 14 min, screen locked (logind)`."""
    parts: list[str] = [state]
    if presence.idle_s is not None and state != "present":
        parts = [f"{state} {_minutes(presence.idle_s)}"]
    if presence.remote_sessions:
        parts.append(f"{presence.remote_sessions} logged in from elsewhere")
    if presence.locked:
        parts.append("screen locked")
    silent = "no source tells" if presence.desktop else "nobody can sit here"
    return f"{', '.join(parts)} ({', '.join(presence.sources) or silent})"


def _minutes(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
