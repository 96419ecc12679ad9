"""The owner's own process, as an attack would meet it: secrets, sockets and shared memory.

`bystander.py FOLDER NAME SECRET`, run with the sandboxes' own user id, so that no ordinary
permission protects it. Says once as JSON where it can be reached, then a line for each visitor,
and a dot for each line that it is sent. Ends at the end of its standard input.
"""

import ctypes
import json
import os
import select
import socket
import sys
from typing import Any

_SIZE_BYTES = 4096
_IPC_CREATE, _IPC_REMOVE, _EVERYBODY = 0o1000, 0, 0o666


def say(line: str) -> None:
    """To whoever started us."""
    os.write(1, f"{line}\n".encode())


class Bystander:
    """Listens wherever the services of a desktop do."""

    def __init__(self, folder: str, name: str, secret: str) -> None:
        self.folder, self.name, self.secret = folder, name, secret
        self.places: dict[str, Any] = {}
        self.listening: dict[int, tuple[str, socket.socket]] = {}

    def listen(self, called: str, family: int, address: Any, kind: int = 1) -> None:  # noqa: ANN401 - as bind takes it
        """Listen there; not at all where the machine lacks the family (IPv6)."""
        try:
            made = socket.socket(family, kind)
            made.bind(address)
        except OSError:
            return
        if kind == socket.SOCK_STREAM:
            made.listen()
        self.listening[made.fileno()] = (called, made)
        place = made.getsockname()
        place = place.decode() if isinstance(place, bytes) else place
        self.places[called] = [int(family), int(kind), place]

    def share_memory(self) -> None:
        """A System V segment and a POSIX one, open to everybody."""
        libc = ctypes.CDLL(None)
        libc.shmat.restype = ctypes.c_void_p
        key = int.from_bytes(self.name.encode()[-3:], "big") | 0x4C000000
        number = libc.shmget(key, _SIZE_BYTES, _IPC_CREATE | _EVERYBODY)
        content = self.secret.encode()
        ctypes.memmove(ctypes.c_void_p(libc.shmat(number, None, 0)), content, len(content))
        self.places["key"], self.places["segment"] = key, number

    def forget(self) -> None:
        """Take the segment back."""
        ctypes.CDLL(None).shmctl(self.places["segment"], _IPC_REMOVE, None)

    def serve(self) -> None:
        """Until nobody holds the other end of standard input."""
        say(json.dumps(self.places))
        while True:
            ready, _, _ = select.select([0, *self.listening], [], [])
            for fd in sorted(ready, reverse=True):  # who came before the question is told first
                if fd == 0:
                    asked = os.read(0, 100)
                    if not asked:
                        return
                    say(".")
                    continue
                called, sock = self.listening[fd]
                if sock.type == socket.SOCK_STREAM:
                    sock.accept()[0].close()
                else:
                    sock.recv(100)
                say(called)


def main() -> None:
    """Be the bystander."""
    folder, name, secret = sys.argv[1:]
    it = Bystander(folder, name, secret)
    # An address of its own: at 127.0.0.1 somebody else's client may look for a server of before.
    loopback = f"127.{os.getpid() % 200 + 20}.0.1"
    it.listen("loopback", socket.AF_INET, (loopback, 0))
    it.listen("loopback6", socket.AF_INET6, ("::1", 0))
    it.listen("datagrams", socket.AF_INET, (loopback, 0), socket.SOCK_DGRAM)
    for called in ("bus", "wayland-0", "agent.sock", "daemon.sock"):
        it.listen(called, socket.AF_UNIX, f"{folder}/{called}")
    for called in ("X11", "dbus"):
        it.listen(called, socket.AF_UNIX, f"\0{name}/{called}")
    it.share_memory()
    try:
        it.serve()
    finally:
        it.forget()


if __name__ == "__main__":
    main()
