"""Asks lenderd one question over its control socket, blocking, standard library only."""

import json
import os
import time
from typing import TYPE_CHECKING, Any

from lender.daemon.socket_address import connected

if TYPE_CHECKING:
    from _socket import socket

REPLY_BYTES_MAX = 16 << 20
"""A reply above this is not read to its end: status of a thousand leases is about 300 KB."""


class UnreachableError(Exception):
    """No usable answer.

    Attributes:
        silent: a process holds the socket but did not answer in time (stopped, hung or too
            busy); False: nobody listens.
    """

    def __init__(self, reason: str, *, silent: bool) -> None:
        super().__init__(reason)
        self.silent = silent


def ask(
    socket_path: "str | os.PathLike[str]", request: dict[str, Any], timeout_s: float
) -> dict[str, Any]:
    """Send `request` (`{"verb": ...}`; the protocol version is added) and return the reply.

    The reply has `ok`; where that is False, `error` has `code` and `message`.

    Args:
        socket_path: of any length.
        request: the verb and its arguments.
        timeout_s: bound of the whole exchange.

    Raises:
        UnreachableError: lenderd is gone, silent, or talks something else.
    """
    deadline = time.monotonic() + timeout_s
    line = json.dumps({"v": 1, **request}).encode() + b"\n"
    try:
        with connected(socket_path, timeout_s) as connection:
            refused = _send(connection, line)
            received = _read_line(connection, deadline)
            if refused is not None and not received:
                raise refused
    except (TimeoutError, BlockingIOError) as error:
        raise UnreachableError(f"no answer within {timeout_s:g} s", silent=True) from error
    except OSError as error:
        raise UnreachableError(error.strerror or str(error), silent=False) from error
    except ValueError as error:
        raise UnreachableError(f"the answer is {error}", silent=True) from error
    return reply_of(received)


def reply_of(line: bytes) -> dict[str, Any]:
    """Return the reply that a line holds, whoever wrote it.

    Raises:
        UnreachableError: it holds none.
    """
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UnreachableError("the answer is no JSON line", silent=True) from error
    if not isinstance(reply, dict) or not isinstance(reply.get("ok"), bool):
        raise UnreachableError("the answer is not of this protocol", silent=True)
    return reply


def _send(connection: "socket", line: bytes) -> OSError | None:
    """Why it was not taken: lenderd may have answered without reading (too many clients)."""
    try:
        connection.sendall(line)
    except BrokenPipeError as error:
        return error
    return None


def _read_line(connection: "socket", deadline: float) -> bytes:
    """One line, or what came of it before the other side closed."""
    received = bytearray()
    while not received.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(1 << 16)
        if not part:
            break
        received += part
        if len(received) > REPLY_BYTES_MAX:
            raise ValueError("too long")
    return bytes(received)
