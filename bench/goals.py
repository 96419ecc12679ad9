"""What we want of ourselves, and what was found: the first thing that the joint page says.

Each goal reads one figure from the rows of benches; beside it stands a floor of the same run, or a
peer. What no bench has found is no goal missed: it is told as not measured.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from bench.rows import Row, Table, figure

OURS: Final = "lender"
DURABLE: Final = "durable"
LATE: Final = "not within"
"""Begins the note of a row that stands for more than was waited for."""
FLAT: Final = 1.25
"""A curve is flat whose end is no more than so many times its beginning."""


def stores(rows: Sequence[Row]) -> set[str]:
    """Return the systems of a table of peers that store what waits."""
    return {row.system for row in rows if row.measure == DURABLE and row.median > 0}


class Found(NamedTuple):
    """A figure, and what is to be seen beside it."""

    value: float
    beside: str = ""


class Rows:
    """What all benches have found."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._rows = {table.bench: table.rows for table in tables}

    def of(self, bench: str, system: str = OURS) -> list[Row]:
        """Return a system's rows."""
        return [row for row in self._rows.get(bench, ()) if row.system == system]

    def median(self, bench: str, measure: str, system: str = OURS) -> float | None:
        """Return what was found of one measure."""
        return next((row.median for row in self.of(bench, system) if row.measure == measure), None)

    def peers(self, measure: str, *, durable: bool) -> list[Row]:
        """Return what others reached in a measure, the least first."""
        rows = self._rows.get("peers", ())
        stored = stores(rows)
        others = (
            row for row in rows if row.measure == measure and row.system.partition(",")[0] != OURS
        )
        kept = [row for row in others if row.system in stored or not durable]
        return sorted(kept, key=lambda row: row.median)


Read = Callable[[Rows], Found | None]


class Goal(NamedTuple):
    """What a figure should be, at least or at most; with neither it stands for comparison."""

    words: str
    unit: str
    read: Read
    least: float | None = None
    most: float | None = None

    @property
    def said(self) -> str:
        """The goal as a reader sees it."""
        if self.least is not None:
            return f"≥ {figure(self.least)}"
        return "" if self.most is None else f"≤ {figure(self.most)}"

    def verdict(self, value: float) -> str:
        """Judge a figure."""
        if not self.said:
            return ""
        missed = (self.least is not None and value < self.least) or (
            self.most is not None and value > self.most
        )
        return "not yet" if missed else "met"


def median(bench: str, measure: str, floor: tuple[str, str] | None = None) -> Read:
    """Read one row, beside a floor: the system and the measure of another one."""

    def read(rows: Rows) -> Found | None:
        value = rows.median(bench, measure)
        least = None if floor is None else rows.median(bench, floor[1], floor[0])
        beside = "" if least is None or floor is None else f"{floor[0]}: {figure(least)}"
        return None if value is None else Found(value, beside)

    return read


def over(bench: str, measure: str, floor: tuple[str, str]) -> Read:
    """Read how many times another row a row is."""

    def read(rows: Rows) -> Found | None:
        value, least = rows.median(bench, measure), rows.median(bench, floor[1], floor[0])
        if value is None or least is None:
            return None
        return Found(value / least, f"{figure(value)} over {figure(least)} ({floor[1]})")

    return read


def over_best_peer(measure: str, *, durable: bool) -> Read:
    """Read how many times the best of the others we do."""

    def read(rows: Rows) -> Found | None:
        value, others = rows.median("peers", measure), rows.peers(measure, durable=durable)
        if value is None or not others:
            return None
        best = others[-1]
        beside = f"{figure(value)}/s; {best.system}: {figure(best.median)}/s"
        return Found(value / best.median, beside)

    return read


def beside_peers(bench: str, ours: str, theirs: str, *, most: bool) -> Read:
    """Read one row, beside the durable peer that does the most, or needs the least."""

    def read(rows: Rows) -> Found | None:
        value, others = rows.median(bench, ours), rows.peers(theirs, durable=True)
        if value is None:
            return None
        in_time = [row for row in others if not (row.note or "").startswith(LATE)]
        if in_time:
            best = in_time[-1 if most else 0]
            return Found(value, f"best durable peer, {best.system}: {figure(best.median)}")
        return Found(value, f"no durable peer: {others[0].note}" if others else "")

    return read


def worst(
    bench: str, begins: str, share: float = 1.0, floor: tuple[str, str] | None = None
) -> Read:
    """Read the worst of some rows, each by the run that so large a share of its runs stay below.

    Beside it the worst of a floor's: its system, and how its rows begin.
    """

    def of(rows: Rows, system: str, begins: str) -> list[tuple[float, str]]:
        return [
            (
                sorted(row.values)[min(len(row.values) - 1, int(len(row.values) * share))],
                row.measure.removeprefix(begins),
            )
            for row in rows.of(bench, system)
            if row.measure.startswith(begins)
        ]

    def read(rows: Rows) -> Found | None:
        found = of(rows, OURS, begins)
        if not found:
            return None
        value, where = max(found)
        beside = f"the worst of {len(found)}: {where}"
        if floor is not None and (least := of(rows, *floor)):
            beside += f"; {floor[0]}, {floor[1].rstrip(': ')}: {figure(max(least)[0])}"
        return Found(value, beside)

    return read


def growth(line: str) -> Read:
    """Read how many times its first point the last point of a curve is, all processes together."""

    def read(rows: Rows) -> Found | None:
        points: dict[int, float] = {}
        for row in rows.of("scale"):
            name, _, n = row.measure.rpartition(", ")
            if name in {f"{line}, broker", f"{line}, server"}:
                at = int(n.partition(" ")[0].replace(",", ""))
                points[at] = points.get(at, 0.0) + row.median
        if len(points) < 2:
            return None
        first, last = min(points), max(points)
        costs = (f"{figure(points[n])} µs at {n:,}" for n in (first, last))
        return Found(points[last] / points[first], ", ".join(costs))

    return read


_RAW = "floor: raw JetStream"
_WALLED = "bubblewrap, all our walls"
_ANEW = "second start of a killed worker's task"
_MANY = "no-op tasks, many to a message"
_TRIP = ("floor", "round trip between two processes")
_STOP = ("kernel", "SIGSTOP: ")
GOALS: Final = (
    Goal(
        "separate no-op jobs",
        "1/s",
        median("throughput", "jobs, wasm, sync default", (_RAW, "jobs, sync default")),
        least=5000,
    ),
    Goal(
        "separate no-op jobs, each on the disk before it counts",
        "1/s",
        median("throughput", "jobs, wasm, sync always", (_RAW, "jobs, sync always")),
        least=3000,
    ),
    Goal(
        "separate no-op tasks, over the best durable peer",
        "times",
        over_best_peer("no-op tasks", durable=True),
        least=2,
    ),
    Goal(
        "/bin/true in our sandbox, over the best peer without one",
        "times",
        over_best_peer("tasks that run /bin/true", durable=False),
    ),
    Goal(
        "wasm tasks of an array",
        "1/s",
        beside_peers("throughput", "array of wasm tasks, sync default", _MANY, most=True),
        least=50_000,
    ),
    Goal(
        "python tasks of an array",
        "1/s",
        beside_peers("throughput", "array of python tasks, sync default", _MANY, most=True),
        least=20_000,
    ),
    Goal(
        "one job after another, warm, p50",
        "ms",
        median(
            "throughput",
            "one by one, wasm, warm, sync default, p50",
            (_RAW, "one by one, sync default, p50"),
        ),
        most=4,
    ),
    Goal(
        "one job after another, warm, p99",
        "ms",
        median(
            "throughput",
            "one by one, wasm, warm, sync default, p99",
            (_RAW, "one by one, sync default, p99"),
        ),
        most=10,
    ),
    Goal(
        "one command after another, cold, p50",
        "ms",
        median("throughput", "one by one, /bin/true, cold, sync default, p50"),
        most=20,
    ),
    Goal(
        "a cold command on a fleet at rest, p50",
        "ms",
        median("throughput", "one by one, /bin/true, cold, each after 0.1 s, sync default, p50"),
        most=20,
    ),
    Goal(
        "a lender is killed: until its task's second start",
        "s",
        beside_peers(
            "kills", "lenderd that runs a task: until its second start", _ANEW, most=False
        ),
        most=3,
    ),
    Goal(
        "the one NATS server is killed: until a new job is done",
        "s",
        median("kills", "the one NATS server: until a new job is done"),
    ),
    Goal(
        "of three the leading node is killed: until a new job is done",
        "s",
        median("kills", "the leading node of three: until a new job is done"),
    ),
    Goal("a job among many, 1 to 1,000 lenders", "times", growth("a job of many"), most=FLAT),
    Goal("a job alone, 1 to 1,000 lenders", "times", growth("a job alone"), most=FLAT),
    Goal("a job is run, 10³ to 10⁶ wait", "times", growth("a job is run"), most=FLAT),
    Goal("pause until all is frozen, p99", "ms", worst("owner", "pause: ", 0.99, _STOP), most=20),
    Goal("revoke until all is dead, p99", "ms", worst("owner", "revoke: ", 0.99, _STOP), most=50),
    Goal("a compile beside guests is slower by", "%", worst("comfort", "compile, "), most=2),
    Goal("p99 of a frame beside guests, longer by", "%", worst("comfort", "frames, "), most=10),
    Goal(
        "a cold process sandbox, over bubblewrap with the same walls",
        "times",
        over("sandbox", "process, cold", ("floor", _WALLED)),
        most=1.5,
    ),
    Goal(
        "the same a moment behind another, whose walls may stand ahead",
        "times",
        over("sandbox", "process, cold, behind another", ("floor", _WALLED)),
        most=1.5,
    ),
    Goal(
        "a warm wasm task of a lease",
        "ms",
        median("sandbox", "wasm, warm, of a lease", _TRIP),
        most=0.2,
    ),
    Goal(
        "a warm python task of a lease",
        "ms",
        median("sandbox", "python, warm, of a lease", _TRIP),
        most=0.3,
    ),
    Goal(
        "self-test of all sandboxes",
        "ms",
        median("sandbox", "self-test of all runtimes"),
        most=2000,
    ),
    Goal("memory of an idle lenderd", "MiB", median("footprint", "idle RSS, lenderd"), most=40),
    Goal(
        "processor time of an idle lenderd", "%", median("footprint", "idle CPU, lenderd"), most=0.1
    ),
    Goal(
        "`lender status`",
        "ms",
        median("startup", "lender status", ("floor", "python -c pass")),
        most=60,
    ),
    Goal(
        "`lender pause`",
        "ms",
        median("startup", "lender pause", ("floor", "python -c pass")),
        most=60,
    ),
)


def page(tables: Sequence[Table]) -> list[str]:
    """Return what is good and what is not yet, as Markdown; what has no goal stands last."""
    rows = Rows(tables)
    found = [(goal, goal.read(rows)) for goal in GOALS]
    judged = [(goal, one, goal.verdict(one.value)) for goal, one in found if one is not None]
    met, missed = (sum(verdict == word for *_, verdict in judged) for word in ("met", "not yet"))
    lines = [f"**{met} goals are met, {missed} not yet.**"]
    absent = [goal.words for goal, one in found if one is None]
    if absent:
        lines[0] += f" Not measured here: {'; '.join(absent)}."
    lines += [
        "",
        "| | measured | unit | goal | | beside it |",
        "| --- | ---: | --- | ---: | --- | --- |",
    ]
    for word in ("met", "not yet", ""):
        lines += [
            f"| {goal.words} | {figure(one.value)} | {goal.unit} | {goal.said} | {verdict} "
            f"| {one.beside} |"
            for goal, one, verdict in judged
            if verdict == word
        ]
    return lines
