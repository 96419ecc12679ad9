"""What one task of a job asks of a machine."""

from dataclasses import dataclass, field
from functools import lru_cache
from math import inf

from lender.protocol.classes import WorkClass
from lender.protocol.devices import devices_of
from lender.protocol.job import JobSpec
from lender.protocol.lease import OfferedNet

_KEPT = 4_096
"""Equal needs that are kept, so that to compare two is mostly to find them the same object."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """What can be lent: cores, and bytes of memory, working folders and GPU memory.

    Whole numbers, so that what is added can be taken away again; a disk that nobody knows of is
    infinite.
    """

    cores: int = 0
    memory_bytes: int = 0
    disk_bytes: float = 0
    vram_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Need:
    """Jobs of equal need are one group: all that depends on a machine is the same for them.

    No tuple, since its fields are read at every placement.
    """

    class_token: str
    cores: int
    memory_bytes: int
    disk_bytes: int
    vram_bytes: int
    os: str
    labels: frozenset[str]
    prefers: frozenset[str]
    net: OfferedNet | None = None
    """Where on the network its tasks have to get to, in the terms in which owners allow it."""
    sealed_to: frozenset[str] = frozenset()
    """The only lenders that can read what it works on; empty: all can."""
    verified: bool = False
    """Its tasks go to several lenders each. Such jobs may wait for one that is not there while
    others find room: they stand in nobody's way."""
    devices: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """Those of the labels of which a machine has one each, for one lease at a time."""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "devices", devices_of(self.labels))
        amounts = (self.cores, self.memory_bytes, self.disk_bytes, self.vram_bytes)
        kind = (self.class_token, self.os, self.labels, self.prefers)
        # Told apart by all that a submitter may choose at will: equal hashes make lookups slow.
        net = self.net and (self.net.submitter, self.net.workload, self.net.reach)
        object.__setattr__(self, "_hash", hash((amounts, kind, net, self.sealed_to, self.verified)))

    def __hash__(self) -> int:
        return self._hash

    @staticmethod
    def of(spec: JobSpec) -> "Need":
        """Return what each task of a job needs: most often the same object for the same needs."""
        limits, requires = spec.limits, spec.requires
        return _need(
            WorkClass.of(spec),
            limits.cpu,
            limits.memory_bytes,
            limits.scratch_bytes,
            requires.vram_bytes,
            requires.os,
            requires.labels,
            requires.prefers,
            requires.net,
            spec.sealed_to,
            spec.verify is not None,
        )

    def times_within(self, amounts: Amounts) -> int:
        """Return how many tasks find in `amounts` what they need, side by side."""
        times = min(amounts.cores // self.cores, amounts.memory_bytes // self.memory_bytes)
        if self.disk_bytes and amounts.disk_bytes != inf:
            times = min(times, int(amounts.disk_bytes // self.disk_bytes))
        if self.vram_bytes:
            times = min(times, amounts.vram_bytes // self.vram_bytes)
        if self.devices:
            times = min(times, 1)
        return max(0, times)

    def within(self, amounts: Amounts) -> bool:
        """Tell whether a task finds what it needs in `amounts`."""
        return (
            self.cores <= amounts.cores
            and self.memory_bytes <= amounts.memory_bytes
            and self.disk_bytes <= amounts.disk_bytes
            and self.vram_bytes <= amounts.vram_bytes
        )


@lru_cache(_KEPT)
def _need(
    work_class: WorkClass,
    cores: int,
    memory_bytes: int,
    disk_bytes: int,
    vram_bytes: int,
    os: str,
    labels: tuple[str, ...],
    prefers: tuple[str, ...],
    reach: tuple[str, ...],
    sealed_to: frozenset[str],
    verified: bool,  # noqa: FBT001 - the order is that of Need
) -> Need:
    whose = work_class.submitter, work_class.workload
    return Need(
        class_token=work_class.token,
        cores=cores,
        memory_bytes=memory_bytes,
        disk_bytes=disk_bytes,
        vram_bytes=vram_bytes,
        os=os,
        labels=frozenset(labels),
        prefers=frozenset(prefers),
        net=OfferedNet(submitter=whose[0], workload=whose[1], reach=reach) if reach else None,
        sealed_to=sealed_to,
        verified=verified,
    )
