"""Reads the small files in which the kernel tells its numbers; about 5 µs each."""

import os
from pathlib import Path

_CHUNK_BYTES = 1 << 16
_LINE_BYTES = 1 << 10
# No file that a sensor reads is near this long; a broken one must not fill our memory.
_MAX_BYTES = 1 << 20


def read(path: str | Path) -> bytes | None:
    """The whole file; None where it isn't, or can't be read."""
    try:
        # Without O_NONBLOCK a pipe of that name would hold us for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        content = os.read(fd, _CHUNK_BYTES)
        # Files of many lines come in pieces of a page.
        while (more := os.read(fd, _CHUNK_BYTES)) and len(content) < _MAX_BYTES:
            content += more
    except OSError:
        return None
    finally:
        os.close(fd)
    return content


def line(path: str) -> bytes:
    """What one short line holds, for those that are read by the hundred; b"" where it isn't."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, _LINE_BYTES)
    except OSError:
        return b""
    finally:
        os.close(fd)


def number(path: str | Path) -> int | None:
    """The decimal number that the file holds; None where it holds none."""
    return as_number(read(path))


def as_number(content: bytes | None) -> int | None:
    """The decimal number in a few bytes, spaces around it allowed; None where there is none."""
    try:
        return None if content is None else int(content)
    except ValueError:
        return None


def field(content: bytes, name: bytes) -> int | None:
    """The number behind `name` at the start of a line, as in proc_vmstat(5) or cpu.stat."""
    start = content.find(b"\n" + name) + 1
    if start == 0 and not content.startswith(name):
        return None
    words = content[start + len(name) :].split(None, 1)
    return as_number(words[0]) if words else None
