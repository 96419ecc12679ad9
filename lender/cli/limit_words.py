"""The owner's limits in plain words: a line for each, in use and away."""

import math
from collections.abc import Callable, Iterator

from lender.cli.words import size
from lender.core.policy import Condition, Limits, Policy, Rung, Steps, Threshold
from lender.core.schedule import When


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


_LABELS: dict[str, tuple[str, Callable[[float], str]]] = {
    "cores": ("most cores lent", "{:g}".format),
    "cores_kept": ("cores never lent", "{:g}".format),
    "cpu_others": ("cores that others use", "{:g}".format),
    "pressure_cpu": ("programs wait for the CPU", "{:g} %".format),
    "pressure_memory": ("programs wait for memory", "{:g} %".format),
    "pressure_io": ("programs wait for the disk", "{:g} %".format),
    "memory_kept_bytes": ("memory never lent", size),
    "vram_kept_bytes": ("GPU memory never lent", size),
    "swap_in_bytes_per_s": ("read from swap each second", size),
    "gpu_others": ("others use the GPU", _percent),
    "temperature_c": ("above a sensor's limit", "{:g} °C".format),
    "throttled": ("slowed down for heat, power", "{:g}".format),
    "on_battery": ("on battery", "{:g}".format),
    "battery_enough": ("battery no matter from", _percent),
    "game": ("a game is played", "{:g}".format),
    "exclusive_app": ("a program of your list runs", "{:g}".format),
    "inhibited": ("a film or a call", "{:g}".format),
    "metered": ("network paid by volume", "{:g}".format),
    "hours": ("hours", "{:g}".format),
    "reduced_share": ("cores left when reduced", _percent),
    "stay_s": ("calm before each step up", "{:g} s".format),
}
"""What each limit is called, and how its numbers are written."""


def limit_lines(policy: Policy) -> Iterator[str]:
    """Yield a table of all limits; a twin for the way back follows its threshold after `/`."""
    rows = [("", "while you are here", "while you are not")]
    for name, (label, number) in _LABELS.items():
        in_use, away = (_said(one, name, number) for one in (policy.in_use, policy.away))
        rows.append((label, in_use, away))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    # They are the same whether or not you are there.
    yield from (f"Lends only while {_condition(one)}." for one in policy.away.conditions)
    rule = policy.presence
    yield (
        f"You are here until {rule.idle_after_s / 60:g} min without input, then idle; "
        f"away after {rule.away_after_s / 60:g} min, or with a locked screen."
    )


def _said(limits: Limits, name: str, number: Callable[[float], str]) -> str:
    match value := getattr(limits, name):
        case Steps():
            said = _steps(value, number)
        case Threshold():
            said = _twins(value, number)
        case Rung():
            said = "no matter" if value == Rung.FULL else value.name.lower()
        case When():
            said = value.text
        case bool():
            said = "no matter" if value else "nothing new"
        case None:
            said = "-"
        case _:
            said = "all" if value == math.inf else number(value)
    return said


def _steps(steps: Steps, number: Callable[[float], str]) -> str:
    named = (("reduced", steps.reduced), ("frozen", steps.frozen), ("evicted", steps.evicted))
    parts = [f"{name} {_twins(step, number)}" for name, step in named if step is not None]
    return ", ".join(parts) or "no matter"


def _condition(one: Condition) -> str:
    if one.equals:
        return f"{one.name} is {' or '.join(one.equals)}"
    limit, most = one.below or one.above, one.below is not None
    said = _twins(limit, "{:g}".format) if limit is not None else ""
    return f"{one.name} is {said} at {'most' if most else 'least'}"


def _twins(threshold: Threshold, number: Callable[[float], str]) -> str:
    at, back = number(threshold.at), number(threshold.back)
    return at if at == back else f"{at} / {back}"
