"""The joint table: all rows of build/bench as Markdown, and pictures of some, in bench/results.

python bench/table.py [--rows build/bench] [--to bench/results]
"""

import argparse
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import goals, rows
from bench.charts import Bar, write_bars
from bench.rows import Row, Table, figure

RESULTS = rows.ROOT / "bench" / "results"
QUIET_LOAD = 0.5
"""Above this at its start, something else was measured, too."""
RUNS = "runs"
_FIRST = ("peers", "throughput", "kills", "recovery", "scale", "owner", "sandbox", "comfort")


_VERSIONS = ("nats_server", "bubblewrap")


class Column(NamedTuple):
    """A measure of all peers, as the table heads it."""

    measure: str
    head: str


SIDE_BY_SIDE = (
    Column("no-op tasks", "no-op tasks/s"),
    Column("no-op tasks, many to a message", "many to a message, 1/s"),
    Column("tasks that run /bin/true", "/bin/true, 1/s"),
    Column("idle round trip, p50", "round trip p50, ms"),
    Column("idle round trip, p99", "p99, ms"),
    Column("idle memory, workers", "workers, MiB"),
    Column("idle memory, servers", "servers, MiB"),
    Column("a busy task is stopped", "stop, ms"),
    Column("second start of a killed worker's task", "second start, s"),
)
BARS = (
    ("no-op tasks", "separate no-op tasks per second"),
    ("tasks that run /bin/true", "tasks that run /bin/true, per second"),
    ("idle round trip, p50", "idle round trip, p50, ms"),
)


def main() -> None:
    """Write it all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=Path, default=rows.FOLDER)
    parser.add_argument("--to", type=Path, default=RESULTS)
    asked = parser.parse_args()
    tables = read_all(asked.rows)
    if not tables:
        raise SystemExit(f"no rows in {asked.rows}: make bench")
    asked.to.mkdir(parents=True, exist_ok=True)
    pictures = draw(tables, asked.to)
    for picture in sorted(asked.rows.glob("*.svg")):
        shutil.copy(picture, asked.to / picture.name)
        pictures.append(picture.name)
    (asked.to / "README.md").write_text(markdown(tables, pictures))
    print(asked.to / "README.md")


def read_all(folder: Path) -> list[Table]:
    """Return what benches have written, those that most people ask for first."""
    tables = [rows.read(path) for path in sorted(folder.glob("*.json"))]
    order = {name: number for number, name in enumerate(_FIRST)}
    return sorted(tables, key=lambda table: order.get(table.bench, len(order)))


def markdown(tables: Sequence[Table], pictures: Iterable[str]) -> str:
    """Return the page."""
    parts = ["# Measured", "", *_machine(tables), "", *goals.page(tables), ""]
    for picture in pictures:
        parts += [f"![{Path(picture).stem}]({picture})", ""]
    for table in tables:
        parts += [f"## {table.bench}", "", f"`{table.command}`", ""]
        if table.bench == "peers":
            parts += [*side_by_side(table), "", *_how(table), ""]
        parts += [*_rows(table), ""]
    return "\n".join(parts)


def draw(tables: Sequence[Table], folder: Path) -> list[str]:
    """Draw the peers side by side; return the names of the pictures."""
    peers = next((table for table in tables if table.bench == "peers"), None)
    stores = goals.stores(peers.rows) if peers else set()
    drawn = []
    for number, (measure, title) in enumerate(BARS, 1):
        found = [row for row in peers.rows if row.measure == measure] if peers else []
        if found:
            name = f"peers-{number}.svg"
            bars = [Bar(row.system, row.median, row.system not in stores) for row in found]
            said = f"{title} (pale: what waits is kept in memory)"
            write_bars(folder / name, said, sorted(bars, key=lambda bar: -bar.value))
            drawn.append(name)
    return drawn


def side_by_side(table: Table) -> list[str]:
    """A line for each peer that ran, a column for each measure; medians."""
    medians = {(row.system, row.measure): row for row in table.rows}
    systems = [row.system for row in table.rows if row.measure == RUNS and row.median > 0]
    lines = [_line(["system", *(column.head for column in SIDE_BY_SIDE), "durable"])]
    lines.append(_line(["---", *("---:" for _ in SIDE_BY_SIDE), "---"]))
    for system in systems:
        cells = [system]
        for column in SIDE_BY_SIDE:
            row = medians.get((system, column.measure))
            late = row is not None and row.note is not None and row.note.startswith(goals.LATE)
            cells.append("" if row is None else f"{'over ' * late}{figure(row.median)}")
        durable = medians.get((system, goals.DURABLE))
        cells.append((durable.note or "") if durable else "")
        lines.append(_line(cells))
    return lines


def _machine(tables: Sequence[Table]) -> list[str]:
    on = {name: str(value) for name, value in tables[0].machine.items()}
    words = "{cores} cores of {cpu}, {memory_gib} GiB, {system}, Python {python}"
    lines = [", ".join([words.format(**on), *(on[name] for name in _VERSIONS if name in on)]) + "."]
    commits = sorted(
        {str(table.machine["commit"]) for table in tables if "commit" in table.machine}
    )
    if commits:
        lines[0] += f" Commit {', '.join(commits)}."
    busy = {table.bench: float(table.machine["load"]) for table in tables}
    busy = {name: load for name, load in busy.items() if load > QUIET_LOAD}
    if busy:
        loads = ", ".join(f"{name} {load:g}" for name, load in busy.items())
        lines += [
            "",
            f"**Provisional**: other work ran on this machine (load at the start: {loads}).",
        ]
    return lines


def _how(table: Table) -> list[str]:
    """How each peer was run, or why not."""
    return [
        f"- {row.system}: {row.note}" + (f" ({row.median:.0f} runs)" if row.median else "")
        for row in table.rows
        if row.measure == RUNS
    ]


def _rows(table: Table) -> list[str]:
    head = ["system", "measure", "median", "least", "most", "unit", "n", ""]
    lines = [_line(head), _line(["---", "---", "---:", "---:", "---:", "---", "---:", "---"])]
    lines += [_line(_cells(row)) for row in table.rows if row.measure not in {RUNS, goals.DURABLE}]
    return lines


def _cells(row: Row) -> list[str]:
    figures = (figure(value) for value in (row.median, min(row.values), max(row.values)))
    return [row.system, row.measure, *figures, row.unit, str(len(row.values)), row.note or ""]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


if __name__ == "__main__":
    main()
