"""Who is on the other side of a connected Unix socket, by the kernel's word."""

import socket
import struct
import sys
from dataclasses import dataclass

# Linux, unix(7): SO_PEERCRED gives pid, uid, gid.
_PEERCRED = getattr(socket, "SO_PEERCRED", 0)
_UCRED = struct.Struct("=iII")
# macOS, sys/un.h: at level 0, LOCAL_PEERCRED gives struct xucred (its version, uid, number of
# groups, and room for 16 of them), LOCAL_PEERPID a pid. Not yet run on a Mac.
_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2
_XUCRED, _XUCRED_BYTES = struct.Struct("=IIh"), 76


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, as at the time of connecting."""

    uid: int
    pid: int


def on_linux(connection: socket.socket) -> Peer:
    """See `peer_of`."""
    raw = connection.getsockopt(socket.SOL_SOCKET, _PEERCRED, _UCRED.size)
    pid, uid, _gid = _UCRED.unpack(raw)
    return Peer(uid, pid)


def on_mac(connection: socket.socket) -> Peer:
    """See `peer_of`."""
    raw = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES)
    _version, uid, _groups = _XUCRED.unpack_from(raw)
    return Peer(uid, connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID))


def peer_of(connection: socket.socket) -> Peer:
    """Credentials of the other side.

    Raises:
        OSError: the kernel does not tell.
    """
    return _read(connection)


_read = on_mac if sys.platform == "darwin" else on_linux
