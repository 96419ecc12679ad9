"""A line to a server that may be anything: what is read from it is bounded, in bytes and in time.

For a look before joining (`lender preflight`). It says no more than it must: nothing to a server
that is not vouched for, and never anything that a stream could keep. What goes on working with a
server is `connection`.
"""

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from lender.link.errors import LinkError, NoRespondersError, StrangeAnswerError
from lender.link.server_words import (
    Greeting,
    Leading,
    Standing,
    greeting_of,
    leading_of,
    standing_of,
)
from lender.protocol import streams, subjects
from lender.protocol.permissions import USER_INFO

LINE_BYTES_MAX = 64 * 1024
TOTAL_BYTES_MAX = 1 << 20

_CHUNK_BYTES = 16 * 1024
_ADDRESSES_MAX = 4
_NO_RESPONDERS = b"NATS/1.0 503"
_NOTHING = b"NATS/1.0 404"
_LEADER = f"$JS.API.DIRECT.GET.{streams.LEADER}.{subjects.LEADERSHIP_KEY}"
_NATS_PORT = 4222


class Place(NamedTuple):
    """Where a server is said to listen."""

    host: str
    port: int = _NATS_PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class ProbeError(LinkError):
    """It is not there, too slow, or no NATS server; says what was seen."""


class RefusedError(LinkError):
    """It is a server, and does not let us; holds its words."""


class Met(NamedTuple):
    """Whom we have met by TLS, vouched for."""

    protocol: str
    certificate: dict[str, Any]
    """As `ssl.SSLSocket.getpeercert` has it."""
    encoded: bytes
    """The same, DER."""


class Line:
    """One connection to one server, to be used once, in this order: greet, secure, log in, ask."""

    def __init__(
        self, place: Place, within_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare; `open` connects.

        Args:
            place: where to.
            within_s: for all that is said on it; after that everything raises ProbeError.
            clock: seconds, of any beginning.
        """
        self.place = place
        self._clock = clock
        self._end = clock() + within_s
        self._within_s = within_s
        self._asked = 0
        self._socket: socket.socket
        self._buffer = bytearray()
        self._received = 0

    def resolve(self) -> list[str]:
        """Return the addresses that the host's name stands for.

        Raises:
            ProbeError: there is none, or nobody told in time.
        """
        found: list[Any] = []

        def ask() -> None:
            # Nothing bounds it: a thread that is left behind harms nobody.
            try:
                found.append(
                    socket.getaddrinfo(self.place.host, self.place.port, type=socket.SOCK_STREAM)
                )
            except (OSError, UnicodeError) as error:
                found.append(error)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(self._left_s())
        if not found:
            raise ProbeError(f"no answer about the name within {self._within_s:g} s")
        if isinstance(found[0], Exception):
            error = found[0]
            raise ProbeError(str(getattr(error, "strerror", None) or error))
        addresses = [str(entry[4][0]) for entry in found[0]]
        return list(dict.fromkeys(addresses))[:_ADDRESSES_MAX]

    def open(self, addresses: list[str]) -> None:
        """Connect to the first address that takes it.

        Raises:
            ProbeError: none does.
        """
        reason = "no address"
        for number, address in enumerate(addresses):
            share_s = self._left_s() / (len(addresses) - number)
            try:
                self._socket = socket.create_connection((address, self.place.port), share_s)
            except OSError as error:
                reason = error.strerror or str(error)
            else:
                return
        raise ProbeError(reason)

    def greet(self) -> Greeting:
        """Read what the server says first.

        Raises:
            ProbeError: nothing in time, or without end.
            StrangeAnswerError: it is no NATS server.
        """
        verb, _, rest = self._line().partition(b" ")
        if verb != b"INFO":
            raise StrangeAnswerError(f"greeting {bytes(verb[:40])!r}")
        return greeting_of(rest)

    def secure(self, context: ssl.SSLContext) -> Met:
        """Go on by TLS.

        Raises:
            ProbeError: there was no handshake in time, or it failed.
            ssl.SSLCertVerificationError: nobody whom `context` trusts vouches for that server.
        """
        if self._buffer:
            raise ProbeError("it said more before TLS than it should")
        self._socket.settimeout(self._left_s())
        try:
            secured = context.wrap_socket(self._socket, server_hostname=self.place.host)
        except ssl.SSLCertVerificationError:
            raise
        except TimeoutError as error:
            raise ProbeError(f"no handshake within {self._within_s:g} s") from error
        except (OSError, ValueError) as error:
            raise ProbeError(f"no handshake: {getattr(error, 'reason', None) or error}") from error
        self._socket = secured
        return Met(
            str(secured.version()),
            dict(secured.getpeercert() or {}),
            secured.getpeercert(binary_form=True) or b"",
        )

    def log_in(self, said: dict[str, Any]) -> None:
        """Say who we are, and see whether the server takes it.

        Args:
            said: fields of `CONNECT`, beyond those of any client.

        Raises:
            RefusedError: it does not.
            ProbeError, StrangeAnswerError: it is none.
        """
        options = {
            "verbose": False,
            "pedantic": False,
            "lang": "python",
            "version": "0",
            "protocol": 1,
            "headers": True,
            "no_responders": True,
            "name": "lender preflight",
            **said,
        }
        self._send(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
        while not self._line().startswith(b"PONG"):
            pass

    def standing(self, inbox: str) -> Standing:
        """Ask the server who we are to it, and what it lets us do. No stream hears of it.

        Args:
            inbox: before a last token, for the answer; we may listen there.

        Raises:
            RefusedError: it lets us not even ask.
            NoRespondersError: it does not answer such questions.
            ProbeError, StrangeAnswerError: it is none.
        """
        _, said = self._ask(USER_INFO, f"{inbox}.standing")
        return standing_of(said)

    def leading(self, inbox: str) -> Leading | None:
        """Ask the server which broker leads. It reads its own memory: no broker hears of it.

        Args:
            inbox: as for `standing`.

        Returns:
            What that broker has left; None: none ever led here.

        Raises:
            RefusedError: it does not let us.
            NoRespondersError: it keeps no such record.
            ProbeError, StrangeAnswerError: it is none.
        """
        status, said = self._ask(_LEADER, f"{inbox}.leading")
        return None if status.startswith(_NOTHING) else leading_of(said)

    def _ask(self, subject: str, inbox: str) -> tuple[bytes, bytes]:
        """Return the headers of the answer, if it has any, and what it says."""
        self._asked += 1
        self._send(f"SUB {inbox} {self._asked}\r\nPUB {subject} {inbox} 0\r\n\r\n".encode())
        while True:
            words = self._line().split()
            if not words or words[0] not in (b"MSG", b"HMSG"):
                continue
            head_bytes, total_bytes = _sizes(words)
            message = self._exactly(total_bytes + len(b"\r\n"))
            if message.startswith(_NO_RESPONDERS):
                raise NoRespondersError(subject)
            return message[:head_bytes], message[head_bytes:total_bytes]

    def close(self) -> None:
        """Hang up."""
        if hasattr(self, "_socket"):
            with contextlib.suppress(OSError):
                self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self) -> bytes:
        """The next line that is not about the line itself."""
        while True:
            while (end := self._buffer.find(b"\n")) < 0:
                if len(self._buffer) > LINE_BYTES_MAX:
                    raise ProbeError(f"it says more than {LINE_BYTES_MAX} bytes in one line")
                self._receive()
            line = bytes(self._buffer[:end]).rstrip(b"\r")
            del self._buffer[: end + 1]
            if line.startswith(b"-ERR"):
                raise RefusedError(line[4:].strip(b" '").decode(errors="replace"))
            if line != b"PING":
                return line
            self._send(b"PONG\r\n")

    def _exactly(self, count: int) -> bytes:
        if count > TOTAL_BYTES_MAX:
            raise ProbeError(f"it answers with {count} bytes")
        while len(self._buffer) < count:
            self._receive()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _receive(self) -> None:
        self._socket.settimeout(self._left_s())
        try:
            chunk = self._socket.recv(_CHUNK_BYTES)
        except TimeoutError as error:
            raise self._too_late() from error
        except OSError as error:
            raise ProbeError(f"it hung up: {error.strerror or error}") from error
        if not chunk:
            raise ProbeError("it hung up")
        self._received += len(chunk)
        if self._received > TOTAL_BYTES_MAX:
            raise ProbeError(f"it said more than {TOTAL_BYTES_MAX} bytes, and went on")
        self._buffer += chunk

    def _send(self, payload: bytes) -> None:
        self._socket.settimeout(self._left_s())
        try:
            self._socket.sendall(payload)
        except TimeoutError as error:
            raise self._too_late() from error
        except OSError as error:
            raise ProbeError(f"it hung up: {error.strerror or error}") from error

    def _left_s(self) -> float:
        left_s = self._end - self._clock()
        if left_s <= 0:
            raise self._too_late()
        return left_s

    def _too_late(self) -> ProbeError:
        return ProbeError(f"it did not say what it should within {self._within_s:g} s")


def _sizes(words: list[bytes]) -> tuple[int, int]:
    """How long the headers of a message are, and all of it."""
    try:
        total_bytes = int(words[-1])
        head_bytes = int(words[-2]) if words[0] == b"HMSG" else 0
    except (ValueError, IndexError) as error:
        raise StrangeAnswerError(f"message {b' '.join(words)[:80]!r}") from error
    if not 0 <= head_bytes <= total_bytes:
        raise StrangeAnswerError(f"message {b' '.join(words)[:80]!r}")
    return head_bytes, total_bytes
