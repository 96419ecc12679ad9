"""What came of a run: a table, and pictures."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.charts import Line, Panel, write_svg
from bench.fleet.measures import BIN_S
from bench.fleet.owners import DAY_S, HOUR_S
from bench.fleet.simulation import Outcome

_WIDTH = 900
_HOUR_BINS = int(HOUR_S / BIN_S)


def figures(outcome: Outcome) -> dict[str, Any]:
    """Return the numbers of the table."""
    measures, settings = outcome.measures, outcome.settings
    lent_s, busy_s = sum(measures.lent.bins), sum(measures.busy.bins)
    useful_s = measures.useful_slot_s.total()
    core_s, leases = sum(measures.core_s), sum(measures.leases)
    fullest_s = max(measures.core_s)
    lender_days = settings.lenders * outcome.ended_s / DAY_S
    return {
        **settings._asdict(),
        "days_simulated": outcome.ended_s / DAY_S,
        "lender_days_per_processor_s": lender_days / outcome.processor_s,
        "jobs": outcome.jobs,
        "jobs_ended": dict(sorted(measures.jobs_ended.items())),
        "tasks_done": measures.tasks_done.total(),
        "lent_slot_h": lent_s / HOUR_S,
        "busy_part": busy_s / lent_s,
        "useful_part": useful_s / lent_s,
        "submitters": [
            {
                "name": one.kind.name,
                "tasks": outcome.tasks[one.key],
                "done": measures.tasks_done[one.key],
                "begun": measures.waits[one.key].tasks,
                "useful_slot_h": measures.useful_slot_s[one.key] / HOUR_S,
                "wait_s": measures.waits[one.key].percentiles(0.5, 0.95, 0.99),
            }
            for one in outcome.submitters
        ],
        "wasted_slot_h": {
            cause: sum(bins) / HOUR_S for cause, bins in sorted(measures.wasted.items())
        },
        "handed_back": dict(sorted(measures.handed_back.items())),
        "core_s": core_s,
        "core_events": dict(sorted(measures.events.items())),
        "leases": leases,
        "placements_per_core_s": leases / core_s,
        "core_busiest_part": fullest_s / BIN_S,
        "processor_s": outcome.processor_s,
        "steps": outcome.steps,
        "digest": outcome.digest,
    }


def table(found: dict[str, Any]) -> Iterator[str]:
    """Return the lines that are printed."""
    yield (
        f"{found['lenders']:,} lenders, {found['days_simulated']:.4g} days, seed {found['seed']}:"
        f" {found['tasks_done']:,} of {found['tasks']:,} tasks done, of {found['jobs']:,} jobs"
        f" {', '.join(f'{count:,} {state}' for state, count in found['jobs_ended'].items())}"
    )
    yield (
        f"lent {found['lent_slot_h']:,.0f} slot-hours: {found['busy_part']:.1%} busy,"
        f" {found['useful_part']:.1%} in results"
    )
    yield ""
    yield (
        f"{'submitter':<18} {'tasks':>10} {'done':>10} {'not begun':>10} {'slot-hours':>10}"
        f" {'wait p50':>9} {'p95':>9} {'p99':>9}"
    )
    for one in found["submitters"]:
        waits = " ".join(f"{_time(wait_s):>9}" for wait_s in one["wait_s"])
        yield (
            f"{one['name']:<18} {one['tasks']:>10,} {one['done']:>10,}"
            f" {one['tasks'] - one['begun']:>10,} {one['useful_slot_h']:>10,.0f} {waits}"
        )
    yield ""
    yield f"{'wasted':<18} {'slot-hours':>10} {'of lent':>10} {'leases':>10}"
    for cause, slot_h in found["wasted_slot_h"].items():
        part, leases = slot_h / found["lent_slot_h"], found["handed_back"].get(cause, 0)
        yield f"{cause:<18} {slot_h:>10,.1f} {part:>10.2%} {leases:>10,}"
    yield ""
    events = ", ".join(f"{count:,} {kind}" for kind, count in found["core_events"].items())
    yield f"the core was told {events}"
    yield (
        f"it took {found['core_s']:.1f} s of processor time for {found['leases']:,} leases:"
        f" {found['placements_per_core_s']:,.0f} placements a second, all else included;"
        f" in its fullest ten minutes it was busy {found['core_busiest_part']:.1%} of the time"
    )
    yield (
        f"the whole run took {found['processor_s']:.1f} s of processor time, {found['steps']:,}"
        f" steps, {found['lender_days_per_processor_s']:,.1f} lender-days a second; digest"
        f" {found['digest']}"
    )


def write(outcome: Outcome, found: dict[str, Any], folder: Path) -> list[Path]:
    """Write the pictures and the numbers; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    measures = outcome.measures
    whole = max(1, int(outcome.ended_s / BIN_S))
    pictures = {
        "utilization": Panel(
            "slots lent and busy, mean of ten minutes, by day (from a Thursday, midnight)",
            [
                Line("lent", _by_day(measures.lent.bins[:whole], 1 / BIN_S)),
                Line("busy", _by_day(measures.busy.bins[:whole], 1 / BIN_S)),
            ],
            along="days",
        ),
        "waits": Panel(
            "seconds by which 95 % of the tasks that began in an hour had begun",
            [
                Line(
                    one.kind.name,
                    [
                        (at_s / DAY_S, max(1e-3, wait_s))
                        for at_s, wait_s in measures.waits[one.key].by_time(HOUR_S, 0.95)
                    ],
                )
                for one in outcome.submitters
            ],
            along="days",
            up="decades",
        ),
        "waste": Panel(
            "slots kept busy for nothing, mean of an hour, by cause",
            [
                Line(cause, _by_day(_hourly(bins[:whole]), 1 / HOUR_S, HOUR_S))
                for cause, bins in sorted(measures.wasted.items())
            ],
            along="days",
        ),
        "broker": Panel(
            "the core: % of one processor, and leases a second; mean of ten minutes",
            [
                Line("processor, %", _by_day(measures.core_s[:whole], 100 / BIN_S)),
                Line("leases/s", _by_day(measures.leases[:whole], 1 / BIN_S)),
            ],
            along="days",
            up="decades",
        ),
    }
    paths = []
    for name, panel in pictures.items():
        paths.append(folder / f"fleet-{name}.svg")
        write_svg(paths[-1], [panel], _WIDTH)
    paths.append(folder / "fleet.json")
    paths[-1].write_text(json.dumps(found, indent=1))
    return paths


def _hourly(bins: Sequence[float]) -> list[float]:
    return [sum(bins[at : at + _HOUR_BINS]) for at in range(0, len(bins), _HOUR_BINS)]


def _by_day(bins: Sequence[float], scale: float, bin_s: float = BIN_S) -> list[tuple[float, float]]:
    return [((at + 0.5) * bin_s / DAY_S, scale * value) for at, value in enumerate(bins)]


def _time(seconds: float) -> str:
    if seconds != seconds:  # noqa: PLR0124 - not a number: none has begun
        return "-"
    for unit, length_s in (("h", HOUR_S), ("min", 60.0)):
        if seconds >= length_s:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{seconds:.1f} s"
