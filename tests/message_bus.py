"""A private dbus-daemon, and services on it that play logind, Mutter and others as documented."""

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jeepney import (
    DBusAddress,
    HeaderFields,
    Message,
    MessageType,
    new_error,
    new_method_return,
    new_signal,
)
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import DBusConnection, open_dbus_connection

needs_dbus = pytest.mark.skipif(
    shutil.which("dbus-daemon") is None, reason="no dbus-daemon (Debian package: dbus-daemon)"
)

CONFIG = """<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <servicedir>{services}</servicedir>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>
"""

Answer = tuple[str, tuple[Any, ...]]
SILENCE: Answer = ("silence", ())


class MessageBus:
    """One dbus-daemon; may be stopped and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "bus"
        self._config = folder / "bus.conf"
        self.services = folder / "services"
        self.services.mkdir()
        self._config.write_text(CONFIG.format(socket=self.socket, services=self.services))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"unix:path={self.socket}"

    def start(self) -> None:
        command = ["dbus-daemon", f"--config-file={self._config}", "--nofork", "--print-address=1"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "dbus-daemon did not start"
        self.socket.chmod(0o666)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
        self.socket.unlink(missing_ok=True)


class Service:
    """A service that answers calls with what the test says.

    Attributes:
        answers: (path, "interface.Member") to (signature, body), SILENCE, or a callable(arguments)
            that returns one of these. A property is ("interface.Property" with a leading "=").
        calls: every "interface.Member" that was asked for.
    """

    def __init__(self, bus: MessageBus, name: str) -> None:
        self.answers: dict[tuple[str, str], Answer | Callable[[tuple[Any, ...]], Answer]] = {}
        self.calls: list[str] = []
        self._connection: DBusConnection = open_dbus_connection(bus.address, enable_fds=True)
        request = message_bus.RequestName(name)
        self._connection.send_and_get_reply(request, timeout=5)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def unique_name(self) -> str:
        return str(self._connection.unique_name)

    def emit(self, path: str, member: str, signature: str, *body: object) -> None:
        interface, _, name = member.rpartition(".")
        emitter = DBusAddress(path, interface=interface)
        self._connection.send(new_signal(emitter, name, signature, body))

    def send_to(
        self, destination: str, path: str, member: str, signature: str, *body: object
    ) -> None:
        interface, _, name = member.rpartition(".")
        emitter = DBusAddress(path, interface=interface)
        signal = new_signal(emitter, name, signature, body)
        signal.header.fields[HeaderFields.destination] = destination
        self._connection.send(signal)

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)
        with contextlib.suppress(OSError):
            self._connection.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                message = self._connection.receive(timeout=0.05)
            except TimeoutError:
                continue
            except OSError:
                return
            if message.header.message_type is MessageType.method_call:
                self._answer(message)

    def _answer(self, message: Message) -> None:
        fields = message.header.fields
        path = fields[HeaderFields.path]
        member = f"{fields.get(HeaderFields.interface)}.{fields[HeaderFields.member]}"
        self.calls.append(member)
        if member == "org.freedesktop.DBus.Properties.Get":
            found = self.answers.get((path, "=" + ".".join(message.body)))
            answer = None if found is None or callable(found) else ("v", ((found[0], found[1][0]),))
        else:
            found = self.answers.get((path, member))
            answer = found(message.body) if callable(found) else found
        if answer == SILENCE:
            return
        if answer is None:
            self._connection.send(new_error(message, "org.freedesktop.DBus.Error.UnknownMethod"))
        else:
            self._connection.send(new_method_return(message, answer[0] or None, answer[1]))
            if answer[0] == "h":
                os.close(answer[1][0])  # the other side has its own by now


@contextlib.contextmanager
def running_bus(folder: Path) -> Iterator[MessageBus]:
    bus = MessageBus(folder)
    bus.start()
    try:
        yield bus
    finally:
        bus.stop()


@contextlib.contextmanager
def services_of(bus: MessageBus) -> Iterator[Callable[[str], Service]]:
    """Put services on the bus by their names; they end with the block."""
    services: list[Service] = []

    def offer(name: str) -> Service:
        services.append(Service(bus, name))
        return services[-1]

    try:
        yield offer
    finally:
        for service in services:
            service.close()
