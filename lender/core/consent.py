"""What the owner has agreed to: grants, the tombstones that beat them, and the stored intent.

Standard library only: `lender pause` and `lender revoke` read it without the daemon.
"""

import hashlib
from dataclasses import dataclass, replace

from lender.core.budget import UNLIMITED, Budget
from lender.core.schedule import ALWAYS, When
from lender.protocol.reach import covers, in_words


@dataclass(frozen=True, slots=True)
class Grant:
    """One scoped, expiring consent record, in the owner's own words on this machine.

    Attributes:
        id: never used again after a revocation.
        submitter: public key; there is no wildcard.
        workload: name of the workload.
        digest: SHA-256 that the program must have, or None for any program of the workload.
        cpu: most cores that one task may ask for.
        memory_bytes: most memory that one task may ask for.
        not_after: end of the consent, seconds since the epoch.
        granted_at: when the owner agreed, seconds since the epoch.
        vram_bytes: most GPU memory that one task may ask for; 0: no GPU at all.
        when: at which times of the owner's it holds.
        budget: how much it may use up in a day and in a week.
        net: where its work may get to on the network, `lender.protocol.reach`; empty: nowhere.
        net_metered: that holds also while the network is paid by volume.
        devices: that one task may use, by their labels; see `lender.protocol.devices`.
    """

    id: str
    submitter: str
    workload: str
    digest: str | None
    cpu: int
    memory_bytes: int
    not_after: float
    granted_at: float
    vram_bytes: int = 0
    when: When = ALWAYS
    budget: Budget = UNLIMITED
    net: tuple[str, ...] = ()
    net_metered: bool = False
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """What a lease wants to run, in the terms that a grant speaks of."""

    submitter: str
    workload: str
    digest: str | None
    cpu: int
    memory_bytes: int
    gpu: bool = False
    vram_bytes: int = 0
    net: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the owner's consent does not cover an `Ask`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Consent:
    """All grants on this machine and the ids of those that were revoked.

    A tombstone names the grants that it ends, so it beats them whatever the clock says.
    """

    grants: tuple[Grant, ...] = ()
    revoked: frozenset[str] = frozenset()

    def valid(self, now: float) -> tuple[Grant, ...]:
        """Return the grants that hold at `now`, in order of their ids."""
        held = (g for g in self.grants if g.id not in self.revoked and now < g.not_after)
        return tuple(sorted(held, key=lambda grant: grant.id))

    def covers(self, ask: Ask, now: float) -> Grant | Refusal:
        """Return the grant that allows `ask`, or why none does."""
        grants = [g for g in self.valid(now) if g.submitter == ask.submitter]
        if not grants:
            return Refusal("no grant names this submitter")
        grants = [g for g in grants if g.workload == ask.workload]
        if not grants:
            return Refusal(f"no grant allows workload {ask.workload} to this submitter")
        faults = [(_fault(grant, ask), grant) for grant in grants]
        for fault, grant in faults:
            if fault is None:
                return grant
        return Refusal(str(faults[0][0]))

    def digest(self, now: float) -> str:
        """Return a short digest of what is allowed at `now`: it changes when consent does."""
        return hashlib.sha256(repr(self.valid(now)).encode()).hexdigest()[:16]

    def next_expiry(self, now: float) -> float | None:
        """Return when the next grant ends."""
        return min((grant.not_after for grant in self.valid(now)), default=None)


def changed(grant: Grant) -> str:
    """Say that the program which a grant is pinned to is no longer its workload's."""
    return (
        f"workload {grant.workload} changed since you agreed (grant {grant.id}): "
        f"lender grant it again"
    )


def _fault(grant: Grant, ask: Ask) -> str | None:
    if grant.digest is not None and ask.digest != grant.digest:
        return changed(grant)
    if ask.cpu > grant.cpu:
        return f"asks for {ask.cpu} cores, grant {grant.id} allows {grant.cpu}"
    if ask.memory_bytes > grant.memory_bytes:
        return (
            f"asks for {ask.memory_bytes} bytes of memory, "
            f"grant {grant.id} allows {grant.memory_bytes}"
        )
    return _fault_beyond(grant, ask)


def _fault_beyond(grant: Grant, ask: Ask) -> str | None:
    """What most work needs nothing of."""
    if ask.gpu and not grant.vram_bytes:
        return f"asks for a GPU, grant {grant.id} allows none"
    if ask.vram_bytes > grant.vram_bytes:
        return (
            f"asks for {ask.vram_bytes} bytes of GPU memory, "
            f"grant {grant.id} allows {grant.vram_bytes}"
        )
    if not covers(grant.net, ask.net):
        return f"asks for {in_words(ask.net)}, grant {grant.id} allows {in_words(grant.net)}"
    if barred := [one for one in ask.devices if one not in grant.devices]:
        return f"asks for {', '.join(barred)}, grant {grant.id} does not allow it"
    return None


@dataclass(frozen=True, slots=True)
class Intent:
    """The owner's last word on lending at all; level-triggered, survives a reboot.

    Times are seconds since the epoch.

    Attributes:
        paused: nothing new is taken until the owner resumes, or `until` has come.
        paused_at: when the word was said; 0 when none was.
        until: the pause ends by itself; None: only the owner ends it.
        finish_by: running work may go on until then, and is evicted after it; None: it stands
            still at once.
        said_by: uid of who said it; None: this machine's owner.
        by_mqtt: it came by MQTT alone, so that MQTT may end it.
    """

    paused: bool = False
    paused_at: float = 0.0
    until: float | None = None
    finish_by: float | None = None
    said_by: int | None = None
    by_mqtt: bool = False

    def by_clock(self, ahead_s: float) -> "Intent":
        """Return the same word by a clock that is `ahead_s` ahead of the one it was said by."""
        until = None if self.until is None else self.until + ahead_s
        finish_by = None if self.finish_by is None else self.finish_by + ahead_s
        return replace(self, until=until, finish_by=finish_by)

    def holds(self, now: float) -> bool:
        """Tell whether nothing new may be taken at `now`."""
        return self.paused and (self.until is None or now < self.until)

    def stops(self, now: float) -> bool:
        """Tell whether nothing at all may run at `now`."""
        return self.holds(now) and not self.finishing(now)

    def finishing(self, now: float) -> bool:
        """Tell whether running work may go on at `now` although nothing new may be taken."""
        return self.holds(now) and self.finish_by is not None and now < self.finish_by

    def next_change(self, now: float) -> float | None:
        """Return when time alone changes what this word means."""
        if not self.holds(now):
            return None
        moments = (self.until, self.finish_by)
        return min((one for one in moments if one is not None and one > now), default=None)
