"""A server that does what a test has it do, to whoever connects."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from lender.link.probe import Place

Behaviour = Callable[[socket.socket], None]
"""Gets the connection; it is closed afterwards."""


@contextlib.contextmanager
def lying(behave: Behaviour) -> Iterator[Place]:
    """Serve on a free port of the loopback until the end."""
    lines: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def carry_out(line: socket.socket) -> None:
        with contextlib.suppress(OSError), line:
            behave(line)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = listening.accept()
                lines.append(line)
                threads.append(threading.Thread(target=carry_out, args=(line,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = threading.Thread(target=serve)
        accepting.start()
        try:
            yield Place("127.0.0.1", listening.getsockname()[1])
        finally:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            accepting.join(10)
            for line in lines:
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(10)


def says(*parts: bytes) -> Behaviour:
    """Says this, and then waits for the other end to hang up."""

    def behave(line: socket.socket) -> None:
        for part in parts:
            line.sendall(part)
        wait(line)

    return behave


def wait(line: socket.socket) -> None:
    """Read until the other end has hung up."""
    while line.recv(1 << 16):
        pass


def endless(first: bytes, then: bytes) -> Behaviour:
    """Says something, and something else for ever."""

    def behave(line: socket.socket) -> None:
        line.sendall(first)
        while True:
            line.sendall(then)

    return behave


INFO = (
    b'INFO {"server_id":"N","server_name":"n","version":"2.15.1","max_payload":8388608,'
    b'"jetstream":true,"headers":true,"auth_required":true,"nonce":"abc"} \r\n'
)
TLS_INFO = INFO.replace(b'"nonce"', b'"tls_required":true,"nonce"')
