"""Spare capacity after the owner's reserve: a reading of the machine becomes a verdict."""

import math
from dataclasses import dataclass

from lender.core.comfort import Comfort
from lender.core.findings import most_cores
from lender.core.policy import Rung
from lender.core.signals import Signals
from lender.protocol.bounds import MEMORY_BYTES_MIN


@dataclass(frozen=True, slots=True)
class Reserve:
    """What the owner keeps, and when the lender steps back by itself.

    Each threshold has a twin for the way back, so that a value near it does not flap.

    Attributes:
        cores: kept for the owner, 0 or more.
        memory_bytes: kept for the owner; with less available the lender yields.
        return_memory_bytes: available again at the way back; None: a quarter more than
            `memory_bytes`.
        yield_cpu_others: cores kept busy by others above which the lender yields; None: never.
        return_cpu_others: at or below which it lends again; None: three quarters of it.
        stay_s: how long the machine must stay calm before the lender lends again.

    Raises:
        ValueError: a twin stands on the wrong side of its threshold.
    """

    cores: float = 0.0
    memory_bytes: int = 512 << 20
    return_memory_bytes: int | None = None
    yield_cpu_others: float | None = None
    return_cpu_others: float | None = None
    stay_s: float = 5.0

    def __post_init__(self) -> None:
        if self.memory_back < self.memory_bytes:
            raise ValueError("return_memory_bytes must not be below memory_bytes")
        if self.return_cpu_others is not None and (
            self.yield_cpu_others is None or self.return_cpu_others > self.yield_cpu_others
        ):
            raise ValueError("return_cpu_others must not be above yield_cpu_others")

    @property
    def memory_back(self) -> int:
        """Bytes that must be available at the way back."""
        if self.return_memory_bytes is None:
            return self.memory_bytes + self.memory_bytes // 4
        return self.return_memory_bytes

    @property
    def cpu_back(self) -> float:
        """Cores that others may keep busy at the way back."""
        if self.return_cpu_others is not None:
            return self.return_cpu_others
        return math.inf if self.yield_cpu_others is None else 0.75 * self.yield_cpu_others


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the lender must step back, and the numbers behind it in words."""

    yields: bool
    reason: str


class Headroom:
    """The last reading, and the verdict on it.

    Yields at once; lends again only after `stay_s` of unbroken calm. Before the first reading
    it yields: what was never measured is not spare.
    """

    def __init__(self, reserve: Reserve, cores: float, memory_bytes: int) -> None:
        self._reserve = reserve
        self._cores = cores
        self._memory_bytes = memory_bytes
        self._sample: Signals | None = None
        self._calm_since: float | None = None
        self.verdict = Verdict(yields=True, reason="the machine has not been measured yet")

    def sampled(self, now: float, sample: Signals) -> None:
        """Take up a reading."""
        first = self._sample is None
        self._sample = sample
        trouble = self._trouble(sample)
        if trouble is not None:
            self._calm_since = None
            self.verdict = Verdict(yields=True, reason=trouble)
            return
        if first or not self.verdict.yields:
            self.verdict = Verdict(yields=False, reason=_figures(sample))
            return
        not_calm = self._not_calm(sample)
        if not_calm is not None:
            self._calm_since = None
            self.verdict = Verdict(yields=True, reason=not_calm)
            return
        if self._calm_since is None:
            self._calm_since = now
        if now - self._calm_since >= self._reserve.stay_s:
            self.verdict = Verdict(yields=False, reason=_figures(sample))
        else:
            reason = f"calm, but for less than {self._reserve.stay_s:g} s: {_figures(sample)}"
            self.verdict = Verdict(yields=True, reason=reason)

    @property
    def sample(self) -> Signals:
        """The last reading; zeros before the first."""
        return self._sample or Signals(0.0, 0)

    def slots_total(self, slots: int) -> int:
        """Return how many of `slots` the reserve leaves: a slot is one core lent."""
        return max(0, min(slots, math.floor(self._cores - self._reserve.cores)))

    def slots_free(self, slots: int, cpu_committed: int, memory_committed_bytes: int) -> int:
        """Return how many more cores could be lent beside what is committed to leases."""
        memory_free_bytes = self.memory_free_bytes(memory_committed_bytes)
        if self.verdict.yields or memory_free_bytes < MEMORY_BYTES_MIN:
            return 0
        return max(0, self.slots_total(slots) - cpu_committed)

    def cpu_free(self, cpu_committed: int) -> float:
        """Return the cores that neither others, nor the reserve, nor leases use."""
        spare = self._cores - self._reserve.cores - self.sample.cpu_others
        return max(0.0, spare - cpu_committed)

    def memory_free_bytes(self, committed_bytes: int = 0) -> int:
        """Return what could be lent beside `committed_bytes`.

        What leases may still grow to is counted as used, and also what they use already: the
        error is on the owner's side.
        """
        available = self.sample.memory_available_bytes - self._reserve.memory_bytes
        return max(0, min(available, self._memory_bytes) - committed_bytes)

    def _trouble(self, sample: Signals) -> str | None:
        limit = self._reserve.yield_cpu_others
        if limit is not None and sample.cpu_others > limit:
            return f"others use {sample.cpu_others:.1f} cores, over {limit:g}"
        if sample.memory_available_bytes < self._reserve.memory_bytes:
            kept = _mib(self._reserve.memory_bytes)
            return f"{_mib(sample.memory_available_bytes)} of memory available, under {kept}"
        return None

    def _not_calm(self, sample: Signals) -> str | None:
        if sample.cpu_others > self._reserve.cpu_back:
            back = self._reserve.cpu_back
            return f"others use {sample.cpu_others:.1f} cores, lends again at {back:g}"
        if sample.memory_available_bytes < self._reserve.memory_back:
            back_bytes = _mib(self._reserve.memory_back)
            available = _mib(sample.memory_available_bytes)
            return f"{available} of memory available, lends again at {back_bytes}"
        return None


def _figures(sample: Signals) -> str:
    available = _mib(sample.memory_available_bytes)
    return f"others use {sample.cpu_others:.1f} cores, {available} of memory available"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.0f} MiB"


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

    @property
    def vram_free_bytes(self) -> int:
        """The memory of the GPU that has the most of it, less what the owner keeps."""
        signals, kept = self._comfort.signals, self._comfort.limits.vram_kept_bytes
        return 0 if signals is None else max(0, signals.vram_free_bytes - kept)
