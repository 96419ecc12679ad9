"""Spare capacity under the verdict: cores become slots, available memory becomes what is lent."""

import math
from collections.abc import Iterator, Mapping
from operator import itemgetter
from types import MappingProxyType
from typing import Final

from lender.core.comfort import Comfort
from lender.core.findings import most_cores
from lender.core.policy import Rung
from lender.protocol.bounds import MEMORY_BYTES_MIN

NOTHING: Final[Mapping[int, int]] = MappingProxyType({})


class Spare:
    """What of the machine's cores and memory can be lent beside what leases hold already."""

    def __init__(self, comfort: Comfort, slots: int, memory_bytes: int) -> None:
        """Read `comfort` anew at every question.

        Args:
            comfort: the verdict on the last reading.
            slots: most cores lent at once.
            memory_bytes: most memory lent at once.
        """
        self._comfort = comfort
        self._slots = slots
        self._memory_bytes = memory_bytes

    @property
    def slots_total(self) -> int:
        """How many slots the limits ever leave, at the best of times: a slot is one core lent.

        A part of a core is a slot too: it runs part of the time.
        """
        policy, cores = self._comfort.policy, self._comfort.cores
        lent = (min(one.cores, most_cores(one, cores)) for one in (policy.in_use, policy.away))
        return min(self._slots, math.ceil(max(lent)))

    def slots_free(self, cpu_committed: int, memory_committed_bytes: int) -> int:
        """Return how many more cores could be lent beside what is committed to leases."""
        verdict = self._comfort.verdict
        if verdict.rung < Rung.REDUCED or not verdict.new_work:
            return 0
        if self.memory_free_bytes(memory_committed_bytes) < MEMORY_BYTES_MIN:
            return 0
        return max(0, min(self._slots, math.ceil(verdict.cores)) - cpu_committed)

    def cpu_free(self, cpu_committed: int) -> float:
        """Return the cores that may be lent and that neither others nor leases use."""
        signals, verdict = self._comfort.signals, self._comfort.verdict
        idle = 0.0 if signals is None else self._comfort.cores - signals.cpu_others
        return max(0.0, min(idle, verdict.cores) - cpu_committed)

    def memory_free_bytes(self, committed_bytes: int = 0) -> int:
        """Return what could be lent beside `committed_bytes`.

        What leases may still grow to is counted as used, and also what they use already: the
        error is on the owner's side.
        """
        signals, kept = self._comfort.signals, self._comfort.limits.memory_kept_bytes
        available = 0.0 if signals is None else signals.memory_available_bytes - kept.at
        return max(0, min(int(available), self._memory_bytes) - committed_bytes)

    def vram_free_bytes(self, committed_bytes: Mapping[int, int] = NOTHING) -> int:
        """Return what could be lent on one GPU, at most: less what the owner keeps.

        Args:
            committed_bytes: what leases may grow to, by the index of their GPU.
        """
        return max((free for _, free in self._gpus(committed_bytes)), default=0)

    def gpu_with(self, vram_bytes: int, committed_bytes: Mapping[int, int]) -> int | None:
        """Return the index of the GPU that has the most memory left, if it has as much as this."""
        index, free = max(self._gpus(committed_bytes), key=itemgetter(1), default=(None, 0))
        return index if free >= vram_bytes else None

    def _gpus(self, committed_bytes: Mapping[int, int]) -> Iterator[tuple[int, int]]:
        """Index and spare memory; what leases hold already counts twice, as for memory."""
        signals, kept = self._comfort.signals, self._comfort.limits.vram_kept_bytes
        for index, gpu in enumerate(signals.gpus if signals is not None else ()):
            free = gpu.vram_free_bytes - kept.at - committed_bytes.get(index, 0)
            yield index, max(0, int(free))
