"""What the core is told once: who this lender is and what it may lend at most."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lender.core.admission import CatalogueEntry
from lender.core.headroom import Reserve


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one lender.

    Attributes:
        lender: its public key.
        name: what people call it, at most 120 characters.
        pools: the pools that it serves.
        workloads: the catalogue: what may run at all, once a grant names it.
        cores: of the machine.
        slots: most cores lent at once; a lease takes as many as one of its tasks asks for.
        memory_bytes: most memory lent at once.
        reserve: what the owner keeps.
        frozen_handback_s: frozen work is handed back, and its memory freed, after this.
    """

    lender: str
    name: str
    pools: tuple[str, ...]
    workloads: Mapping[str, CatalogueEntry]
    cores: float
    slots: int
    memory_bytes: int
    reserve: Reserve = field(default_factory=Reserve)
    frozen_handback_s: float = 10.0
