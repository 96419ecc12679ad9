"""What one attempt uses up: readings and results become one sum, each second counted once."""

from dataclasses import dataclass

from lender.core.budget import Usage
from lender.core.events import NOT_COUNTED, UsageMetered

_J_PER_WH = 3600.0


@dataclass(frozen=True, slots=True)
class EnergyRate:
    """What a second of CPU time takes now.

    Attributes:
        joules_per_cpu_s: 0 or more.
        method: where the figure comes from, in words.
    """

    joules_per_cpu_s: float = 0.0
    method: str = "not measurable"


class Meter:
    """The sum of one attempt.

    The sandbox's meter sees what still runs, results what ended: neither sees all, so the larger
    of the two counts.

    Attributes:
        memory_peak_bytes: the most that was seen at once.
        network_attempts_blocked: tries to reach a network, or NOT_COUNTED.
        gpu_s: time that a GPU computed for it.
        vram_peak_bytes: the most GPU memory that was seen at once.
        network_in_bytes: what its tasks fetched from the network themselves.
        network_out_bytes: what they sent there.
        has_untold: something came since `untold` was called last.
    """

    def __init__(self, bytes_in: int) -> None:
        self.memory_peak_bytes = 0
        self.network_attempts_blocked = 0
        self.gpu_s = 0.0
        self.vram_peak_bytes = 0
        self.network_in_bytes = 0
        self.network_out_bytes = 0
        self._cpu_method = EnergyRate().method
        self._gpu_joules = 0.0
        self._bytes_in = bytes_in
        self._bytes_out = 0
        self._results_cpu_s = 0.0
        self._metered_cpu_s = 0.0
        self._charged_cpu_s = 0.0
        self._cpu_energy_wh = 0.0
        self._told = Usage()
        self.has_untold = True

    def metered(self, event: UsageMetered, rate: EnergyRate) -> None:
        """Take up a reading of the sandbox; all of it is cumulative."""
        self._metered_cpu_s = max(self._metered_cpu_s, event.cpu_s)
        self.memory_peak_bytes = max(self.memory_peak_bytes, event.memory_peak_bytes)
        self._count(event.network_attempts_blocked)
        self.gpu_s = max(self.gpu_s, event.gpu_s)
        self.vram_peak_bytes = max(self.vram_peak_bytes, event.vram_peak_bytes)
        self._gpu_joules = max(self._gpu_joules, event.gpu_joules)
        self.network_in_bytes = max(self.network_in_bytes, event.network_in_bytes)
        self.network_out_bytes = max(self.network_out_bytes, event.network_out_bytes)
        self.has_untold = True
        self._charge(rate)

    def results(self, cpu_s: float, bytes_out: int, rate: EnergyRate) -> None:
        """Take up what the results of some tasks say, together."""
        self._results_cpu_s += cpu_s
        self._bytes_out += bytes_out
        self.has_untold = True
        self._charge(rate)

    def saved(self, size_bytes: int) -> None:
        """Take up what was uploaded beside results."""
        self._bytes_out += size_bytes
        self.has_untold = True

    @property
    def usage(self) -> Usage:
        """The sum so far."""
        moved_bytes = self._bytes_in + self._bytes_out + self.network_bytes
        energy_wh = self._cpu_energy_wh + self._gpu_joules / _J_PER_WH
        return Usage(self._charged_cpu_s, moved_bytes, energy_wh)

    @property
    def network_bytes(self) -> int:
        """What its tasks moved over the network themselves, both ways together."""
        return self.network_in_bytes + self.network_out_bytes

    @property
    def energy_method(self) -> str:
        """How the energy was estimated last, in words."""
        gpu = "the GPU's meter by share of its use"
        if not self._gpu_joules:
            return self._cpu_method
        if not self._cpu_energy_wh:
            return f"estimate: {gpu}; CPU {self._cpu_method}"
        return f"{self._cpu_method}; {gpu}"

    @property
    def bytes_in(self) -> int:
        """What was fetched for it."""
        return self._bytes_in

    @property
    def bytes_out(self) -> int:
        """What it gave back."""
        return self._bytes_out

    def untold(self) -> Usage:
        """Return what came since the last call."""
        now, told = self.usage, self._told
        self._told, self.has_untold = now, False
        return Usage(
            now.cpu_s - told.cpu_s,
            now.moved_bytes - told.moved_bytes,
            now.energy_wh - told.energy_wh,
        )

    def _count(self, blocked: int) -> None:
        """What could not be counted once stays unknown."""
        if NOT_COUNTED in (blocked, self.network_attempts_blocked):
            self.network_attempts_blocked = NOT_COUNTED
        else:
            self.network_attempts_blocked = max(self.network_attempts_blocked, blocked)

    def _charge(self, rate: EnergyRate) -> None:
        cpu_s = max(self._metered_cpu_s, self._results_cpu_s)
        self._cpu_energy_wh += (cpu_s - self._charged_cpu_s) * rate.joules_per_cpu_s / _J_PER_WH
        self._charged_cpu_s = cpu_s
        self._cpu_method = rate.method
