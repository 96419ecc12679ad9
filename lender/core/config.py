"""What the core is told once: who this lender is and what it may lend at most."""

from collections.abc import Mapping
from dataclasses import dataclass

from lender.core.admission import PROCESSES_MAX, CatalogueEntry
from lender.core.budget import UNLIMITED, Budget
from lender.core.policy import Policy


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one lender.

    Attributes:
        lender: its public key.
        name: what people call it, at most 120 characters.
        pools: the pools that it serves.
        labels: what its owner calls it, for submitters to ask for; no device's.
        workloads: the catalogue: what may run at all, once a grant names it.
        cores: of the machine.
        slots: most cores lent at once; a lease takes as many as one of its tasks asks for.
        memory_bytes: most memory lent at once.
        disk_kept_bytes: disk space that is never lent.
        policy: when the lender steps back, and how far.
        budget: how much all lent work together may use up.
        frozen_handback_s: frozen work is handed back, and its memory freed, after this.
        processes_max: processes and threads that one task may have.
    """

    lender: str
    name: str
    pools: tuple[str, ...]
    workloads: Mapping[str, CatalogueEntry]
    cores: float
    slots: int
    memory_bytes: int
    policy: Policy
    budget: Budget = UNLIMITED
    frozen_handback_s: float = 10.0
    processes_max: int = PROCESSES_MAX
    labels: tuple[str, ...] = ()
    disk_kept_bytes: int = 0
