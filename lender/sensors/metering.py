"""What each lease's processes have used: CPU time, memory, time spent waiting for a CPU.

A sandbox with a cgroup of its own is metered by the kernel, exactly and in 60 µs however many
processes it has; without one its process tree is added up (`processes.py`).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lender.sensors import kernel_file, processes
from lender.sensors.processes import Process


@dataclass(frozen=True, slots=True)
class Leased:
    """Where a lease's processes are.

    Attributes:
        roots: process ids below which they all are.
        cgroup: folder of the cgroup v2 that holds them all and nobody else; None: there is none.
    """

    roots: tuple[int, ...] = ()
    cgroup: Path | None = None


@dataclass(frozen=True, slots=True)
class Metered:
    """What a lease has used since it was first metered.

    Attributes:
        cpu_s: CPU time, of dead processes too as far as their parents waited for them.
        memory_bytes: in use now: by its cgroup, else the private memory of its processes.
        memory_peak_bytes: the most that was seen at once.
        gpu_s: time that a GPU computed for it.
        vram_bytes: GPU memory held now.
        vram_peak_bytes: the most GPU memory that was seen at once.
        gpu_joules: energy of the GPUs, by its share of their use.
    """

    cpu_s: float = 0.0
    memory_bytes: int = 0
    memory_peak_bytes: int = 0
    gpu_s: float = 0.0
    vram_bytes: int = 0
    vram_peak_bytes: int = 0
    gpu_joules: float = 0.0


@dataclass(slots=True)
class _Account:
    """One lease: its processes at the last look, and what it has used up to then."""

    seen: dict[int, Process]
    cgroup_cpu_s: float = 0.0
    cpu_s: float = 0.0
    memory_bytes: int = 0
    memory_peak_bytes: int = 0
    delayed_s: float = 0.0
    pids: Collection[int] = ()


class Meter:
    """Adds up what leases use from one `read` to the next.

    Attributes:
        grown_s: CPU time that all of ours have used since the read before, lenderd's own included.
        pids: of each lease, its processes at the last read.
        delayed_s: of each lease without a cgroup, the time that its processes have waited for a
            CPU since the read before, added up.
    """

    def __init__(self) -> None:
        self.grown_s = 0.0
        self.pids: dict[str, Collection[int]] = {}
        self.delayed_s: dict[str, float] = {}
        self._accounts: dict[str, _Account] = {}
        self._own: dict[int, Process] = {}

    def read(
        self, leased: Mapping[str, Leased], own_pids: Iterable[int] = ()
    ) -> dict[str, Metered]:
        """Look at every lease; one that is no longer passed is forgotten.

        Args:
            leased: by any name that the caller wants back.
            own_pids: our processes that work for no lease in particular, taken one by one.
        """
        own = {p.pid: p for p in processes.members(own_pids)}
        self.grown_s = sum(_own_growth_s(p, self._own.get(p.pid)) for p in own.values())
        self._own = own
        self._accounts = {k: self._accounts.get(k) or _Account({}) for k in leased}
        for name, account in self._accounts.items():
            before_s = account.cpu_s
            _look(account, leased[name])
            self.grown_s += account.cpu_s - before_s
        self.pids = {name: account.pids for name, account in self._accounts.items()}
        self.delayed_s = {
            name: account.delayed_s
            for name, account in self._accounts.items()
            if leased[name].cgroup is None
        }
        return {
            name: Metered(account.cpu_s, account.memory_bytes, account.memory_peak_bytes)
            for name, account in self._accounts.items()
        }


def _look(account: _Account, leased: Leased) -> None:
    stat = kernel_file.read(leased.cgroup / "cpu.stat") if leased.cgroup else None
    usage_us = kernel_file.field(stat, b"usage_usec ") if stat else None
    if leased.cgroup is None or usage_us is None:
        _look_at_trees(account, leased.roots)
    else:
        _look_at_cgroup(account, leased.cgroup, usage_us / 1e6)
    account.memory_peak_bytes = max(account.memory_peak_bytes, account.memory_bytes)


def _look_at_cgroup(account: _Account, cgroup: Path, usage_s: float) -> None:
    # A cgroup that was made anew for the same lease starts again at nothing.
    grown_s = usage_s - account.cgroup_cpu_s
    account.cpu_s += grown_s if grown_s >= 0 else usage_s
    account.cgroup_cpu_s = usage_s
    listed = (kernel_file.read(cgroup / "cgroup.procs") or b"").split()
    account.pids = [int(pid) for pid in listed if pid.isdigit()]
    current = kernel_file.number(cgroup / "memory.current")
    if current is None:
        # Its memory controller is off, or handed to nobody.
        current = sum(map(processes.private_bytes, account.pids))
    account.memory_bytes = current
    account.memory_peak_bytes = max(
        account.memory_peak_bytes, kernel_file.number(cgroup / "memory.peak") or 0
    )


def _look_at_trees(account: _Account, roots: Iterable[int]) -> None:
    now = {p.pid: p for root in roots for p in processes.tree(root)}
    grown = _grown(account.seen, now)
    account.cpu_s += grown
    account.delayed_s = sum(_delay_s(p, account.seen.get(pid)) for pid, p in now.items())
    account.memory_bytes = sum(p.memory_bytes for p in now.values())
    account.seen, account.pids = now, now.keys()


def _grown(before: Mapping[int, Process], now: Mapping[int, Process]) -> float:
    """CPU time used between two looks at a tree.

    What a process used before it died turns up in the `waited_s` of whoever waited for it; the
    part that we had seen while it lived is taken off again. Where nobody waits (SIGCHLD ignored)
    its last instants are lost, but what the living have used never is.
    """
    living_s = sum(_own_growth_s(p, before.get(pid)) for pid, p in now.items())
    waited_s = sum(_waited_growth_s(p, before.get(pid)) for pid, p in now.items())
    dead = (p for pid, p in before.items() if not _is_same(p, now.get(pid)))
    seen_of_dead_s = sum(p.own_s + p.waited_s for p in dead)
    return living_s + max(0.0, waited_s - seen_of_dead_s)


def _is_same(one: Process, other: Process | None) -> bool:
    return other is not None and one.started_at == other.started_at


def _own_growth_s(process: Process, before: Process | None) -> float:
    known_s = before.own_s if before is not None and _is_same(process, before) else 0.0
    return max(0.0, process.own_s - known_s)


def _waited_growth_s(process: Process, before: Process | None) -> float:
    known_s = before.waited_s if before is not None and _is_same(process, before) else 0.0
    return max(0.0, process.waited_s - known_s)


def _delay_s(process: Process, before: Process | None) -> float:
    known_s = before.delayed_s if before is not None and _is_same(process, before) else 0.0
    return max(0.0, process.delayed_s - known_s)
