"""What lenderd tells systemd of itself (sd_notify(3))."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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


def test_its_watchdog_is_fed_until_the_end(open_folder: Path) -> None:
    """Each of these words arms systemd's clock anew, also while a service is being stopped."""
    open_folder.chmod(0o777)
    environment = {
        **os.environ,
        "NOTIFY_SOCKET": str(open_folder / "notify"),
        "WATCHDOG_USEC": "60000000",
        "LENDERD_STATE": str(open_folder / "state"),
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
            assert "READY=1" in words_of(systemd)
            lenderd.terminate()
            assert lenderd.wait(WITHIN_S) == 0
        systemd.setblocking(False)
        said = [*words_of(systemd)]
    stops = [at for at, word in enumerate(said) if "STOPPING=1" in word]
    assert "EXTEND_TIMEOUT_USEC=" in said[stops[0]]
    assert "WATCHDOG=1" in said[stops[-1] :], said
