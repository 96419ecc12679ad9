"""Values that macOS tells by name: sysctlbyname(3). Standard library only.

Written from documentation and not yet run on a Mac.
"""

import ctypes
from typing import Protocol

_BYTES_MAX = 4096


class Library(Protocol):
    """The call that is used here."""

    def sysctlbyname(
        self, name: bytes, value: object, size: object, new: object, new_size: int
    ) -> int:
        """Fill the buffer and set its size; 0 on success."""
        ...


def text(name: str, library: Library | None = None) -> str:
    """The text of a value; empty where the kernel knows none of this name, or it is too long.

    Args:
        name: such as `kern.osrelease`.
        library: where the call is; None: the C library.
    """
    buffer = ctypes.create_string_buffer(_BYTES_MAX)
    size = ctypes.c_size_t(_BYTES_MAX)
    found = ctypes.CDLL(None) if library is None else library
    if found.sysctlbyname(name.encode(), buffer, ctypes.byref(size), None, 0) != 0:
        return ""
    return buffer.value.decode(errors="replace")
