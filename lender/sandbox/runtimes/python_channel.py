"""The ways to and from a python job's interpreter; `python_inside` is their other end.

A socket to ask by, on which a word comes when all is answered, and a pipe for the answers: they
wake nobody who does not wait for them, and many are read at once.
"""

import contextlib
import json
import os
import select
import socket
import struct
from collections.abc import Mapping, Sequence

from lender.sandbox.runtimes import python_inside
from lender.sandbox.runtimes.python_answers import Answer, Answers, Fault

_WORDS_MAX = 16
_CHUNK_BYTES = 1 << 16
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid
# Linux only.
_PASS_CREDENTIALS = getattr(socket, "SO_PASSCRED", 0)
_IS_CREDENTIALS = getattr(socket, "SCM_CREDENTIALS", 0)


class Channel:
    """Our end. Nothing in here waits but `wait`.

    Args:
        sock: the socket.
        answers: the pipe, non-blocking; its owner closes it.
        value_bytes_max: of a task's value.
        known_pid: process id of the interpreter; None: it is in a namespace, and the kernel tells
            with each word whose it is (unix(7), SO_PASSCRED).

    Attributes:
        pid: of the interpreter, out here; None before its first word.
        is_over: nothing more will be answered of what it was asked for.
        is_closed: nobody is there any more, or will ever answer.
    """

    def __init__(
        self, sock: socket.socket, answers: int, value_bytes_max: int, known_pid: int | None = None
    ) -> None:
        sock.setblocking(False)
        if known_pid is None:
            sock.setsockopt(socket.SOL_SOCKET, _PASS_CREDENTIALS, 1)
        self.pid: int | None = None
        self.is_over = self.is_closed = self._is_broken = False
        self._known_pid = known_pid
        self._sock = sock
        self._fd = answers
        self._answers = Answers(value_bytes_max)
        self._word = select.poll()
        self._word.register(sock, select.POLLIN)
        self._anything = select.poll()
        for one in (sock.fileno(), answers):
            self._anything.register(one, select.POLLIN)

    @property
    def fds(self) -> tuple[int, int]:
        """What to wait for, and then to listen."""
        return self._sock.fileno(), self._fd

    def ask(self, tasks: Sequence[int], now: float) -> None:
        """Have some tasks run, one after the other.

        Args:
            tasks: their indices.
            now: the monotonic clock's seconds.

        Raises:
            OSError: nobody is there any more.
        """
        self.is_over = False
        words = struct.pack(f"!{len(tasks)}I", *tasks)
        self._sock.send(python_inside.REQUEST.pack(now, len(tasks)) + words)

    def ask_to_load(self, variables: Mapping[str, str], now: float) -> None:
        """Have another job's program loaded, with these environment variables of its own.

        Raises:
            OSError: nobody is there any more.
        """
        self.is_over = False
        told = json.dumps(dict(variables)).encode()
        self._sock.send(python_inside.REQUEST.pack(now, 0) + told)

    def wait(self, duration_s: float) -> bool:
        """Wait for its word that all is answered, or for its end; False when neither came."""
        return bool(self._word.poll(duration_s * 1000))

    def is_silent(self) -> bool:
        """Whether nothing is said unasked, and somebody is there who could."""
        return not self._anything.poll(0)

    @property
    def fault(self) -> Fault:
        """What is wrong with what came behind the answers that were told."""
        return "broken" if self._is_broken else self._answers.fault

    def listen(self) -> list[Answer]:
        """The answers that are there whole."""
        # In this order: its word comes behind its answers.
        self._hear_words()
        found = list[Answer]()
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._fd, _CHUNK_BYTES):
                found += self._answers.feed(piece)
                if self.fault or len(found) > python_inside.REQUEST_TASKS_MAX:
                    break
                if len(piece) < _CHUNK_BYTES:
                    break
        return found

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def _hear_words(self) -> None:
        try:
            words = self._receive() if self.pid is not None else self._greeting()
        except BlockingIOError:
            return
        except OSError:
            words, self.is_closed = b"", True
        if words and (words != python_inside.OVER or self.is_over):
            self._is_broken = True
        self.is_over = self.is_over or bool(words)

    def _receive(self) -> bytes:
        # With no room for them, the kernel closes descriptors that come along.
        piece = self._sock.recv(_WORDS_MAX)
        self.is_closed = not piece
        return piece

    def _greeting(self) -> bytes:
        """Take its first word; returns what came behind it."""
        piece, whose = (
            self._said_by() if self._known_pid is None else (self._receive(), self._known_pid)
        )
        if self.is_closed:
            return b""
        if not piece.startswith(python_inside.HELLO) or whose is None:
            self._is_broken = True
            return b""
        self.pid = whose
        return piece[len(python_inside.HELLO) :]

    def _said_by(self) -> tuple[bytes, int | None]:
        """What was said, and by which process; None where the kernel does not tell."""
        room = socket.CMSG_SPACE(_CREDENTIALS.size)
        piece, told, *_ = self._sock.recvmsg(_WORDS_MAX, room)
        self.is_closed = not piece
        whose = [data for _, kind, data in told if kind == _IS_CREDENTIALS]
        self._sock.setsockopt(socket.SOL_SOCKET, _PASS_CREDENTIALS, 0)
        return piece, int(_CREDENTIALS.unpack(whose[0])[0]) if len(whose) == 1 else None
