"""Idle time from display servers: Xvfb, sway without a screen, and a played compositor."""

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lender.sensors import idle_wayland
from lender.sensors.dbus import UnansweredError
from lender.sensors.idle_wayland import WaylandIdle
from lender.sensors.idle_x11 import SOCKETS, X11Idle

needs_xvfb = pytest.mark.skipif(
    shutil.which("Xvfb") is None or shutil.which("xdotool") is None,
    reason="no Xvfb or xdotool (Debian packages: xvfb, xdotool)",
)
needs_sway = pytest.mark.skipif(
    shutil.which("sway") is None or shutil.which("wtype") is None,
    reason="no sway or wtype (Debian packages: sway, wtype)",
)
SECRET = bytes(range(16))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30  # a compositor's start on a busy machine
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def idle_s(source: X11Idle | WaylandIdle) -> float:
    [told] = source.read()
    assert told.last_input_at is not None
    assert (told.uid, told.desktop) == (os.getuid(), True)
    return time.monotonic() - told.last_input_at


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("WAYLAND_DISPLAY", "DISPLAY", "XAUTHORITY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def xvfb(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A display that lets in only who knows the secret; its socket alone in a folder."""
    authority = runtime / "authority"
    number = next(one for one in range(90, 200) if not (SOCKETS / f"X{one}").exists())
    fields = (b"", str(number).encode(), b"MIT-MAGIC-COOKIE-1", SECRET)
    entry = b"".join(struct.pack(">H", len(field)) + field for field in fields)
    authority.write_bytes(struct.pack(">H", 0xFFFF) + entry)
    monkeypatch.setenv("XAUTHORITY", str(authority))
    command = ["Xvfb", f":{number}", "-displayfd", "1", "-auth", str(authority)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        assert server.stdout.readline()
        (runtime / f"X{number}").symlink_to(SOCKETS / f"X{number}")
        try:
            yield f":{number}"
        finally:
            server.kill()
            (SOCKETS / f"X{number}").unlink(missing_ok=True)
            Path(f"/tmp/.X{number}-lock").unlink(missing_ok=True)


@needs_xvfb
def test_x11_idle_time_grows_until_somebody_moves_the_mouse(xvfb: str, runtime: Path) -> None:
    source = X11Idle(runtime)
    try:
        until(lambda: idle_s(source) > 0.5)
        move = ["xdotool", "mousemove", "30", "40"]
        subprocess.run(move, env={**os.environ, "DISPLAY": xvfb}, check=True)
        assert idle_s(source) < 0.5
    finally:
        source.close()


@needs_xvfb
@pytest.mark.usefixtures("xvfb")
def test_a_display_that_does_not_let_us_in_does_not_answer(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XAUTHORITY", str(runtime / "none"))
    monkeypatch.setenv("HOME", str(runtime))
    with pytest.raises(UnansweredError):
        X11Idle(runtime).read()


@needs_xvfb
@pytest.mark.usefixtures("xvfb")
def test_xwaylands_display_is_not_asked(runtime: Path) -> None:
    (runtime / "wayland-0").touch()
    with pytest.raises(UnansweredError, match="Wayland"):
        X11Idle(runtime).read()


def serve(listener: socket.socket, answer: bytes) -> threading.Thread:
    def run() -> None:
        client, _ = listener.accept()
        with client, contextlib.suppress(ConnectionResetError):
            client.recv(4096)
            client.sendall(answer)
            client.recv(1)  # until it hangs up

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("answer", [b"", b"\1", bytes(8), b"\1" + bytes(200), b"\xa5" * 64])
def test_garbage_from_a_display_is_no_answer(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr("lender.sensors.idle_x11.ANSWER_S", 0.1)
    monkeypatch.setattr(idle_wayland, "ANSWER_S", 0.1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(runtime / "X0"))
        listener.listen(1)
        thread = serve(listener, answer)
        with pytest.raises(UnansweredError):
            X11Idle(runtime).read()
        thread.join(5)
        (runtime / "wayland-0").symlink_to(runtime / "X0")
        thread = serve(listener, answer)
        with pytest.raises(UnansweredError):
            WaylandIdle().read()
        thread.join(5)


@pytest.fixture
def sway(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real compositor without screen and devices; it refuses to run as root."""
    user: dict[str, int] = {}
    if os.getuid() == 0:
        user = {"user": 65534, "group": 65534}
        os.chown(runtime, 65534, 65534)
        for folder in runtime.parents:
            if folder.stat().st_uid == 0 and folder.name.startswith(("pytest-", "popen-")):
                folder.chmod(0o755)
    runtime.chmod(0o700)
    (runtime / "config").write_text("")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(runtime),
        "XDG_RUNTIME_DIR": str(runtime),
        "WLR_BACKENDS": "headless",
        "WLR_LIBINPUT_NO_DEVICES": "1",
        "WLR_RENDERER": "pixman",
    }
    command = ["sway", "-c", str(runtime / "config")]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user
    )
    with process:
        try:
            until(lambda: any(runtime.glob("wayland-[0-9]*")))
            monkeypatch.setattr(idle_wayland, "AFTER_S", 0.3)
            yield
        finally:
            process.kill()


@needs_sway
@pytest.mark.usefixtures("sway")
def test_wayland_idle_time_grows_until_somebody_types() -> None:
    source = WaylandIdle()
    try:
        assert idle_s(source) < 0.3
        until(lambda: idle_s(source) > 0.6)
        subprocess.run(
            ["wtype", "x"], env={**os.environ, "WAYLAND_DISPLAY": "wayland-1"}, check=True
        )
        until(lambda: idle_s(source) < 0.3)
    finally:
        source.close()


class Compositor:
    """Plays a compositor with ext-idle-notify-v1 as its XML says."""

    def __init__(self, path: Path, version: int) -> None:
        self.version = version
        self.requests: list[tuple[int, int, tuple[int, ...]]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, source: int, opcode: int, arguments: bytes = b"") -> None:
        assert self._client is not None
        size = 8 + len(arguments)
        self._client.sendall(struct.pack("=II", source, size << 16 | opcode) + arguments)

    def close(self) -> None:
        self._listener.close()
        if self._client is not None:
            with contextlib.suppress(OSError):  # the client hung up first
                self._client.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def _serve(self) -> None:
        self._client, _ = self._listener.accept()
        with self._client:
            buffer = b""
            while data := self._client.recv(4096):
                buffer += data
                while len(buffer) >= 8:
                    target, word = struct.unpack_from("=II", buffer)
                    self._take(target, word & 0xFFFF, buffer[8 : word >> 16])
                    buffer = buffer[word >> 16 :]

    def _take(self, target: int, opcode: int, arguments: bytes) -> None:
        if (target, opcode) == (1, 1):
            self._global(7, "wl_seat", 8)
            self._global(9, "ext_idle_notifier_v1", self.version)
        elif (target, opcode) == (1, 0):
            self.send(struct.unpack("=I", arguments)[0], 0, bytes(4))
        elif target == 4:
            self.requests.append((target, opcode, struct.unpack("=3I", arguments)))

    def _global(self, number: int, interface: str, version: int) -> None:
        name = interface.encode() + b"\0"
        padded = name + bytes(-len(name) % 4)
        arguments = struct.pack("=II", number, len(name)) + padded + struct.pack("=I", version)
        self.send(2, 0, arguments)


@pytest.mark.parametrize(("version", "request_opcode"), [(1, 1), (2, 2), (3, 2)])
def test_ext_idle_notify_is_asked_for_input_alone_where_it_can_tell(
    runtime: Path, version: int, request_opcode: int
) -> None:
    compositor = Compositor(runtime / "wayland-0", version)
    source = WaylandIdle()
    try:
        assert idle_s(source) < 0.1
        until(lambda: len(compositor.requests) == 1)
        [(_, opcode, (notification, after_ms, _seat))] = compositor.requests
        assert (opcode, after_ms) == (request_opcode, 5000)
        compositor.send(notification, 0)
        until(lambda: idle_s(source) >= 5)
        compositor.send(notification, 1)
        until(lambda: idle_s(source) < 0.1)
        compositor.send(1, 0, struct.pack("=III", 4, 1, 4) + b"bad\0")
        with pytest.raises(UnansweredError, match="bad"):
            until(lambda: idle_s(source) > 100)
    finally:
        source.close()
        compositor.close()


def test_a_compositor_that_goes_away_does_not_answer(runtime: Path) -> None:
    compositor = Compositor(runtime / "wayland-0", 2)
    source = WaylandIdle()
    assert idle_s(source) < 0.1
    compositor.close()
    with pytest.raises(UnansweredError):
        source.read()
