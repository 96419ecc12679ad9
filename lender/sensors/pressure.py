"""How long processes that are not ours wait for CPU, memory and disk: PSI `some`, in percent.

Source: Documentation/accounting/psi.rst. The share is taken from the `total=` microseconds of two
readings; the first one takes the kernel's average over 10 s. 35 µs a reading of the machine alone,
and 25 µs more for each cgroup of others while something is lent.

What our own work waits for is not the owner's trouble. Where everybody has a cgroup v2 (systemd),
those of the others are asked directly: exact. Elsewhere the share of ours (of their cgroups, or of
CPU alone the time that their threads were kept waiting) is taken off the machine's as if the two
stalled independently of each other. That is an approximation: while one of ours waits all the time
for a CPU nothing of the machine's CPU pressure is left, and `cpu_others` has to stand in; the
waits of threads that died between two readings count as others'.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from lender.sensors import kernel_file
from lender.sensors.metering import Leased

RESOURCES = ("cpu", "memory", "io")
MIN_INTERVAL_S = 0.05
_PRESSURE = Path("/proc/pressure")
_UNKNOWN = 100.0


class Pressure(NamedTuple):
    """Percent of the time that somebody else waited; None: the kernel has no PSI."""

    cpu: float | None
    memory: float | None
    io: float | None


class _Some(NamedTuple):
    """The line `some`: time stalled since ever, and the percentage of the last 10 s."""

    total_us: int
    average: float


class PressureSensor:
    """PSI of everybody but us.

    Attributes:
        fault: what is wrong with the source, in words; the pressure is 100 % then.
    """

    def __init__(
        self,
        pressure: Path = _PRESSURE,
        cgroups: Path | None = None,
        own: Path | None = None,
    ) -> None:
        """Find out what the machine has.

        Args:
            pressure: the kernel's folder.
            cgroups: where cgroup v2 is mounted; None: wherever that is.
            own: the cgroup of lenderd and of all that it starts, where they share one with nobody.
        """
        self._pressure = pressure
        self._cgroups = cgroups if cgroups is not None else cgroup_mount()
        self._own = own
        # systemd keeps every process but the kernel's own below this folder and its siblings.
        self._everybody_has_one = (self._cgroups / "init.scope").is_dir()
        self._present = [name for name in RESOURCES if (pressure / name).exists()]
        self._seen: dict[str, _Some | None] = {}
        self._at: float | None = None
        self._last = Pressure(None, None, None)
        self.fault = ""

    def read(
        self, now: float, leased: Iterable[Leased], delayed_s: Iterable[float] = ()
    ) -> Pressure:
        """The pressure of others since the reading before; soon after one its answer still stands.

        Args:
            now: seconds of a steady clock.
            leased: where ours are.
            delayed_s: for each lease without a cgroup, how long its processes have waited for a
                CPU since the reading before, added up.
        """
        elapsed_s = now - self._at if self._at is not None else float("inf")
        if elapsed_s < MIN_INTERVAL_S:
            return self._last
        look = _Look(self._present, self._seen, elapsed_s)
        shares = look.machine(self._pressure)
        missing = [name for name in self._present if look.seen[f"{self._pressure}/{name}"] is None]
        self.fault = f"PSI of {', '.join(missing)} can't be read" if missing else ""
        if leased := tuple(leased):
            self._take_ours_off(shares, look, leased, delayed_s)
        self._seen, self._at = look.seen, now
        self._last = Pressure(*(shares.get(name) for name in RESOURCES))
        return self._last

    def _take_ours_off(
        self,
        shares: dict[str, float],
        look: "_Look",
        leased: tuple[Leased, ...],
        delayed_s: Iterable[float],
    ) -> None:
        known = [str(one.cgroup) for one in leased if one.cgroup is not None]
        all_known = self._own is not None or len(known) == len(leased)
        if self._everybody_has_one and all_known:
            ours = {*known, *([str(self._own)] if self._own else [])}
            others = [look.cgroup(one, new=None) for one in _others(str(self._cgroups), ours)]
            for name, percent in shares.items():
                # They may stall at the same time: the sum is the most that they suffer.
                shares[name] = min(percent, sum(one[name] for one in others))
            return
        own = [look.cgroup(one, new=0) for one in known]
        delays = [min(100.0, 100.0 * s / look.elapsed_s) for s in delayed_s]
        for name, percent in shares.items():
            stalled = [one[name] for one in own] + (delays if name == "cpu" else [])
            shares[name] = _apart(percent, _either(stalled))


class _Look:
    """One look at PSI files, held against what was seen at the look before."""

    def __init__(
        self, present: list[str], before: Mapping[str, _Some | None], elapsed_s: float
    ) -> None:
        self.elapsed_s = elapsed_s
        self.seen: dict[str, _Some | None] = {}
        self._present = present
        self._before = before

    def machine(self, folder: Path) -> dict[str, float]:
        """Resource to percent."""
        return {name: self._percent(f"{folder}/{name}", None) for name in self._present}

    def cgroup(self, folder: str, *, new: int | None) -> dict[str, float]:
        """Resource to percent of a cgroup; one not seen before began at `new` microseconds."""
        names = self._present
        return {name: self._percent(f"{folder}/{name}.pressure", new) for name in names}

    def _percent(self, path: str, new: int | None) -> float:
        now = self.seen[path] = _parse(kernel_file.read(path))
        if now is None:
            # Of our own work nothing can be said then, and of others the worst.
            return _UNKNOWN if new is None else 0.0
        known = self._before.get(path)
        before_us = known.total_us if known is not None else new
        if before_us is None:
            return now.average
        return min(100.0, max(0.0, (now.total_us - before_us) / self.elapsed_s / 1e4))


def cgroup_mount(mounts: Path = Path("/proc/self/mounts")) -> Path:
    """Where cgroup v2 is mounted: elsewhere than usual beside cgroup v1."""
    for line in (kernel_file.read(mounts) or b"").splitlines():
        fields = line.split()
        if len(fields) > 2 and fields[2] == b"cgroup2":
            return Path(os.fsdecode(fields[1]))
    return Path("/sys/fs/cgroup")


def own_cgroup(proc: Path = Path("/proc/self/cgroup"), cgroups: Path | None = None) -> Path | None:
    """The cgroup that lenderd and its sandboxes share with nobody: one that is named for it.

    Started from a terminal, lenderd lives in the terminal's: that one is the owner's.
    """
    for line in (kernel_file.read(proc) or b"").splitlines():
        if line.startswith(b"0::/"):
            parts = line[4:].decode(errors="replace").split("/")
            for depth, part in enumerate(parts, start=1):
                if part.startswith("lender"):
                    return (cgroups or cgroup_mount()).joinpath(*parts[:depth])
    return None


def _others(folder: str, ours: set[str]) -> Iterator[str]:
    """The largest cgroups below `folder` that hold none of ours."""
    try:
        with os.scandir(folder) as entries:
            found = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for path in found:
        if path in ours:
            continue
        if any(one.startswith(path + "/") for one in ours):
            yield from _others(path, ours)
        else:
            yield path


def _parse(table: bytes | None) -> _Some | None:
    """`some avg10=0.12 avg60=0.03 avg300=0.00 total=1234`, and lines that are not read."""
    try:
        word, average, _, _, total = (table or b"").split(b"\n", 1)[0].split()
        values = float(average.removeprefix(b"avg10=")), int(total.removeprefix(b"total="))
    except ValueError:
        return None
    if word != b"some" or values[1] < 0:
        return None
    return _Some(values[1], min(100.0, max(0.0, values[0])))


def _either(percents: Iterable[float]) -> float:
    """Percent of the time that at least one stalls, if they do it independently."""
    neither = 1.0
    for percent in percents:
        neither *= 1.0 - percent / 100.0
    return 100.0 * (1.0 - neither)


def _apart(both: float, ours: float) -> float:
    """Percent of the time that the others stall, where `both` is `_either` of them and ours."""
    return 0.0 if ours >= both else 100.0 * (both - ours) / (100.0 - ours)
