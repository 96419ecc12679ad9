"""An array over the lines of a file: what follows `--each`, for argparse."""

import argparse
import sys
from collections.abc import Container
from pathlib import Path

from lender.client import Array, Rejected
from lender.client.specs import array_of_each
from lender.protocol.bounds import EACH_MAX, SPEC_BYTES_MAX
from lender.protocol.strangers_text import visible

STDIN = "-"
_READ_BYTES_MAX = 16 << 20
"""Enough to count how many lines are too many."""


def each_line(text: str) -> Array:
    """Read a file, or standard input, as an array with a task for each line that is not empty."""
    try:
        words = _lines(_read(text))
        return array_of_each([[line] for line in words])
    except OSError as error:
        raise argparse.ArgumentTypeError(f"can't read {visible(text)}: {error.strerror}") from error
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{visible(text)} {error}") from error
    except Rejected as error:
        raise argparse.ArgumentTypeError(f"{visible(text)}: {error.reason}") from error


def add_each_option(parser: argparse._ActionsContainer) -> None:
    """Add the option."""
    parser.add_argument(
        "--each",
        type=each_line,
        metavar="FILE",
        help="a task for each line of FILE (- is standard input) that is not empty, with the line"
        " as one more argument; at most 1000",
    )


def first_unsent(array: Array | None, inputs: Container[str]) -> str | None:
    """Return a file here that a line names, where tasks see no file of that name."""
    for words in array.each if array is not None else ():
        for word in words:
            if word not in inputs and not Path(word).is_absolute() and _is_file(word):
                return word
    return None


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # none can be called so
        return False


def _read(text: str) -> bytes:
    if text == STDIN:
        return sys.stdin.buffer.read(_READ_BYTES_MAX)
    with Path(text).open("rb") as file:
        return file.read(_READ_BYTES_MAX)


def _lines(content: bytes) -> list[str]:
    """Return the lines as they are, but for the ends that other systems give them.

    Raises:
        ValueError: they make no array.
    """
    if b"\0" in content:
        raise ValueError("holds a zero byte: one argument stands on one line")
    ends = [line.removesuffix(b"\r") for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    lines = [line for line in ends if line]
    if len(lines) > EACH_MAX or sum(map(len, lines)) > SPEC_BYTES_MAX:
        raise ValueError(
            f"has {len(lines)} lines of {sum(map(len, lines))} bytes in all, and a job takes"
            f" {EACH_MAX} of {SPEC_BYTES_MAX} at most: split it (split -l), or make it an input"
            " of an --array whose tasks read their line (lender map --help)"
        )
    try:
        return [line.decode() for line in lines]
    except UnicodeDecodeError as error:
        raise ValueError("is no UTF-8 text") from error
