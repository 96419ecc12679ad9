"""Measured rows, and the one form in which every bench writes them for the joint table.

{"bench": str, "machine": {...}, "command": str,
 "rows": [{"system": str, "measure": str, "unit": str, "values": [float, ...],
           "median": float, "note": str | null}]}
"""

import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "bench"
_BESIDE_PYTHON = str(Path(sys.executable).parent / "nats-server")


Machine = Mapping[str, str | int | float]
"""What a bench ran on: see `machine`."""


@dataclass(frozen=True)
class Row:
    """One measure of one system, a value for each run."""

    system: str
    measure: str
    unit: str
    values: tuple[float, ...]
    note: str | None = None

    @property
    def median(self) -> float:
        """The middle of the runs."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Table:
    """What one run of one bench found."""

    bench: str
    machine: Machine
    command: str
    rows: tuple[Row, ...]


def machine() -> dict[str, str | int | float]:
    """This machine, what runs on it, and what else keeps it busy just now: ask at the start."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "nats_server": _said_by(shutil.which("nats-server") or _BESIDE_PYTHON, "--version"),
        "bubblewrap": _said_by("bwrap", "--version"),
        "commit": _said_by("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "load": round(os.getloadavg()[0], 2),
    }


def command() -> str:
    """How this bench was started, from the repository's root."""
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script
    if script.name == "__main__.py":
        return shlex.join(["python", "-m", ".".join(name.parent.parts), *sys.argv[1:]])
    return shlex.join(["python", str(name), *sys.argv[1:]])


def write(
    bench: str,
    rows: Iterable[Row],
    *,
    on: Machine | None = None,
    folder: Path = FOLDER,
) -> Path:
    """Write `folder/BENCH.json`.

    Args:
        bench: name of the bench and of its file.
        rows: what it found so far; a later call replaces the file.
        on: `machine()` as it was before the bench added its own load; now, if left out.
        folder: where the tables lie.

    Returns:
        The file.
    """
    table = Table(bench, machine() if on is None else on, command(), tuple(rows))
    written = {
        **asdict(table),
        "rows": [{**asdict(row), "median": row.median} for row in table.rows],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{bench}.json"
    path.write_text(json.dumps(written, indent=1) + "\n")
    return path


def read(path: Path) -> Table:
    """Return a table that `write` wrote.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    table = json.loads(path.read_text())
    rows = tuple(
        Row(
            one["system"],
            one["measure"],
            one["unit"],
            tuple(float(value) for value in one["values"]),
            one.get("note"),
        )
        for one in table["rows"]
    )
    return Table(table["bench"], table["machine"], table["command"], rows)


def line(row: Row) -> str:
    """One row to print: median, least and most of its runs."""
    least, most = min(row.values), max(row.values)
    said = f"  {row.note}" if row.note else ""
    return (
        f"{row.system:<28} {row.measure:<44} {figure(row.median):>9} "
        f"{figure(least):>9} {figure(most):>9} {row.unit}{said}"
    )


def figure(value: float) -> str:
    """Three digits that count; whole thousands are easier to read with commas."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _said_by(*argv: str) -> str:
    """Return the first line that a program says; "none" where there is none."""
    try:
        said = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False).stdout
    except OSError:
        return "none"
    return said.partition("\n")[0].strip() or "none"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    for found in info.read_text().splitlines() if info.exists() else ():
        if found.startswith("model name"):
            return found.partition(":")[2].strip()
    return platform.processor() or platform.machine()
