"""What single sources say of the people at this machine, and what follows from all of them.

Pure. Every doubt is settled for the owner: what no source tells counts as somebody present.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lender.core.signals import Presence


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one source says; None: it says nothing of this.

    Attributes:
        source: its name, as `lender status` shows it.
        uid: whose session it sees; None: everybody's at the screens and keyboards here.
        last_input_at: when somebody last typed or moved something, `time.monotonic` seconds.
        sitting: uids of those whose sessions are on a screen of this machine; empty: nobody's.
        remote_desktops: uids of those who have a graphical session without a screen here.
        desktop: somebody could sit here.
        locked: every screen asks for a password.
        remote_sessions: people logged in from elsewhere who typed within the last minutes.
        inhibited_by: who asked the desktop to stay awake; "": nobody.
        game: a game told GameMode that it plays.
        metered: the network is paid by volume.
    """

    source: str
    uid: int | None = None
    last_input_at: float | None = None
    sitting: frozenset[int] | None = None
    remote_desktops: frozenset[int] = frozenset()
    desktop: bool | None = None
    locked: bool | None = None
    remote_sessions: int | None = None
    inhibited_by: str | None = None
    game: bool | None = None
    metered: bool | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The part of `Signals` that tells of people; fields as there."""

    presence: Presence = field(default_factory=lambda: Presence(desktop=True))
    inhibited_by: str = ""
    game: bool = False
    metered: bool = False


def merge(
    now: float, sightings: Sequence[Sighting], owner_uid: int, *, desktop: bool = True
) -> Surroundings:
    """Combine what all sources say, in the order of trust.

    The shortest idle time of all counts. It is believed, as is a lock, only if everybody who
    sits here is seen by some source: what watches one user's session can't vouch for another's.

    Args:
        now: `time.monotonic` seconds.
        sightings: the better source first.
        owner_uid: who sits here where no source tells.
        desktop: what was last known of that, for where no source tells.
    """
    here = next(
        (one for one in sightings if one.sitting is not None),
        Sighting("nobody", sitting=frozenset({owner_uid})),
    )
    if here.desktop is not None:
        desktop = here.desktop
    elif any(one.desktop is not None for one in sightings):
        desktop = any(one.desktop for one in sightings)
    inputs = [one for one in sightings if one.last_input_at is not None]
    idle_s = None
    if inputs and _see_all(inputs, here):
        idle_s = max(0.0, now - max(one.last_input_at or 0.0 for one in inputs))
    # A lock that is nobody's here locks nothing.
    people = (here.sitting or frozenset()) | here.remote_desktops | {None}
    locks = [one for one in sightings if one.locked is not None and one.uid in people]
    locked = None
    if not all(one.locked for one in locks):
        locked = False
    elif locks and _see_all(locks, here):
        locked = True
    return Surroundings(
        presence=Presence(
            idle_s=idle_s,
            locked=locked,
            desktop=desktop,
            remote_sessions=sum(one.remote_sessions or 0 for one in sightings),
            sources=tuple(dict.fromkeys(one.source for one in [*inputs, *locks])),
        ),
        inhibited_by=next((one.inhibited_by for one in sightings if one.inhibited_by), ""),
        game=any(one.game for one in sightings),
        metered=any(one.metered for one in sightings),
    )


def _see_all(witnesses: Sequence[Sighting], here: Sighting) -> bool:
    """Tell whether these sources see everybody who is here."""
    uids = {one.uid for one in witnesses}
    see_seats = None in uids or (here.sitting or frozenset()) <= uids
    return see_seats and here.remote_desktops <= uids
