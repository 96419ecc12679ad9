"""The socket to a python job's interpreter, as seen from outside; `python_inside` is its other end.

What comes out of it was written by a hostile program: it is bounded, taken apart here, and never
unpickled. What can't be an answer is an error.
"""

import json
import select
import socket
import struct
from collections.abc import Mapping
from typing import NamedTuple

from lender.sandbox.runtimes import python_inside

_ANSWER_BYTES_MAX = python_inside.HEADER_BYTES + python_inside.CONTENT_BYTES_MAX
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid
# Linux only.
_PASS_CREDENTIALS = getattr(socket, "SO_PASSCRED", 0)
_IS_CREDENTIALS = getattr(socket, "SCM_CREDENTIALS", 0)
_ANSWERS = range(python_inside.DONE, python_inside.NO_SPACE + 1)


class BrokenAnswerError(Exception):
    """What came from inside is no answer."""


class ChannelClosedError(Exception):
    """Nobody is there any more, or will ever answer."""


class Answer(NamedTuple):
    """What the interpreter says of a request.

    Attributes:
        kind: DONE, RAISED or another of `python_inside`.
        content: the value where it is small, or the exception in words.
    """

    kind: int
    content: bytes

    @property
    def text(self) -> str:
        """The content as one printable line."""
        text = self.content.decode(errors="replace")
        return "".join(one if one.isprintable() else " " for one in text)


class Channel:
    """Our end. Nothing in here waits.

    Args:
        sock: it.
        known_pid: process id of the interpreter; None: it is in a namespace, and the kernel tells
            with each word whose it is (unix(7), SO_PASSCRED).

    Attributes:
        pid: of the interpreter, out here; None before its first word.
    """

    def __init__(self, sock: socket.socket, known_pid: int | None = None) -> None:
        sock.setblocking(False)
        if known_pid is None:
            sock.setsockopt(socket.SOL_SOCKET, _PASS_CREDENTIALS, 1)
        self.pid: int | None = None
        self._known_pid = known_pid
        self._sock = sock
        self._said = select.poll()
        self._said.register(sock, select.POLLIN)
        self._heard = b""

    def fileno(self) -> int:
        """The descriptor, to wait for an answer with."""
        return self._sock.fileno()

    def ask(self, task: int) -> None:
        """Have a task run.

        Raises:
            OSError: nobody is there any more.
        """
        self._sock.send(task.to_bytes(python_inside.REQUEST_BYTES, "big"))

    def ask_to_load(self, variables: Mapping[str, str]) -> None:
        """Have another job's program loaded, with these environment variables of its own.

        Raises:
            OSError: nobody is there any more.
        """
        told = json.dumps(dict(variables)).encode()
        request = python_inside.LOAD.to_bytes(python_inside.REQUEST_BYTES, "big")
        self._sock.send(request + len(told).to_bytes(python_inside.LENGTH_BYTES, "big") + told)

    def is_silent(self) -> bool:
        """Whether nothing is said unasked, and somebody is there who could."""
        return not self._said.poll(0)

    def listen(self) -> Answer | None:
        """The answer, if it is there whole.

        Raises:
            BrokenAnswerError: it is none.
            ChannelClosedError: there will be none.
        """
        try:
            self._heard += self._receive() if self.pid is not None else self._greeting()
        except BlockingIOError:
            return None
        except OSError as error:
            raise ChannelClosedError from error
        return self._answer()

    def close(self) -> None:
        """Close it."""
        self._sock.close()

    def _receive(self) -> bytes:
        # With no room for them, the kernel closes descriptors that come along.
        piece = self._sock.recv(_ANSWER_BYTES_MAX + 1)
        if not piece:
            raise ChannelClosedError
        return piece

    def _greeting(self) -> bytes:
        """Take its first word; returns what came behind it."""
        piece, whose = (
            self._said_by() if self._known_pid is None else (self._receive(), self._known_pid)
        )
        hello = bytes([python_inside.HELLO]).ljust(python_inside.HEADER_BYTES, b"\0")
        if not piece.startswith(hello) or whose is None:
            raise BrokenAnswerError
        self.pid = whose
        return piece[len(hello) :]

    def _said_by(self) -> tuple[bytes, int | None]:
        """What was said, and by which process; None where the kernel does not tell."""
        room = socket.CMSG_SPACE(_CREDENTIALS.size)
        piece, told, *_ = self._sock.recvmsg(_ANSWER_BYTES_MAX + 1, room)
        if not piece:
            raise ChannelClosedError
        whose = [data for _, kind, data in told if kind == _IS_CREDENTIALS]
        self._sock.setsockopt(socket.SOL_SOCKET, _PASS_CREDENTIALS, 0)
        return piece, int(_CREDENTIALS.unpack(whose[0])[0]) if len(whose) == 1 else None

    def _answer(self) -> Answer | None:
        heard = self._heard
        if len(heard) < python_inside.HEADER_BYTES:
            return None
        size = int.from_bytes(heard[1 : python_inside.HEADER_BYTES], "big")
        end = python_inside.HEADER_BYTES + size
        if heard[0] not in _ANSWERS or size > python_inside.CONTENT_BYTES_MAX or len(heard) > end:
            raise BrokenAnswerError
        if len(heard) < end:
            return None
        self._heard = b""
        return Answer(heard[0], heard[python_inside.HEADER_BYTES :])
