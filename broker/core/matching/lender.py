"""One lender: what it could lend, what it can lend now, and which leases are counted to it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from broker.core.matching.need import Amounts, Need
from lender.protocol.job import BlobRef, Reach
from lender.protocol.lease import Offer, OfferedNet
from lender.protocol.reach import covers

NETS_LOOKED_AT = 16
"""Grants for a submitter's workload: a lender may list a thousand, to have them all looked at."""

FEED_PER_SLOT = 2
"""Leases outstanding for what it can lend: one runs, one waits in the queue."""

_NOTHING = Amounts()


@dataclass(slots=True, eq=False)
class Lender:
    """A lender's last offer, and the outstanding leases counted to it."""

    id: str
    offer: Offer
    heard_at: float
    os: str = ""
    classes: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()
    blobs: frozenset[str] = frozenset()
    nets: dict[tuple[str, str], list[Reach]] = field(default_factory=dict)
    """Where work may get to on the network, of each submitter and workload by each grant."""
    lends: Amounts = _NOTHING
    """What is free, and what the leases that it holds need; nothing while it takes no work."""
    most: Amounts = _NOTHING
    """The most that it has had to lend since it came, whether or not it took work then."""
    claims: dict[str, Need] = field(default_factory=dict)
    room: Amounts = _NOTHING
    """The largest task that one more lease may have: nothing of what is claimed twice over."""
    has_room: bool = False
    """Whether any more work may wait for it."""
    reminded_at: float = 0.0
    taken: dict[str, int] = field(default_factory=dict)
    """Of each device, how many of those leases it is for."""
    tier: int = 0
    place: int | None = None
    """Where it stands on the shelf of its tier; None while it has no room."""
    _cores: int = 0
    _memory: int = 0
    _disk: int = 0
    _vram: int = 0

    @property
    def slots(self) -> int:
        """Usable slots: free cores, and those of the leases that it holds."""
        return self.lends.cores

    @property
    def unclaimed(self) -> Amounts:
        """What it lends, less what any lease is counted to it for; below 0 where they wait."""
        lends = self.lends
        return Amounts(
            lends.cores - self._cores,
            lends.memory_bytes - self._memory,
            lends.disk_bytes - self._disk,
            lends.vram_bytes - self._vram,
        )

    def allows(self, need: Need) -> bool:
        """Tell whether its owner and its kind of machine allow the work, whatever its size."""
        return (
            need.class_token in self.classes
            and need.os in ("any", self.os)
            and need.labels <= self.labels
            and (not need.sealed_to or self.id in need.sealed_to)
            and (need.net is None or self.reaches(need.net))
        )

    def reaches(self, net: OfferedNet) -> bool:
        """Tell whether one of its owner's grants lets the work get to all that it needs."""
        reaches = self.nets.get((net.submitter, net.workload), ())
        return any(covers(one, net.reach) for one in reaches)

    def spares(self, need: Need) -> bool:
        """Tell whether the devices that the work asks for are in no other lease's hands."""
        return not need.devices or self.taken.keys().isdisjoint(need.devices)

    def may_run(self, need: Need) -> bool:
        """Tell whether it could ever run the work."""
        return need.within(self.most) and self.allows(need)

    def has_room_for(self, need: Need) -> bool:
        """Tell whether one more lease of such work may wait for it."""
        room = self.room  # each comparison stands here, since this is asked most of all
        return (
            need.cores <= room.cores
            and need.memory_bytes <= room.memory_bytes
            and need.disk_bytes <= room.disk_bytes
            and need.vram_bytes <= room.vram_bytes
            and need.class_token in self.classes
            and (not need.labels or (need.labels <= self.labels and self.spares(need)))
            and (not need.sealed_to or self.id in need.sealed_to)
            and (need.os == "any" or need.os == self.os)  # noqa: PLR1714  # else a tuple is made
            and (need.net is None or self.reaches(need.net))
        )

    def holds_bytes(self, blobs: Iterable[BlobRef]) -> int:
        """Return how much of these it has at hand."""
        return sum(one.size_bytes for one in blobs if one.sha256 in self.blobs)

    def lies_idle_for(self, need: Need) -> bool:
        """Tell whether such work could begin beside all that is counted to it."""
        lends = self.lends
        return (
            self._cores + need.cores <= lends.cores
            and self._memory + need.memory_bytes <= lends.memory_bytes
            and self._disk + need.disk_bytes <= lends.disk_bytes
            and self._vram + need.vram_bytes <= lends.vram_bytes
            and self.allows(need)
            and self.spares(need)
        )

    def may_begin(self, need: Need) -> int:
        """Return how many leases of such work it could take now, as it has said itself."""
        offer, disk = self.offer, self.offer.disk_free_bytes
        if (
            need.memory_bytes <= offer.memory_free_bytes
            and need.vram_bytes <= offer.vram_free_bytes
            and (disk is None or need.disk_bytes <= disk)
            and self.allows(need)
            and self.spares(need)
        ):
            return offer.slots_free // need.cores
        return 0

    def hear(self, now: float, offer: Offer, held: Iterable[Need]) -> bool:
        """Take up an offer; tells whether it may have room for what it had none for before.

        Args:
            now: seconds since the epoch.
            offer: of this lender.
            held: what the leases need that it lists, as far as they are known.
        """
        # A lease that is not known any more holds its core still.
        cores = offer.slots_free + len(offer.leases)
        memory, vram = offer.memory_free_bytes, offer.vram_free_bytes
        disk = inf if offer.disk_free_bytes is None else offer.disk_free_bytes
        for need in held:
            cores += need.cores - 1
            memory += need.memory_bytes
            disk += need.disk_bytes
            vram += need.vram_bytes
        offered = Amounts(cores, memory, disk, vram)
        changed = self._describe(offer)
        self.heard_at = now
        self.offer = offer
        self.os = offer.os
        self.lends = offered if offer.phase == "lending" else _NOTHING
        most = self.most
        self.most = Amounts(
            max(most.cores, offered.cores, offer.slots_total),
            max(most.memory_bytes, offered.memory_bytes),
            # What was unknown may be known by now.
            offered.disk_bytes
            if most.disk_bytes == inf
            else max(most.disk_bytes, offered.disk_bytes),
            max(most.vram_bytes, offered.vram_bytes),
        )
        return self._measure() or changed

    def claim(self, lease_id: str, need: Need) -> None:
        """Count a lease to it."""
        self.claims[lease_id] = need
        self._cores += need.cores
        self._memory += need.memory_bytes
        self._disk += need.disk_bytes
        self._vram += need.vram_bytes
        for device in need.devices:
            self.taken[device] = self.taken.get(device, 0) + 1
        self._measure()

    def release(self, lease_id: str) -> bool:
        """Count a lease to it no longer; tells whether there is room that was not there before."""
        need = self.claims.pop(lease_id)
        self._cores -= need.cores
        self._memory -= need.memory_bytes
        self._disk -= need.disk_bytes
        self._vram -= need.vram_bytes
        freed = False
        for device in need.devices:
            self.taken[device] -= 1
            if not self.taken[device]:
                del self.taken[device]
                freed = self.has_room
        return self._measure() or freed

    def _describe(self, offer: Offer) -> bool:
        """Note what kind of machine it is; tells whether that is news."""
        before = self.offer
        changed = before.os != offer.os
        if bool(self.nets) != bool(offer.net) or before.net != offer.net:
            self.nets = _by_work(offer.net)
            changed = True
        # The lengths differ on the first offer; later, offers are mostly equal, and cheaply so.
        if len(self.classes) != len(offer.classes) or before.classes != offer.classes:
            self.classes = frozenset(offer.classes)
            changed = True
        if len(self.labels) != len(offer.labels) or before.labels != offer.labels:
            self.labels = frozenset(offer.labels)
            changed = True
        if len(self.blobs) != len(offer.blobs) or before.blobs != offer.blobs:
            self.blobs = frozenset(offer.blobs)
        return changed

    def _measure(self) -> bool:
        """Find out what room there is; tells whether any has grown.

        What is not yet claimed in full may be claimed once more, whatever the size of the task:
        else small tasks would take all room before a large one ever finds enough of it.
        """
        lends, before = self.lends, self.room
        cores = lends.cores if self._cores < FEED_PER_SLOT * lends.cores else 0
        memory = lends.memory_bytes if self._memory < FEED_PER_SLOT * lends.memory_bytes else 0
        disk = lends.disk_bytes if self._disk < FEED_PER_SLOT * lends.disk_bytes else 0
        vram = lends.vram_bytes if self._vram < FEED_PER_SLOT * lends.vram_bytes else 0
        if (
            cores == before.cores
            and memory == before.memory_bytes
            and disk == before.disk_bytes
            and vram == before.vram_bytes
        ):
            return False
        self.room = Amounts(cores, memory, disk, vram)
        self.has_room = cores > 0 and memory > 0
        return (
            cores > before.cores
            or memory > before.memory_bytes
            or disk > before.disk_bytes
            or vram > before.vram_bytes
        )


def _by_work(nets: Iterable[OfferedNet]) -> dict[tuple[str, str], list[Reach]]:
    found: dict[tuple[str, str], list[Reach]] = {}
    for one in nets:
        reaches = found.setdefault((one.submitter, one.workload), [])
        if len(reaches) < NETS_LOOKED_AT:
            reaches.append(one.reach)
    return found
