"""A socket that listens in a sandbox's network namespace and is accepted on from outside.

Whoever made a user namespace has every capability in it from outside (user_namespaces(7)), and with
it in the network namespace that belongs to it: so nothing of ours has to run in the sandbox. Only a
process of one thread may change over, and none comes back: a child goes, and sends the socket.
"""

import ctypes
import fcntl
import os
import socket
import sys
from pathlib import Path
from typing import Final, NoReturn

from lender.sandbox.plan import PROXY_PORT

ADDRESS: Final = ("127.0.0.1", PROXY_PORT)
"""Where it is inside."""

_WAITING_MAX = 64
_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_IP_FREEBIND = 15  # ip(7): bubblewrap may not have given the loopback its address yet
_FAULT_BYTES = 200


def receive(channel: socket.socket) -> socket.socket:
    """Take the socket that `send` sends.

    Raises:
        OSError: it could not be made; says why.
    """
    said, fds, *_ = socket.recv_fds(channel, _FAULT_BYTES, 1)
    if not fds:
        raise OSError(said.decode(errors="replace") or "nobody made the socket")
    return socket.socket(fileno=fds[0])


def send(channel: socket.socket, init: int) -> NoReturn:
    """Be the child: make the socket in the network namespace of a process, send it, end."""
    try:
        try:
            _enter(init)
            with socket.socket(socket.AF_INET) as door:
                door.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
                door.bind(ADDRESS)
                door.listen(_WAITING_MAX)
                socket.send_fds(channel, [b"1"], [door.fileno()])
        except OSError as error:
            channel.send(str(error).encode()[:_FAULT_BYTES])
    finally:
        os._exit(0)


def _enter(init: int) -> None:
    network = os.open(f"/proc/{init}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if Path("/proc/self/ns/net").stat().st_ino == os.fstat(network).st_ino:
        raise OSError("the sandbox has no network namespace of its own")
    _setns(fcntl.ioctl(network, _NS_GET_USERNS), _CLONE_NEWUSER)
    _setns(network, _CLONE_NEWNET)


def _setns(handle: int, kind: int) -> None:
    if sys.platform != "linux":
        raise NotImplementedError("Linux only")
    if ctypes.CDLL(None, use_errno=True).setns(handle, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
