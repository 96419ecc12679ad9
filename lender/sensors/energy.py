"""Joules that a second of CPU time takes, and how that is known, in words.

In this order: RAPL (the processor's own meter; since Linux 5.10 for root alone), the battery's
discharge, a figure that the owner gave. Each is shared out by CPU time, over at least one core's
worth of it, so that lent work on an idle machine does not pay for the idling: an estimate.
10 µs for each processor package. Source: Documentation/power/powercap/powercap.rst.
"""

from pathlib import Path
from typing import NamedTuple

from lender.sensors import kernel_file

_POWERCAP = Path("/sys/class/powercap")
# No package draws more: what says so has made an unseen turn, or is broken.
_PACKAGE_W_MAX = 2000.0


class Energy(NamedTuple):
    """What a second of CPU time takes now; 0 where it can't be told."""

    joules_per_cpu_s: float
    method: str


class _Package:
    """One RAPL meter, which counts microjoules and begins anew at its range."""

    def __init__(self, folder: Path) -> None:
        self._counter = folder / "energy_uj"
        self._range_uj = kernel_file.number(folder / "max_energy_range_uj")
        self._before_uj = kernel_file.number(self._counter)
        self.readable = self._before_uj is not None

    def grown_j(self) -> float | None:
        """Since the reading before; None where that can't be told."""
        before_uj, now_uj = self._before_uj, kernel_file.number(self._counter)
        self._before_uj = now_uj
        if before_uj is None or now_uj is None:
            return None
        if now_uj >= before_uj:
            return (now_uj - before_uj) / 1e6
        if self._range_uj is None or self._range_uj < before_uj:
            return None
        return (self._range_uj - before_uj + now_uj) / 1e6


class EnergySensor:
    """Keeps the meters' last readings."""

    def __init__(self, powercap: Path = _POWERCAP, watts_per_core: float = 0.0) -> None:
        """Find the packages.

        Args:
            powercap: the kernel's folder.
            watts_per_core: what the owner reckons for a busy core, W; 0: nothing.
        """
        # Others are parts of a package (core, uncore, dram), or hold everything again (psys).
        folders = sorted(powercap.glob("intel-rapl:[0-9]*"))
        found = [
            _Package(folder)
            for folder in folders
            if (kernel_file.read(folder / "name") or b"").startswith(b"package")
        ]
        self._packages = [package for package in found if package.readable]
        self._estimate = (
            Energy(watts_per_core, f"estimate: {watts_per_core:g} W per core")
            if watts_per_core > 0
            else Energy(0.0, "not measurable")
        )
        self._metered = self._estimate

    def read(self, busy_s: float, elapsed_s: float, discharge_w: float | None) -> Energy:
        """What a second of CPU time took since the reading before.

        Args:
            busy_s: CPU time that the whole machine used since then.
            elapsed_s: time since then; 0: too short to tell, the last answer stands.
            discharge_w: what the battery gives; None: on mains, or not known.
        """
        if elapsed_s <= 0:
            return self._metered
        shared_s = max(busy_s, elapsed_s)
        grown = [package.grown_j() for package in self._packages]
        joules = sum(j for j in grown if j is not None)
        if grown and None not in grown and joules <= _PACKAGE_W_MAX * len(grown) * elapsed_s:
            self._metered = Energy(joules / shared_s, "estimate: RAPL by share of CPU time")
        elif discharge_w is not None and not grown:
            watts = discharge_w * elapsed_s / shared_s
            self._metered = Energy(watts, "estimate: battery discharge by share of CPU time")
        elif not grown:
            self._metered = self._estimate
        return self._metered
