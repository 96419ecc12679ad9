"""What tasks wrote, on its way to one of our streams."""

import argparse
from typing import TextIO

from lender.protocol.strangers_text import visible


def add_raw_option(parser: argparse.ArgumentParser) -> None:
    """Add --raw."""
    parser.add_argument(
        "--raw",
        action="store_true",
        help="on a terminal, do not escape control characters in what tasks wrote",
    )


class Output:
    """One of our streams for bytes that tasks wrote: as they are, but escaped on a terminal."""

    def __init__(self, stream: TextIO, *, raw: bool) -> None:
        self._stream = stream
        self._escapes = stream.isatty() and not raw

    def write(self, content: bytes) -> None:
        """Write it at once; an escaped one must not end within a character."""
        if self._escapes:
            shown = visible(content.decode(errors="backslashreplace"))
            content = shown.encode(self._stream.encoding, errors="backslashreplace")
        self._stream.flush()
        self._stream.buffer.write(content)
        self._stream.flush()
