"""Displays and message buses of users' sessions, which lenderd asks whether somebody is there."""

import contextlib
import socket
import struct
import time
from collections.abc import Callable

from jeepney import DBusAddress, Parser, new_method_call

from fuzz.target import Target, taken
from lender.sensors import idle_wayland, idle_x11
from lender.sensors.dbus import BusConnection, UnansweredError
from lender.sensors.idle_wayland import WaylandIdle

_NO_DISPLAY = (OSError, UnansweredError, struct.error)
"""What `X11Idle` takes for a display that does not tell."""


def _authority(data: bytes) -> None:
    taken(struct.error, idle_x11.cookie_of, data, b"0")


def _told(data: bytes, hear: Callable[[socket.socket], object]) -> None:
    """Somebody says this, whatever is asked, and hangs up."""
    ours, theirs = socket.socketpair()
    try:
        ours.settimeout(1.0)
        theirs.setblocking(False)
        theirs.send(data)
        theirs.shutdown(socket.SHUT_WR)
        hear(ours)
    finally:
        ours.close()
        theirs.close()


def _x11(data: bytes) -> None:
    def hear(server: socket.socket) -> None:
        with contextlib.suppress(*_NO_DISPLAY):
            root = idle_x11._set_up(server, b"secret")
            saver = idle_x11._saver(server)
            display = idle_x11._Display.__new__(idle_x11._Display)
            display._server = server
            display._question = struct.pack("<BBHI", saver, 1, 2, root)
            assert display.idle_s() >= 0

    _told(data, hear)


def _wayland(data: bytes) -> None:
    def hear(server: socket.socket) -> None:
        source = WaylandIdle()
        source._socket = server
        globals_: dict[str, list[tuple[int, int]]] = {}
        with contextlib.suppress(*_NO_DISPLAY):
            while True:
                for number, opcode, arguments in source._received():
                    if (number, opcode) == (2, 0):
                        name, interface, version = idle_wayland._global(arguments)
                        globals_.setdefault(interface, []).append((name, version))
                    elif number == 3:
                        source._subscribe(globals_)
                    else:
                        source._note((number, opcode, arguments), time.monotonic())

    _told(data, hear)


def _bus(data: bytes) -> None:
    def hear(server: socket.socket) -> None:
        connection = BusConnection.__new__(BusConnection)
        connection._parser, connection._socket = Parser(), server
        connection._serial, connection._takes_fds = 0, False
        with contextlib.suppress(OSError):
            while connection.receive(0.0) is not None:
                pass

    _told(data, hear)


def _message(source: int, opcode: int, arguments: bytes) -> bytes:
    return struct.pack("=II", source, (8 + len(arguments)) << 16 | opcode) + arguments


def _announced(number: int, name: bytes) -> bytes:
    text = name + b"\0"
    padded = text + bytes(-len(text) % 4)
    return struct.pack("=II", number, len(text)) + padded + struct.pack("=I", 1)


def _a_reply() -> bytes:
    message = new_method_call(DBusAddress("/a", "org.a", "org.a.B"), "Get", "ss", ("x", "y"))
    return bytes(message.serialise(7))


_X11_REPLY = struct.pack("<BBHI", 1, 0, 0, 0)
_NO_XWAYLAND = _X11_REPLY + bytes(24)
_SAVER = _X11_REPLY + bytes([1, 144]) + bytes(22)
_IDLE = _X11_REPLY + bytes(8) + struct.pack("<I", 5000) + bytes(12)

TARGETS = (
    Target(
        "desktop-x11-secret",
        _authority,
        (
            struct.pack(">HH", 256, 4)
            + b"host"
            + struct.pack(">H", 1)
            + b"0"
            + struct.pack(">H", 18)
            + b"MIT-MAGIC-COOKIE-1"
            + struct.pack(">H", 4)
            + b"abcd",
        ),
        ("lender.sensors.idle_x11.cookie_of",),
    ),
    Target(
        "desktop-x11",
        _x11,
        (struct.pack("<BxxxxxH", 1, 10) + bytes(40) + _NO_XWAYLAND + _SAVER + _IDLE,),
        (
            "lender.sensors.idle_x11._set_up",
            "lender.sensors.idle_x11._Display.idle_s",
        ),
    ),
    Target(
        "desktop-wayland",
        _wayland,
        (
            _message(2, 0, _announced(1, b"ext_idle_notifier_v1"))
            + _message(2, 0, _announced(2, b"wl_seat"))
            + _message(3, 0, bytes(4))
            + _message(6, 0, b""),
        ),
        (
            "lender.sensors.idle_wayland.WaylandIdle._received",
            "lender.sensors.idle_wayland._global",
        ),
        (b"org_kde_kwin_idle\0", b"wl_seat\0"),
    ),
    Target(
        "desktop-bus",
        _bus,
        (_a_reply(),),
        ("lender.sensors.dbus.BusConnection._next",),
        (b"\0", b"ss\0", b"org.a"),
    ),
)
