"""Why a machine lends or does not, step by step, from the fields of an answer of lenderd.

Every step that says no keeps this machine from lending, whatever the others say; the first of
them is the reason to name.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

from lender.cli import comfort_words
from lender.cli.reading import Reading
from lender.cli.status_lines import budget_line, who_paused
from lender.cli.words import count, printable, size, span, when


@dataclass(frozen=True, slots=True)
class Step:
    """One condition.

    Attributes:
        name: stable, for scripts.
        holds: it lets work run.
        text: what was seen, with the numbers.
        change: when or by what it can change; empty where nothing needs to.
    """

    name: str
    holds: bool
    text: str
    change: str = ""


def steps(reading: Reading, now: float) -> list[Step]:
    """All conditions, in the order in which they rule."""
    status = reading.fields
    found = [_lenderd(reading), _word(status, now), _consent(status, now)]
    if reading.answered:
        found += [_machine(status, now), _broker(status), _room(status)]
    return found


def findings(status: dict[str, Any], now: float) -> list[dict[str, Any]]:
    """What presses on the machine, worst first, each with its words for when it can change."""
    comfort = status.get("comfort") or {}
    return [{**one, "change": _clears(one, comfort, now)} for one in comfort.get("findings") or []]


def grants(status: dict[str, Any], now: float) -> list[dict[str, Any]]:
    """The grants that hold by their end, with what else each of them depends on, in words."""
    budgets = status.get("budgets", [])
    return [
        {
            "id": one["id"],
            "submitter": one["submitter"],
            "name": one.get("name", ""),
            "workload": one.get("workload"),
            "when": one.get("when", "always"),
            "not_after": one["not_after"],
            "now": one.get("now", ""),
            "opens": f"opens {when(one['opens_at'], now)}" if one.get("opens_at") else "",
            "budgets": [budget_line(b) for b in budgets if b.get("grant") == one["id"]],
        }
        for one in status.get("grants", [])
    ]


def as_json(reading: Reading) -> dict[str, Any]:
    """The fields of `lender why --json`."""
    now = time.time()
    found = steps(reading, now)
    return {
        "daemon": reading.told.outcome,
        "lends": all(step.holds for step in found),
        "because": next((step.text for step in found if not step.holds), ""),
        "steps": [asdict(step) for step in found],
        "comfort": reading.fields.get("comfort"),
        "findings": findings(reading.fields, now),
        "grants": grants(reading.fields, now),
        "budgets": reading.fields.get("budgets", []),
    }


def _lenderd(reading: Reading) -> Step:
    if reading.answered:
        return Step("lenderd", holds=True, text="lenderd answers")
    mend = "start lenderd" if reading.told.outcome == "absent" else "restart lenderd: it hangs"
    return Step("lenderd", False, str(reading.fields.get("reason")), mend)


def _word(status: dict[str, Any], now: float) -> Step:
    if not status.get("paused"):
        return Step("your-word", holds=True, text="you have not paused it")
    until, finish_by = status.get("paused_until"), status.get("finish_by")
    change = f"ends by itself {when(until, now)}; lender resume" if until else "lender resume"
    if finish_by and now < finish_by:
        text = f"you let what runs finish until {when(finish_by, now)}, and nothing new begin"
        return Step("your-word", False, text, change)
    who = who_paused(status)
    text = "you have paused it" if who == "you" else f"{who} paused it"
    return Step("your-word", False, text, change)


def _consent(status: dict[str, Any], now: float) -> Step:
    held = status.get("grants", [])
    if not held:
        return Step("consent", False, "nothing is granted, so nothing runs", "lender grant")
    closed = [one for one in held if one.get("now")]
    if len(closed) < len(held):
        text = f"{len(held) - len(closed)} of {count(len(held), 'grant')} hold right now"
        return Step("consent", holds=True, text=text)
    opens = min((one["opens_at"] for one in closed if one.get("opens_at")), default=None)
    change = f"the next opens {when(opens, now)}" if opens else "when that changes"
    reason = printable(str(closed[0]["now"]))
    which = f"{closed[0]['id']}: " if len(held) > 1 else ""
    text = f"no grant holds right now; {which}{reason}"
    return Step("consent", False, text, change)


def _machine(status: dict[str, Any], now: float) -> Step:
    comfort = status.get("comfort") or {}
    if not comfort:
        held = status.get("phase") == "yielding"
        return Step("machine", not held, printable(str(status.get("reason") or "comfortable")))
    rung, cores = comfort.get("rung"), comfort.get("cores") or 0.0
    total = (status.get("machine") or {}).get("cores")
    of = f" of {total:g}" if total else ""
    words = comfort_words.machine(comfort)
    text = f"rung {rung}: {cores:g}{of} cores may be lent. {words}"
    climbs = comfort.get("climbs_at")
    change = f"more in {span(climbs - now)} at the earliest" if climbs and climbs > now else ""
    takes = rung in ("full", "reduced") and comfort.get("new_work", True)
    return Step("machine", takes, text, change)


def _broker(status: dict[str, Any]) -> Step:
    if status.get("connected"):
        return Step("broker", holds=True, text=f"connected to {status.get('url')}")
    mend = "lenderd tries again by itself; lender doctor says more"
    return Step("broker", False, f"not connected to {status.get('url')}", mend)


def _room(status: dict[str, Any]) -> Step:
    free, total = status.get("slots_free"), status.get("slots_total")
    headroom = status.get("headroom") or {}
    cpu, memory = headroom.get("cpu"), headroom.get("memory_bytes")
    spare = f": {cpu:.2g} cores" if isinstance(cpu, int | float) else ""
    spare += f" and {size(memory)} to spare" if isinstance(memory, int | float) else ""
    text = f"{free} of {total} slots are free{spare}"
    # No free slot is no refusal: they may all be lent already, or something else keeps work away.
    holds = bool(free) or bool(status.get("running")) or status.get("phase") != "lending"
    return Step("room", holds, text, "" if holds else "when memory or cores are free again")


def _clears(one: dict[str, Any], comfort: dict[str, Any], now: float) -> str:
    parts = []
    if one.get("clears_at") is not None:
        parts.append(f"ends at {one['clears_at']:g}")
    climbs = one.get("holds_until") or comfort.get("climbs_at")
    if climbs and climbs > now:
        parts.append(f"in {span(climbs - now)} at the earliest")
    return ", ".join(parts)
