"""Memory that could be used without swapping, and what comes back from swap (psutil on macOS).

About 80 µs a reading: the kernel formats whole tables (proc_meminfo(5), proc_vmstat(5)).
"""

import os
import sys
from pathlib import Path
from typing import NamedTuple

import psutil

from lender.sensors import kernel_file

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc") if sys.platform.startswith("linux") else None


class Memory(NamedTuple):
    """One reading.

    Attributes:
        available_bytes: the kernel's own estimate of what could be used without swapping.
        swap_in_bytes_per_s: read back from swap by anybody since the reading before.
    """

    available_bytes: int
    swap_in_bytes_per_s: float


class MemorySensor:
    """Free memory and swap.

    Attributes:
        fault: what is wrong with the source, in words; no memory counts as available then.
    """

    def __init__(self, proc: Path | None = _PROC) -> None:
        """Take `proc` as the kernel's folder; None: ask psutil."""
        self._proc = proc
        self._swapped_in_bytes: int | None = None
        self._at = 0.0
        self._rate = 0.0
        self.fault = ""

    def read(self, now: float) -> Memory:
        """One reading at `now`, seconds of a steady clock."""
        available_bytes, swapped_in_bytes = self._ask()
        self.fault = "" if available_bytes is not None else "free memory can't be read"
        if swapped_in_bytes is None or self._swapped_in_bytes is None:
            self._rate = 0.0
        elif now > self._at:
            grown_bytes = max(0, swapped_in_bytes - self._swapped_in_bytes)
            self._rate = grown_bytes / (now - self._at)
        self._swapped_in_bytes, self._at = swapped_in_bytes, now
        return Memory(available_bytes or 0, self._rate)

    def _ask(self) -> tuple[int | None, int | None]:
        if self._proc is None:
            return int(psutil.virtual_memory().available), int(psutil.swap_memory().sin)
        table = kernel_file.read(self._proc / "meminfo") or b""
        available_kib = kernel_file.field(table, b"MemAvailable:")
        pages = kernel_file.field(kernel_file.read(self._proc / "vmstat") or b"", b"pswpin ")
        return (
            None if available_kib is None else max(0, available_kib) * 1024,
            None if pages is None else pages * _PAGE_BYTES,
        )


def total_bytes() -> int:
    """Return the machine's memory."""
    return int(psutil.virtual_memory().total)
