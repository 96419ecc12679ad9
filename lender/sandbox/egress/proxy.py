"""The proxy's loop: takes connections from a sandbox's loopback, a bounded number at once."""

import contextlib
import os
import queue
import selectors
import socket
import threading
import time
from collections import deque
from typing import Final

from lender.sandbox.egress.addresses import Address
from lender.sandbox.egress.connection import Connection
from lender.sandbox.egress.counters import Counters
from lender.sandbox.egress.policy import Policy, RefusedError, UnknownError

CONNECTIONS_MAX: Final = 64
LOOK_UPS_MAX: Final = 4
"""At once, each in a thread: a resolver may take its time."""

_LOOK_S = 1.0


class Proxy:
    """Serves one sandbox until this process ends.

    Args:
        door: listens where the sandbox can reach it; non-blocking.
        policy: judges who wants where.
        counters: told what is moved and refused, and asked how much more may be moved.
    """

    def __init__(self, door: socket.socket, policy: Policy, counters: Counters) -> None:
        self._door = door
        self._policy = policy
        self._counters = counters
        self._selector = selectors.DefaultSelector()
        self._connections: set[Connection] = set()
        self._registered: dict[socket.socket, int] = {}
        self._of: dict[socket.socket, Connection] = {}
        self._waiting: deque[tuple[Connection, str]] = deque()
        self._looking_up = 0
        self._found: queue.SimpleQueue[tuple[Connection, list[Address] | tuple[int, str]]] = (
            queue.SimpleQueue()
        )
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._looked_at = 0.0

    def serve(self) -> None:
        """Go round for ever."""
        while True:
            self.round()

    def close(self) -> None:
        """Let go of all but the door, where its process goes on."""
        for connection in self._connections:
            connection.close()
        self._selector.close()
        os.close(self._woken)
        os.close(self._wake)

    def round(self) -> None:
        """Wait for something to do, and do it."""
        self._listen()
        events = self._selector.select(_LOOK_S if self._connections else None)
        now = time.monotonic()
        for key, mask in events:
            if key.fileobj is self._door:
                self._take(now)
            elif key.fileobj == self._woken:
                self._hear_found(now)
            elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._of:
                reads, writes = (
                    bool(mask & selectors.EVENT_READ),
                    bool(mask & selectors.EVENT_WRITE),
                )
                connection = self._of[key.fileobj]
                connection.go_on(key.fileobj, now, reads=reads, writes=writes)
                self._follow(connection)
        if now - self._looked_at >= _LOOK_S:
            self._looked_at = now
            for connection in [*self._connections]:
                if now >= connection.deadline:
                    connection.late(now)
                self._follow(connection)  # more may be allowed by now

    def _listen(self) -> None:
        """Take more, or leave them waiting in the kernel."""
        has_room = len(self._connections) < CONNECTIONS_MAX
        if has_room != (self._door in self._registered):
            self._watch(self._door, selectors.EVENT_READ if has_room else 0)

    def _take(self, now: float) -> None:
        try:
            client, _ = self._door.accept()
        except OSError:
            return  # it was given up, or there are no descriptors
        client.setblocking(False)
        connection = Connection(client, self._policy, self._counters, self._look_up, now)
        self._connections.add(connection)
        self._follow(connection)

    def _follow(self, connection: Connection) -> None:
        """Count that it was refused, and wait for what it waits for now."""
        self._counters.add(refused=int(connection.refused))
        connection.refused = False
        watched = () if connection.over else connection.watched()
        wanted = {one.sock: _mask(reads=one.reads, writes=one.writes) for one in watched}
        for sock in [one for one, of in self._of.items() if of is connection]:
            if not wanted.get(sock):
                self._watch(sock, 0)
                del self._of[sock]
        for sock, mask in wanted.items():
            if mask:
                self._of[sock] = connection
                self._watch(sock, mask)
        if connection.over:
            self._connections.discard(connection)

    def _watch(self, sock: socket.socket, mask: int) -> None:
        before = self._registered.get(sock, 0)
        if mask == before:
            return
        if mask and before:
            self._selector.modify(sock, mask)
        elif mask:
            self._selector.register(sock, mask)
        else:
            with contextlib.suppress(KeyError, ValueError, OSError):  # closed: gone by itself
                self._selector.unregister(sock)
        if mask:
            self._registered[sock] = mask
        else:
            self._registered.pop(sock, None)

    def _look_up(self, connection: Connection, host: str) -> None:
        self._waiting.append((connection, host))
        self._begin_look_ups()

    def _begin_look_ups(self) -> None:
        while self._waiting and self._looking_up < LOOK_UPS_MAX:
            connection, host = self._waiting.popleft()
            if connection not in self._connections:
                continue  # it has waited for too long
            self._looking_up += 1
            thread = threading.Thread(target=self._find, args=(connection, host), daemon=True)
            try:
                thread.start()
            except RuntimeError:  # a thread counts among the processes that its job may have
                self._tell_found(connection, (502, "the job has as many processes as it may"))

    def _find(self, connection: Connection, host: str) -> None:
        """In a thread of its own."""
        found: list[Address] | tuple[int, str]
        try:
            found = self._policy.addresses(host)
        except RefusedError as error:
            found = 403, str(error)
        except UnknownError as error:
            found = 502, str(error)
        except Exception as error:  # noqa: BLE001 - a thread that dies would leave its place taken
            found = 502, type(error).__name__
        self._tell_found(connection, found)

    def _tell_found(self, connection: Connection, found: list[Address] | tuple[int, str]) -> None:
        self._found.put((connection, found))
        os.write(self._wake, b"1")

    def _hear_found(self, now: float) -> None:
        os.read(self._woken, 64)
        while not self._found.empty():
            connection, found = self._found.get()
            self._looking_up -= 1
            if connection in self._connections:
                if isinstance(found, list):
                    connection.found(found, now)
                else:
                    connection.not_found(*found, now)
                self._follow(connection)
        self._begin_look_ups()


def _mask(*, reads: bool, writes: bool) -> int:
    return (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if writes else 0)
