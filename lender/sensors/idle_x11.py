"""Idle time on X11: the MIT-SCREEN-SAVER extension, over the display's own socket; about 0.1 ms.

Spoken directly, because Xlib ends the calling process when its X server goes away.
Sources: X Window System Protocol X11R7, MIT-SCREEN-SAVER 1.1, Xauth(7).
"""

import contextlib
import os
import socket
import struct
import time
from pathlib import Path

from lender.sensors.dbus import UnansweredError
from lender.sensors.idle_wayland import runtime_folder
from lender.sensors.sighting import Sighting

SOCKETS = Path("/tmp/.X11-unix")  # noqa: S108  # where X11 says that they are
ANSWER_S = 0.3
RECONNECT_S = 10.0
_REPLY_BYTES = 32
_SETUP_BYTES_MIN = 32
_COOKIE = b"MIT-MAGIC-COOKIE-1"
_QUERY_EXTENSION = 98
_QUERY_INFO = 1
_DISPLAYS_MAX = 8


class X11Idle:
    """Asks all displays of this machine that let this user in.

    One under Wayland (Xwayland) is left out: it sees only what is typed into X11 programs.
    Connections stay open: a server whose last client leaves starts over, idle time included.
    """

    name = "x11"
    pace_s = 1.0

    def __init__(self, sockets: Path = SOCKETS) -> None:
        self._sockets = sockets
        self._displays: dict[Path, _Display] = {}
        self._retry_at: dict[Path, float] = {}

    def read(self) -> list[Sighting]:
        """Return when somebody last touched an input device of any of the displays.

        Raises:
            UnansweredError: no display answers.
        """
        if os.environ.get("WAYLAND_DISPLAY") or any(runtime_folder().glob("wayland-[0-9]*")):
            self.close()
            raise UnansweredError("this user's session is Wayland")
        now = time.monotonic()
        answers = [
            self._ask(path, now) for path in sorted(self._sockets.glob("X[0-9]*"))[:_DISPLAYS_MAX]
        ]
        idle_s = [one for one in answers if one is not None]
        if not idle_s:
            raise UnansweredError("no X11 display lets us in")
        at = time.monotonic() - min(idle_s)
        return [Sighting(self.name, uid=os.getuid(), last_input_at=at, desktop=True)]

    def close(self) -> None:
        """Hang up everywhere."""
        for display in self._displays.values():
            display.close()
        self._displays.clear()

    def _ask(self, path: Path, now: float) -> float | None:
        try:
            if path not in self._displays:
                if now < self._retry_at.get(path, 0.0):
                    return None
                self._retry_at[path] = now + RECONNECT_S
                self._displays[path] = _Display(path)
            return self._displays[path].idle_s()
        except (OSError, UnansweredError, struct.error):
            if display := self._displays.pop(path, None):
                display.close()
            return None


class _Display:
    """One connection.

    Raises:
        OSError, UnansweredError, struct.error: it refuses, is gone, or can't tell.
    """

    def __init__(self, path: Path) -> None:
        secret = _secret(path.name.removeprefix("X").encode())
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._server.settimeout(ANSWER_S)
            self._server.connect(str(path))
            root = _set_up(self._server, secret)
            saver = _saver(self._server)
        except BaseException:
            self._server.close()
            raise
        self._question = struct.pack("<BBHI", saver, _QUERY_INFO, 2, root)

    def idle_s(self) -> float:
        """Return the time since the last input."""
        self._server.sendall(self._question)
        (idle_ms,) = struct.unpack_from("<I", _reply(self._server), 16)
        return float(idle_ms) / 1000

    def close(self) -> None:
        """Hang up."""
        self._server.close()


def cookie_of(authority: bytes, display: bytes) -> bytes:
    """Return the secret of a display number from an Xauthority file; b"" for none.

    Args:
        authority: content of the file.
        display: the number, in digits.
    """
    at = 0
    while at + 2 <= len(authority):
        at += 2  # the address family: our sockets are local whatever it says
        fields = []
        for _ in range(4):
            (length,) = struct.unpack_from(">H", authority, at)
            fields.append(authority[at + 2 : at + 2 + length])
            at += 2 + length
        _address, number, name, secret = fields
        if name == _COOKIE and number in (display, b""):
            return secret
    return b""


def _secret(display: bytes) -> bytes:
    places = [
        os.environ.get("XAUTHORITY", ""),
        os.path.expanduser("~/.Xauthority"),  # noqa: PTH111 - stays a name without a home
        str(runtime_folder() / "gdm" / "Xauthority"),
    ]
    for place in places:
        with contextlib.suppress(OSError, struct.error):
            if place.startswith("/") and (secret := cookie_of(Path(place).read_bytes(), display)):
                return secret
    return b""


def _set_up(server: socket.socket, secret: bytes) -> int:
    """Shake hands; return the root window of the first screen."""
    name = _COOKIE if secret else b""
    head = struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(name), len(secret))
    server.sendall(head + _padded(name) + _padded(secret))
    verdict, units = struct.unpack("<BxxxxxH", _exactly(server, 8))
    rest = _exactly(server, 4 * units)
    if verdict != 1 or len(rest) < _SETUP_BYTES_MIN:
        raise UnansweredError("the display refuses us")
    (vendor_bytes,) = struct.unpack_from("<H", rest, 16)
    formats = rest[21]
    (root,) = struct.unpack_from("<I", rest, 32 + len(_padded(bytes(vendor_bytes))) + 8 * formats)
    return int(root)


def _saver(server: socket.socket) -> int:
    if _extension(server, b"XWAYLAND"):
        raise UnansweredError("Xwayland sees a part of the input only")
    saver = _extension(server, b"MIT-SCREEN-SAVER")
    if not saver:
        raise UnansweredError("no MIT-SCREEN-SAVER")
    return saver


def _extension(server: socket.socket, name: bytes) -> int:
    """Return an extension's opcode; 0: the server has it not."""
    units = 2 + len(_padded(name)) // 4
    server.sendall(struct.pack("<BxHHxx", _QUERY_EXTENSION, units, len(name)) + _padded(name))
    reply = _reply(server)
    return reply[9] if reply[8] else 0


def _reply(server: socket.socket) -> bytes:
    reply = _exactly(server, _REPLY_BYTES)
    # Events (above 1) are not asked for; MappingNotify comes unasked.
    while reply[0] > 1:
        reply = _exactly(server, _REPLY_BYTES)
    if reply[0] != 1:
        raise UnansweredError("the display answers with an error")
    return reply


def _exactly(server: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        part = server.recv(length - len(received))
        if not part:
            raise UnansweredError("the display hung up")
        received += part
    return received


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
