"""Idle time on Wayland: ext-idle-notify-v1, or its forerunner org_kde_kwin_idle.

KWin, wlroots, COSMIC and niri know one of them. A read of one socket, about 5 µs.
The compositor tells when nobody touched anything for `AFTER_S`, and when somebody does again.
The few messages are spoken directly. Sources: the Wayland wire format, ext-idle-notify-v1.xml,
plasma-wayland-protocols' idle.xml.
"""

import os
import socket
import struct
import time
from pathlib import Path

from lender.sensors.dbus import UnansweredError
from lender.sensors.sighting import Sighting

AFTER_S = 5.0
ANSWER_S = 0.3
RECONNECT_S = 10.0

_DISPLAY, _REGISTRY, _SYNCED, _NOTIFIER, _FIRST_FREE = 1, 2, 3, 4, 5
_SYNC, _GET_REGISTRY, _BIND = 0, 1, 0
_EXT, _KDE = "ext_idle_notifier_v1", "org_kde_kwin_idle"
_IDLED, _RESUMED = 0, 1
_RECEIVE_BYTES = 64 * 1024

Message = tuple[int, int, bytes]
"""Object, opcode, arguments."""


def runtime_folder() -> Path:
    """Return where this user's sockets lie."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")


def find_socket() -> Path | None:
    """Return the compositor's socket of this user's session."""
    if name := os.environ.get("WAYLAND_DISPLAY"):
        return runtime_folder() / name
    sockets = [one for one in runtime_folder().glob("wayland-[0-9]*") if one.suffix != ".lock"]
    return min(sockets, default=None)


class WaylandIdle:
    """Listens to the compositor of this user's session."""

    name = "wayland"
    pace_s = 1.0

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._idle_since: dict[int, float | None] = {}
        self._retry_at = 0.0

    def read(self) -> list[Sighting]:
        """Return when somebody last touched an input device, at a grain of `AFTER_S`.

        Raises:
            UnansweredError: no compositor, or it does not tell.
        """
        now = time.monotonic()
        try:
            if self._socket is None:
                self._connect(now)
            for message in self._received():
                self._note(message, now)
        except (OSError, struct.error) as error:
            self.close()
            raise UnansweredError(f"the compositor went away: {error}") from error
        except UnansweredError:
            self.close()
            raise
        since = self._idle_since.values()
        at = max((now if one is None else one) for one in since)
        return [Sighting(self.name, uid=os.getuid(), last_input_at=at, desktop=True)]

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._buffer, self._idle_since = None, b"", {}

    def _connect(self, now: float) -> None:
        path = find_socket()
        if path is None or now < self._retry_at:
            raise UnansweredError("no Wayland compositor that tells")
        self._retry_at, deadline = now + RECONNECT_S, now + ANSWER_S
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(ANSWER_S)
        self._socket.connect(str(path))
        self._send(_DISPLAY, _GET_REGISTRY, struct.pack("=I", _REGISTRY))
        self._send(_DISPLAY, _SYNC, struct.pack("=I", _SYNCED))
        globals_: dict[str, list[tuple[int, int]]] = {}
        while True:
            messages = self._received(max(0.001, deadline - time.monotonic()))
            for source, opcode, arguments in messages:
                if source == _REGISTRY and opcode == 0:
                    number, interface, version = _global(arguments)
                    globals_.setdefault(interface, []).append((number, version))
                elif source == _SYNCED:
                    self._subscribe(globals_)
                    return
            if time.monotonic() > deadline:
                raise UnansweredError("the compositor is silent")

    def _subscribe(self, globals_: dict[str, list[tuple[int, int]]]) -> None:
        notifier = next((one for one in (_EXT, _KDE) if one in globals_), None)
        seats = globals_.get("wl_seat", [])
        if notifier is None or not seats:
            raise UnansweredError("the compositor knows no idle notification")
        number, version = globals_[notifier][0]
        self._bind(number, notifier, min(version, 2 if notifier == _EXT else 1), _NOTIFIER)
        after_ms = int(AFTER_S * 1000)
        for index, (seat_number, _) in enumerate(seats):
            seat, notification = _FIRST_FREE + 2 * index, _FIRST_FREE + 2 * index + 1
            self._bind(seat_number, "wl_seat", 1, seat)
            if notifier == _KDE:
                opcode, arguments = 0, (notification, seat, after_ms)
            else:
                # Version 2 tells of input alone; the older request stays quiet in a film.
                opcode, arguments = min(version, 2), (notification, after_ms, seat)
            self._send(_NOTIFIER, opcode, struct.pack("=3I", *arguments))
            self._idle_since[notification] = None

    def _note(self, message: Message, now: float) -> None:
        source, opcode, arguments = message
        if source == _DISPLAY and opcode == 0:
            raise UnansweredError(f"the compositor objects: {arguments[12:]!r}")
        if source in self._idle_since:
            self._idle_since[source] = now - AFTER_S if opcode == _IDLED else None

    def _bind(self, number: int, interface: str, version: int, new: int) -> None:
        name = interface.encode() + b"\0"
        padded = name + bytes(-len(name) % 4)
        arguments = struct.pack("=II", number, len(name)) + padded
        self._send(_REGISTRY, _BIND, arguments + struct.pack("=II", version, new))

    def _send(self, target: int, opcode: int, arguments: bytes) -> None:
        assert self._socket is not None
        self._socket.settimeout(ANSWER_S)
        head = struct.pack("=II", target, (8 + len(arguments)) << 16 | opcode)
        self._socket.sendall(head + arguments)

    def _received(self, wait_s: float = 0.0) -> list[Message]:
        """Return the complete messages that have arrived."""
        assert self._socket is not None
        self._socket.settimeout(wait_s)
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except (TimeoutError, BlockingIOError):
            return []
        if not data:
            raise ConnectionResetError("closed")
        self._buffer += data
        messages = []
        while len(self._buffer) >= 8:
            source, word = struct.unpack_from("=II", self._buffer)
            size = word >> 16
            if size < 8:
                raise ConnectionResetError("not Wayland")
            if len(self._buffer) < size:
                break
            messages.append((source, word & 0xFFFF, self._buffer[8:size]))
            self._buffer = self._buffer[size:]
        return messages


def _global(arguments: bytes) -> tuple[int, str, int]:
    number, length = struct.unpack_from("=II", arguments)
    interface = arguments[8 : 8 + length - 1].decode(errors="replace")
    (version,) = struct.unpack_from("=I", arguments, 8 + length + (-length % 4))
    return number, interface, version
