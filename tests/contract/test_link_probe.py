"""A look at a server that lies: clear words, little memory, in bounded time."""

import socket
import ssl
import time
import tracemalloc
from collections.abc import Callable

import pytest
from lying_server import INFO, TLS_INFO, Behaviour, endless, lying, says, wait

from lender.link.embedded import EmbeddedServer
from lender.link.errors import LinkError, StrangeAnswerError
from lender.link.probe import Line, Place, ProbeError, RefusedError

WITHIN_S = 0.5
MEMORY_BYTES_MAX = 8 << 20


def look(place: Place, within_s: float = WITHIN_S) -> None:
    """All that a preflight does on one line."""
    with Line(place, within_s) as line:
        line.open(line.resolve())
        greeting = line.greet()
        if greeting.tls_required:
            line.secure(ssl.create_default_context())
        line.log_in({})
        line.standing("_INBOX.x")


def trickle(line: socket.socket) -> None:
    line.sendall(b"INFO ")
    while True:
        line.sendall(b" ")
        time.sleep(0.01)


def answering(answer: bytes) -> Behaviour:
    """A good server until it is asked who we are."""

    def behave(line: socket.socket) -> None:
        line.sendall(INFO)
        heard = b""
        while b"PUB " not in heard:
            heard += line.recv(1 << 16)
            if b"PING" in heard:
                line.sendall(b"PONG\r\n")
                heard = heard.replace(b"PING", b"")
        line.sendall(answer)
        wait(line)

    return behave


def nonsense(line: socket.socket) -> None:
    line.sendall(TLS_INFO)
    line.recv(1 << 16)
    line.sendall(b"nonsense" * 100)
    wait(line)


def message(payload: bytes) -> bytes:
    return b"MSG _INBOX.x 1 %d\r\n%s\r\n" % (len(payload), payload)


LIES: dict[str, tuple[Behaviour, type[LinkError], str]] = {
    "another protocol": (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), StrangeAnswerError, "HTTP"),
    "no JSON": (says(b"INFO {]\r\n"), StrangeAnswerError, "JSON"),
    "another type": (
        says(b'INFO {"version": 5, "max_payload": 1}\r\n'),
        StrangeAnswerError,
        "version",
    ),
    "no number": (
        says(INFO.replace(b"8388608", b"9" * 5000)),
        StrangeAnswerError,
        "number out of range",
    ),
    "a tower": (says(b"INFO " + b"[" * 60_000 + b"\r\n"), StrangeAnswerError, "INFO|JSON"),
    "a long name": (
        says(INFO.replace(b'"n"', b'"' + b"n" * 5000 + b'"')),
        StrangeAnswerError,
        "server_name",
    ),
    "silence": (says(), ProbeError, "within"),
    "hangs up": (lambda _: None, ProbeError, "hung up"),
    "a greeting without end": (endless(b"INFO ", b"x" * 65_536), ProbeError, "in one line"),
    "a slow greeting": (trickle, ProbeError, "within"),
    "a refusal": (says(b"-ERR 'maximum connections exceeded'\r\n"), RefusedError, "maximum"),
    "a handshake that hangs": (says(TLS_INFO), ProbeError, "handshake within"),
    "a handshake of nonsense": (nonsense, ProbeError, "no handshake: "),
    "words before TLS": (says(TLS_INFO + b"PONG\r\n"), ProbeError, "before TLS"),
    "pings without end": (endless(INFO, b"PING\r\n" * 1000), ProbeError, "went on|within|hung up"),
    "words without end": (endless(INFO, b"+OK\r\n" * 1000), ProbeError, "went on|within|hung up"),
    "a long answer": (
        answering(b"MSG _INBOX.x 1 99999999999\r\n" + b"x" * 1000),
        ProbeError,
        "answers with 1000",
    ),
    "an answer of no length": (answering(b"MSG _INBOX.x 1 -7\r\n"), StrangeAnswerError, "-7"),
    "headers longer than all": (
        answering(b"HMSG _INBOX.x 1 90 7\r\n"),
        StrangeAnswerError,
        "90 7",
    ),
    "no answer": (answering(b""), ProbeError, "within"),
    "an answer of nonsense": (answering(message(b"{}")), StrangeAnswerError, "server"),
    "a huge answer": (
        answering(message(b'{"server":{"time":"' + b"1" * 900_000 + b'"}}')),
        StrangeAnswerError,
        "server.time",
    ),
    "a tower for an answer": (
        answering(message(b'{"data":' + b"[" * 500_000)),
        StrangeAnswerError,
        "that",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_is_found_out_in_bounded_time_and_memory(lie: str) -> None:
    behave, error, words = LIES[lie]
    with lying(behave) as place:
        tracemalloc.start()
        began = time.monotonic()
        try:
            with pytest.raises(error, match=words):
                look(place)
            took_s = time.monotonic() - began
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert took_s < WITHIN_S + 5.0
    assert peak_bytes < MEMORY_BYTES_MAX


async def test_a_server_tells_who_asks_and_the_time(nats: EmbeddedServer) -> None:
    assert nats.port is not None
    with Line(Place("127.0.0.1", nats.port), 10) as line:
        line.open(line.resolve())
        greeting = line.greet()
        assert greeting.jetstream
        line.log_in({})
        standing = line.standing("_INBOX.x")
    assert abs(standing.server.time.timestamp() - time.time()) < 5
    assert standing.server.ver == greeting.version
    assert standing.data.permissions is None


def test_a_name_that_nobody_knows_and_a_port_where_nobody_is() -> None:
    with Line(Place("nats.invalid"), 10) as line, pytest.raises(ProbeError):
        line.resolve()
    with Line(Place("127.0.0.1", 1), 10) as line, pytest.raises(ProbeError, match="refused"):
        line.open(line.resolve())


def test_a_resolver_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", hang(time.sleep))
    with Line(Place("nats.lab"), 0.2) as line, pytest.raises(ProbeError, match="within"):
        line.resolve()


def hang(sleep: Callable[[float], None]) -> Callable[..., None]:
    def getaddrinfo(*_: object, **__: object) -> None:
        sleep(1.0)

    return getaddrinfo
