"""The limits of a lease that the kernel keeps: the controllers of its cgroup.

All of a sandbox stands in one leaf, its supervisor included. A leaf inside of the leaf, for the
guest alone, would let the supervisor outlive a guest that is out of memory; but wasm has both in
one process, every other runtime would have to move what it forks, and what a guest makes its
supervisor hold would be on nobody's account. So the kernel ends the sandbox as a whole, nothing
half dead goes on, and lenderd, which stands outside, reads from the leaf why. The next task gets a
fresh sandbox; lost is what the task had written.

The watcher of a runtime looks at memory too: what grows slowly it ends at the very limit, with its
output saved. The kernel's limit stands a little above, for what grows faster than anybody looks.
Source: cgroup-v2.rst, "Controllers" (cpu.max, memory.max, memory.events, pids.max, pids.events).
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from lender.sandbox.plan import LimitName, Limits
from lender.sandbox.processes import cgroup

Kept = Literal["cpu", "memory", "processes"]
"""A field of Limits, in short, that the kernel itself keeps."""

WANTED = ("cpu", "memory", "pids", "io")

_KEEPS: dict[Kept, tuple[str, str]] = {
    "cpu": ("cpu", "cpu.max"),
    "memory": ("memory", "memory.max"),
    "processes": ("pids", "pids.max"),
}
# What the supervisor takes for itself: its pages, a compiler for wasm, and the output that it holds
# once as it grows, once as it is handed on and once in its frame.
_SUPERVISOR_BYTES = 64 << 20
_OUTPUT_COPIES = 3
# The supervisor's threads, bubblewrap and its init. RLIMIT_NPROC counts the guest alone, exactly.
_SUPERVISOR_TASKS = 16
# Short, since who has used up the cores stands still only in the next period on kernels before
# 6.18; the kernel's own 100 ms would be felt in a pause.
_PERIOD_US = 10_000


def available(folder: Path) -> frozenset[str]:
    """The controllers that `folder` may hand on to the folders below it."""
    return _words(folder / "cgroup.controllers")


def enabled(folder: Path) -> frozenset[str]:
    """The controllers that it does hand on."""
    return _words(folder / "cgroup.subtree_control")


def enable(folder: Path, wanted: Iterable[str]) -> None:
    """Hand on what of `wanted` there is; what the kernel refuses is left out."""
    for name in sorted((available(folder) & set(wanted)) - enabled(folder)):
        # One by one: a refused one would take the others along.
        cgroup.order(folder, "cgroup.subtree_control", f"+{name}")


def kept_below(folder: Path) -> frozenset[Kept]:
    """What the kernel keeps for the leaves of this folder, which has the same files itself."""
    handed_on = enabled(folder)
    return frozenset(
        kept
        for kept, (name, file) in _KEEPS.items()
        if name in handed_on and (folder / file).exists()
    )


def limit(leaf: Path, limits: Limits, keeps: frozenset[Kept]) -> None:
    """Put a lease's limits on its leaf.

    Args:
        leaf: an existing one.
        limits: of one task, as a lease runs one at a time.
        keeps: which of them are the kernel's to keep here.

    Raises:
        OSError: one of those was refused; nothing may run in there then.
    """
    if "cpu" in keeps:
        quota_us = max(1000, round(limits.cpu * _PERIOD_US))
        _write(leaf / "cpu.max", f"{quota_us} {_PERIOD_US}")
    if "memory" in keeps:
        own_bytes = _SUPERVISOR_BYTES + _OUTPUT_COPIES * limits.output_bytes
        _write(leaf / "memory.max", str(limits.memory_bytes + own_bytes))
        _write(leaf / "memory.oom.group", "1")
        with contextlib.suppress(FileNotFoundError):  # a kernel that does not account swap
            _write(leaf / "memory.swap.max", "0")
    if "processes" in keeps:
        _write(leaf / "pids.max", str(limits.processes + _SUPERVISOR_TASKS))


def hit(leaf: Path) -> LimitName | None:
    """The limit of its own that the leaf has hit since it was made; None where it hit none.

    A kill because the whole machine ran out of memory is none: memory.events counts it under
    `oom_kill` too, but only the leaf's own limit under `oom`.
    """
    memory = _counts(leaf / "memory.events")
    if memory.get("oom", 0) > 0 and memory.get("oom_kill", 0) > 0:
        return "memory"
    if _counts(leaf / "pids.events").get("max", 0) > 0:
        return "processes"
    return None


def memory_peak_bytes(leaf: Path) -> int:
    """The most memory that stood on the leaf's account at once; 0 before kernel 5.19."""
    try:
        return int((leaf / "memory.peak").read_text())
    except (OSError, ValueError):
        return 0


def _write(file: Path, value: str) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _words(file: Path) -> frozenset[str]:
    try:
        return frozenset(file.read_text().split())
    except OSError:
        return frozenset()


def _counts(file: Path) -> dict[str, int]:
    """A flat keyed file: a name and a number in each line."""
    try:
        pairs = (line.split() for line in file.read_text().splitlines())
        return {name: int(count) for name, count in pairs}
    except (OSError, ValueError):
        return {}
