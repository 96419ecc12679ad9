"""Memory that could be used without swapping (psutil)."""

import psutil


def available_bytes() -> int:
    """Return the kernel's own estimate: `MemAvailable` on Linux (proc(5))."""
    return int(psutil.virtual_memory().available)


def total_bytes() -> int:
    """Return the machine's memory."""
    return int(psutil.virtual_memory().total)
