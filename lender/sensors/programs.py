"""Which of the owner's exclusive programs runs: while one does, nothing is lent.

Names are looked up every 10 s at most, and only where the owner gave some: 2 ms for 300 processes
(proc_pid_comm(5); psutil where there is no /proc).
"""

import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import psutil

from lender.sensors import kernel_file
from lender.sensors.pace import Paced

EVERY_S = 10.0
_COMM_BYTES_MAX = 15
_PROC = Path("/proc") if sys.platform.startswith("linux") else None


class ProgramSensor:
    """Looks for running programs by name, upper and lower case alike.

    Attributes:
        fault: why programs of others may be missed, in words. Where none can be listed, the first
            of the names counts as running.
    """

    def __init__(self, names: Collection[str], proc: Path | None = _PROC) -> None:
        """Take the owner's names; `proc`: the kernel's folder, None: ask psutil."""
        # The kernel keeps 15 bytes of a name.
        self._wanted = {_key(name.encode()): name for name in names if name}
        self._proc = proc
        self._ours: Collection[int] = ()
        self._paced = Paced(self._scan, EVERY_S)
        self.fault = ""

    def read(self, now: float, ours: Collection[int] = ()) -> str:
        """The first such program that is not one of our own processes; "": none runs."""
        if not self._wanted:
            return ""
        self._ours = ours
        return self._paced.read(now)

    def _scan(self) -> str:
        names = self._by_psutil() if self._proc is None else self._by_proc(self._proc)
        return next((self._wanted[n] for pid, n in names if pid not in self._ours), "")

    def _by_proc(self, proc: Path) -> Iterator[tuple[int, bytes]]:
        try:
            entries = os.listdir(proc)  # noqa: PTH208 - Path objects double the cost
        except OSError as error:
            self.fault = f"programs can't be listed: {error.strerror}"
            yield -1, next(iter(self._wanted))
            return
        # hidepid= shows us our own processes alone, and never the first one.
        self.fault = "" if "1" in entries else "the kernel hides other users' programs (hidepid)"
        for entry in entries:
            if entry.isdigit():
                key = _key(kernel_file.line(f"{proc}/{entry}/comm").rstrip(b"\n"))
                if key in self._wanted:
                    yield int(entry), key

    def _by_psutil(self) -> Iterator[tuple[int, bytes]]:
        for process in psutil.process_iter(["name"]):
            key = _key((process.info["name"] or "").encode())
            if key in self._wanted:
                yield process.pid, key


def _key(name: bytes) -> bytes:
    return name[:_COMM_BYTES_MAX].lower()
