"""The largest memory of a process that has ended, as wait4(2) tells it."""

import resource
import sys

# getrusage(2): in KiB on Linux, in bytes on macOS.
_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


def peak_bytes(used: resource.struct_rusage) -> int:
    """Of the process, or of the largest that it has waited for."""
    return used.ru_maxrss * _UNIT_BYTES
