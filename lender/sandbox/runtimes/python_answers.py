"""The answers of a python job's interpreter, taken apart. Pure.

They were written by a hostile program: bounded here, and never unpickled.
"""

from typing import Literal, NamedTuple

from lender.sandbox.runtimes import python_inside

_HEADER = python_inside.ANSWER
_KINDS = range(python_inside.CLEAN, python_inside.NO_SPACE + 1)


Fault = Literal["", "broken", "large"]
"""What comes is no answer; or it is a value that is larger than it may be."""


class Answer(NamedTuple):
    """What the interpreter says of a task, or of the loading.

    Attributes:
        kind: CLEAN, DONE, RAISED or another of `python_inside`.
        content: the value, or the exception in words.
        after_s: seconds from the request to its end, by its own account.
    """

    kind: int
    content: bytes
    after_s: float = 0.0

    @property
    def is_value(self) -> bool:
        """Whether it came to its end."""
        return self.kind in python_inside.VALUES

    @property
    def text(self) -> str:
        """The content as one printable line."""
        text = self.content.decode(errors="replace")
        return "".join(one if one.isprintable() else " " for one in text)


class Answers:
    """Bytes in, answers out.

    Args:
        value_bytes_max: of a value.

    Attributes:
        fault: of what follows on the answers that were returned; nothing is read behind it.
    """

    def __init__(self, value_bytes_max: int) -> None:
        self._value_bytes_max = value_bytes_max
        self._heard = bytearray()
        self.fault: Fault = ""

    def feed(self, piece: bytes) -> list[Answer]:
        """Those that are whole now."""
        self._heard += piece
        heard, at, found = self._heard, 0, list[Answer]()
        while not self.fault and len(heard) - at >= _HEADER.size:
            kind, size, after_ns = _HEADER.unpack_from(heard, at)
            end = at + _HEADER.size + size
            self.fault = self._fault(kind, size)
            if self.fault or len(heard) < end:
                break
            found.append(Answer(kind, bytes(heard[at + _HEADER.size : end]), after_ns / 1e9))
            at = end
        del heard[:at]
        return found

    def _fault(self, kind: int, size: int) -> Fault:
        if kind in python_inside.VALUES:
            return "large" if size > self._value_bytes_max else ""
        return "" if kind in _KINDS and size <= python_inside.TEXT_BYTES_MAX else "broken"
