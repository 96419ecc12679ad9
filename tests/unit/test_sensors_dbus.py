"""What a message bus may say, and what is none: it belongs to somebody's session."""

import socket
import struct

import pytest
from jeepney import DBusAddress, Message, Parser, new_signal

from lender.sensors.dbus import BusConnection


def hear(said: bytes) -> Message | None:
    """What a connection makes of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = BusConnection.__new__(BusConnection)
        connection._parser, connection._socket = Parser(), ours
        connection._takes_fds = False
        theirs.sendall(said)
        return connection.receive(0.0)


def signal_of(signature: str, body: tuple[object, ...]) -> bytes:
    return new_signal(DBusAddress("/a", interface="a.B"), "C", signature, body).serialise(1)


def test_a_text_may_name_nothing() -> None:
    text = "Method Foo() is not there, nor is a()"
    message = hear(signal_of("sv", (text, ("s", text))))
    assert message is not None
    assert message.body == (text, ("s", text))


@pytest.mark.parametrize("signature", ["a()", "(a(()))", "a()x"])
def test_an_array_of_nothing_has_an_end(signature: str) -> None:
    """Its elements take no bytes: as many of them as one likes stand in one byte."""
    said = signal_of("gu", (signature, 1))  # as a variant has it: a signature, and what it names
    with pytest.raises(OSError, match="a struct of nothing"):
        hear(said.replace(b"\x02gu\0", b"\x01v\0\0"))


def test_what_is_too_large_is_not_waited_for() -> None:
    said = bytearray(signal_of("s", ("x",)))
    said[4:8] = struct.pack("<I", 1 << 30)
    with pytest.raises(OSError, match="a message of more than"):
        hear(bytes(said))
