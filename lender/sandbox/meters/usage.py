"""What the processes of one sandbox use right now, read through its own /proc.

A process sandbox has a PID namespace, and its init's view of /proc lists its processes only: far
cheaper than a search through the host's. Being hostile, they may vanish under our eyes; what can't
be read counts as nothing, and the hard limits remain.
"""

import os
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """Of all processes of a sandbox together, its init left out.

    Attributes:
        memory_bytes: resident private memory; forks that share pages count them twice.
        processes: processes, without their threads.
    """

    memory_bytes: int
    processes: int


def measure(init_pid: int) -> Usage:
    """A cheap estimate that may count shared pages more than once."""
    memory_bytes = processes = 0
    for folder in _processes(init_pid):
        try:
            _, resident, shared, *_ = (folder / "statm").read_text().split()
        except (OSError, ValueError):
            continue
        memory_bytes += (int(resident) - int(shared)) * _PAGE_BYTES
        processes += 1
    return Usage(memory_bytes, processes)


def proportional_bytes(init_pid: int) -> int:
    """The exact sum, each shared page divided among its users (proc(5), smaps_rollup)."""
    total_bytes = 0
    for folder in _processes(init_pid):
        try:
            lines = (folder / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total_bytes += sum(
            int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon:")
        )
    return total_bytes


def cpu_s(init_pid: int) -> float:
    """Processor time of all processes and of all that they have waited for.

    To be asked right before a kill: what dies with its init is never added up by anyone.
    """
    ticks = 0
    for folder in [Path(f"/proc/{init_pid}"), *_processes(init_pid)]:
        try:
            line = (folder / "stat").read_bytes()
        except OSError:
            continue
        ticks += sum(int(field) for field in line[line.rfind(b")") + 2 :].split()[11:15])
    return ticks / _TICKS_PER_S


def _processes(init_pid: int) -> list[Path]:
    folder = Path(f"/proc/{init_pid}/root/proc")
    try:
        # Until bubblewrap has changed its root, this is the host's own /proc.
        if folder.stat().st_dev == Path("/proc").stat().st_dev:
            return []
        content = list(folder.iterdir())
    except OSError:
        return []
    return [entry for entry in content if entry.name.isdigit() and entry.name != "1"]
