"""What lenderd tells systemd of itself (sd_notify(3))."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
from sandboxes import open_folder

__all__ = ["open_folder"]  # a fixture

LENDERD = Path(sys.executable).with_name("lenderd")
WITHIN_S = 90.0


def words_of(systemd: socket.socket) -> Iterator[str]:
    """What was said, one message after the other; it ends once nothing more comes in time."""
    try:
        while True:
            yield systemd.recv(200).decode()
    except (BlockingIOError, TimeoutError):
        return


@contextlib.contextmanager
def ready(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A lenderd that serves, and what it tells systemd."""
    folder.chmod(0o777)
    environment = {
        **os.environ,
        "NOTIFY_SOCKET": str(folder / "notify"),
        "WATCHDOG_USEC": "60000000",
        "LENDERD_STATE": str(folder / "state"),
        "LENDERD_URL": "nats://127.0.0.1:1",  # nobody is there
        "LENDERD_RUNTIMES": "[]",
        **({"LENDERD_USER": "nobody"} if os.getuid() == 0 else {}),
    }
    environment.pop("WATCHDOG_PID", None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(environment["NOTIFY_SOCKET"])
        Path(environment["NOTIFY_SOCKET"]).chmod(0o777)
        systemd.settimeout(WITHIN_S)
        with subprocess.Popen([LENDERD], env=environment) as lenderd:
            try:
                assert "READY=1" in words_of(systemd)
                yield lenderd, systemd
            finally:
                lenderd.terminate()


def test_its_watchdog_is_fed_until_the_end(open_folder: Path) -> None:
    """Each of these words arms systemd's clock anew, also while a service is being stopped."""
    with ready(open_folder) as (lenderd, systemd):
        lenderd.terminate()
        assert lenderd.wait(WITHIN_S) == 0
        systemd.setblocking(False)
        said = [*words_of(systemd)]
    stops = [at for at, word in enumerate(said) if "STOPPING=1" in word]
    assert "EXTEND_TIMEOUT_USEC=" in said[stops[0]]
    assert "WATCHDOG=1" in said[stops[-1] :], said


def test_it_ends_when_its_launcher_does(open_folder: Path) -> None:
    """Whoever started it starts it anew: without a launcher it could run nothing."""
    with ready(open_folder) as (lenderd, _):
        (launcher,) = psutil.Process(lenderd.pid).children()
        launcher.kill()
        assert lenderd.wait(WITHIN_S) == 1
