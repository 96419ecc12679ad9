"""Asks services on a D-Bus message bus; every call is bounded, blocks, and belongs in a thread.

The wire format is jeepney's (about 0.3 MiB, imported when there is a bus to ask); the socket is
ours, because a bus that accepts and then falls silent must not hold us at any step.
Source: the D-Bus Specification 0.43.
"""

import os
import select
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jeepney import Message

CALL_S = 0.5
"""A service answers in this time or counts as silent; a local one takes well under 1 ms."""
SILENT_S = 60.0
"""A service that did not answer is left alone for so long."""
RECONNECT_S = 10.0

_SYSTEM_SOCKETS = (Path("/run/dbus/system_bus_socket"), Path("/var/run/dbus/system_bus_socket"))
_RECEIVE_BYTES = 64 * 1024
_MESSAGE_BYTES_MAX = 256 * 1024
"""What sources ask for is some KiB at most."""
_SIGNATURE = b"ybnqiuxtdhsogav(){}"
# What jeepney raises where bytes are no D-Bus.
_NO_DBUS = (ValueError, LookupError, TypeError, AssertionError, RecursionError, struct.error)

BUS = "org.freedesktop.DBus"
PROPERTIES = "org.freedesktop.DBus.Properties"
BUS_PATH = "/org/freedesktop/DBus"

Arguments = tuple[str, tuple[Any, ...]]
"""A signature and what it describes."""
NONE: Arguments = ("", ())


class UnansweredError(Exception):
    """The source can't tell: it is absent, silent, or says something else than it promised."""


def system_address() -> str:
    """Return the address of the system bus, "" where there is none."""
    if address := os.environ.get("DBUS_SYSTEM_BUS_ADDRESS"):
        return address
    return next((f"unix:path={path}" for path in _SYSTEM_SOCKETS if path.exists()), "")


def session_address() -> str:
    """Return the address of this user's session bus, "" where there is none."""
    if address := os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return address
    path = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}") / "bus"
    return f"unix:path={path}" if path.exists() else ""


def method_call(service: str, path: str, member: str, arguments: Arguments = NONE) -> "Message":
    """Make the message that calls a method; fields as for `Bus.call`."""
    from jeepney import DBusAddress, new_method_call  # noqa: PLC0415

    interface, _, method = member.rpartition(".")
    target = DBusAddress(path, bus_name=service, interface=interface)
    return new_method_call(target, method, arguments[0] or None, arguments[1])


class BusConnection:
    """One authenticated connection. Not thread-safe.

    Args:
        address: as in the specification, "Server Addresses"; only `unix:` is supported.
        takes_fds: accept file descriptors.

    Raises:
        UnansweredError: nobody listens, or not in time.
    """

    def __init__(self, address: str, *, takes_fds: bool = False) -> None:
        from jeepney import Parser  # noqa: PLC0415  # only a machine with a bus pays for it
        from jeepney.bus import get_bus  # noqa: PLC0415

        self._parser = Parser()
        self._serial = 0
        self._takes_fds = takes_fds
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        deadline = time.monotonic() + CALL_S
        try:
            self._socket.settimeout(CALL_S)
            self._socket.connect(get_bus(address))
            self._authenticate(deadline)
            self.call(method_call(BUS, BUS_PATH, f"{BUS}.Hello"))
        except BaseException as error:
            self._socket.close()
            if isinstance(error, (OSError, ValueError, RuntimeError, StopIteration)):
                raise UnansweredError(f"no message bus at {address}: {error}") from error
            raise

    def call(self, message: "Message", timeout_s: float = CALL_S) -> "Message":
        """Send a method call and return its reply; other messages that arrive are dropped.

        Raises:
            UnansweredError: an error came back, or nothing in time.
            OSError: the connection is lost.
        """
        from jeepney import HeaderFields, MessageType  # noqa: PLC0415

        serial = self.send(message)
        deadline = time.monotonic() + timeout_s
        while True:
            reply = self.receive(max(0.0, deadline - time.monotonic()))
            if reply is None:
                raise UnansweredError("no answer in time")
            if reply.header.fields.get(HeaderFields.reply_serial) != serial:
                continue
            if reply.header.message_type is MessageType.error:
                raise UnansweredError(str(reply.header.fields.get(HeaderFields.error_name)))
            return reply

    def send(self, message: "Message") -> int:
        """Send without waiting; returns the serial that the reply will name.

        Raises:
            OSError: the connection is lost.
        """
        self._serial += 1
        self._socket.settimeout(CALL_S)
        self._socket.sendall(message.serialise(self._serial))
        return self._serial

    def receive(self, timeout_s: float) -> "Message | None":
        """Return the next message, None if none is complete in time; 0 never waits.

        Raises:
            OSError: the connection is lost, or what came is no D-Bus.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                message = self._next()
                if message is not None:
                    return message
                wait_ms = max(0.0, deadline - time.monotonic()) * 1000
                if not _readable(self._socket, wait_ms):
                    return None
                self._read()
            except _NO_DBUS as error:
                raise OSError(f"not D-Bus: {error!r}") from error

    def _next(self) -> "Message | None":
        """What has come whole; see `_names_nothing` for what jeepney would never end with."""
        missing_bytes = self._parser.bytes_desired()
        if missing_bytes > _MESSAGE_BYTES_MAX:
            raise ValueError(f"a message of more than {_MESSAGE_BYTES_MAX} bytes")
        size = self._parser.next_msg_size
        if missing_bytes <= 0 and size and _names_nothing(self._parser.buf.peek(size)):
            raise ValueError("a struct of nothing")
        message: Message | None = self._parser.get_next_message()
        return message

    def fileno(self) -> int:
        """Return the socket, to wait for messages with a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _authenticate(self, deadline: float) -> None:
        from jeepney.auth import BEGIN, Authenticator  # noqa: PLC0415

        authenticator = Authenticator(enable_fds=self._takes_fds)
        for data in authenticator:
            self._socket.sendall(data)
            if not _readable(self._socket, max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError("it does not authenticate")
            authenticator.feed(_some(self._socket.recv(1024)))
        self._socket.sendall(BEGIN)

    def _read(self) -> None:
        from jeepney.fds import FileDescriptor, fds_buf_size  # noqa: PLC0415

        if not self._takes_fds:
            self._parser.add_data(_some(self._socket.recv(_RECEIVE_BYTES)))
            return
        # As many bytes as this message wants: descriptors belong to the message they come with.
        data, ancillary, _, _ = self._socket.recvmsg(self._parser.bytes_desired(), fds_buf_size())
        fds = FileDescriptor.from_ancdata(ancillary)
        self._parser.add_data(_some(data), fds=fds)


class Bus:
    """A bus that may be absent, go away, come back: asked by many sources of one thread.

    Args:
        address: asked at every connection attempt; what returns "" means that there is no bus.
    """

    def __init__(self, address: Callable[[], str]) -> None:
        self._address = address
        self._connection: BusConnection | None = None
        self._retry_at = 0.0
        self._silent_until: dict[str, float] = {}

    def call(
        self,
        service: str,
        path: str,
        member: str,
        expects: str,
        arguments: Arguments = NONE,
    ) -> Any:  # noqa: ANN401 - what D-Bus carries has the type that `expects` names
        """Call a method of a service that runs (none is started), and return its one result.

        Args:
            service: its well-known bus name.
            path: the object.
            member: interface and method, with a dot between them.
            expects: the signature of the result; anything else is no answer.
            arguments: their signature, and they themselves.

        Raises:
            UnansweredError: it can't tell.
        """
        now = time.monotonic()
        if now < self._silent_until.get(service, 0.0):
            raise UnansweredError(f"{service} was silent")
        connection = self._connected(now)
        from jeepney import HeaderFields, MessageFlag  # noqa: PLC0415  # as above

        message = method_call(service, path, member, arguments)
        message.header.flags |= MessageFlag.no_auto_start
        try:
            reply = connection.call(message)
        except UnansweredError:
            if time.monotonic() - now >= CALL_S:
                self._silent_until[service] = now + SILENT_S
            raise
        except OSError as error:
            self.close()
            raise UnansweredError(f"the bus went away: {error}") from error
        if reply.header.fields.get(HeaderFields.signature, "") != expects:
            raise UnansweredError(f"{service} answers {member} with something else")
        return reply.body[0]

    def get(self, service: str, path: str, name: str, expects: str) -> Any:  # noqa: ANN401 - as `call`
        """Read a property.

        Args:
            service: its well-known bus name.
            path: the object.
            name: interface and property, with a dot between them.
            expects: the signature of its value.

        Raises:
            UnansweredError: it can't tell.
        """
        interface, _, member = name.rpartition(".")
        signature, value = self.call(
            service,
            path,
            f"{PROPERTIES}.Get",
            "v",
            ("ss", (interface, member)),
        )
        if signature != expects:
            raise UnansweredError(f"{service} has something else for {name}")
        return value

    def close(self) -> None:
        """Hang up; the next call connects again, after a while."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self, now: float) -> BusConnection:
        if self._connection is None:
            address = self._address()
            if not address or now < self._retry_at:
                raise UnansweredError("no message bus")
            self._retry_at = now + RECONNECT_S
            self._connection = BusConnection(address)
        return self._connection


def _readable(one: socket.socket, wait_ms: float) -> bool:
    poll = select.poll()
    poll.register(one, select.POLLIN)
    return bool(poll.poll(wait_ms))


def _some(data: bytes) -> bytes:
    if not data:
        raise ConnectionResetError("closed by the bus")
    return data


def _names_nothing(message: bytes) -> bool:
    """Whether a signature names a struct without fields, which D-Bus has none of.

    An array of them takes no bytes: jeepney 0.9 goes round in it for ever. A signature is its
    length, itself and a zero; what it is read by up to there are its letters alone.
    """
    if b"()" not in message:
        return False
    return any(
        message[begin + size : begin + size + 1] == b"\0"
        and _begins_with_nothing(message[begin : begin + size])
        for begin, size in enumerate(message, 1)
    )


def _begins_with_nothing(signature: bytes) -> bool:
    read, nothing, _ = signature.partition(b"()")
    return bool(nothing) and not read.strip(_SIGNATURE)
