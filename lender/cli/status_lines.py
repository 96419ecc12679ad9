"""`lender status` in words: lines for a terminal, from the fields of an answer."""

import time
from typing import Any

from lender.cli import comfort_words, device_words
from lender.cli.reading import Fields, Reading, names_of
from lender.cli.words import count, duration, key, printable, size, span, when

_PHASES = {
    "unconsented": "Not lending",
    "yielding": "Stepping back",
    "draining": "Shutting down, nothing new",
    "offline": "Not lending",
}
_SUBMITTERS_MAX = 6
_LINE_CHARS = 100
_MEASURES = {"cpu_s": ("CPU hours", 3600.0), "moved_bytes": ("GB", 1e9), "energy_wh": ("kWh", 1e3)}


def lines(reading: Reading) -> list[str]:
    """All of it."""
    status, now = reading.fields, time.time()
    names = names_of(status)
    said = [f"{head(status, now)}{_where(reading)}"]
    if comfort := status.get("comfort"):
        said.append(f"  You: {comfort_words.presence(comfort)}. {comfort_words.machine(comfort)}")
    if status.get("paused"):
        said.append(f"  Paused   {_pause(reading, now)}")
    running = [part for one in status.get("running", []) for part in _running(one, status, names)]
    said += _section("Running", [*running, *map(_warm, status.get("warm", []))])
    said += _section("Allowed", _allowed(status, names, now))
    said += _section("Devices", device_words.lines(status))
    said += _section("Budget", [" · ".join(_budgets(status))] if _budgets(status) else None)
    said += _section("Today", _today(status))
    if home := status.get("home"):
        said += _section("Home", [_home(home)])
    said += _faults(status)
    said.append("  Stop everything now:  lender revoke --all")
    return said


def head(status: Fields, now: float) -> str:
    """The first line's start: whether it lends, and why not."""
    phase = str(status.get("phase", ""))
    if phase == "lending":
        return _lending(status)
    if phase in ("paused", "draining") and status.get("paused"):
        return _waiting(status, now)
    reason = printable(str(status.get("reason") or ""))
    return f"○ {_PHASES.get(phase, phase.capitalize())}{f': {reason}' if reason else ''}"


def _lending(status: Fields) -> str:
    if not status.get("grants"):
        return "○ Not lending: nothing is allowed"
    comfort = status.get("comfort") or {}
    if comfort.get("rung") == "reduced":
        pressing = [one["text"] for one in comfort.get("findings") or []]
        because = comfort.get("reason") or (pressing or ["the machine is busy"])[0]
        return f"● Lending less: {printable(str(because))}"
    lent = sum(one.get("cpu") or 1 for one in status.get("running", []))
    cores = (status.get("machine") or {}).get("cores") or status.get("slots_total") or lent
    return f"● Lending, {comfort_words.load(lent, cores)}"


def _waiting(status: Fields, now: float) -> str:
    finish_by, until = status.get("finish_by"), status.get("paused_until")
    if status.get("running") and finish_by and now < finish_by:
        return f"○ Draining: what runs may finish until {when(finish_by, now)}"
    return f"○ Paused until {when(until, now)}" if until else "○ Paused"


def running_line(one: dict[str, Any], status: Fields, names: dict[str, str]) -> str:
    """One job: what, for whom, how, how much, for how long."""
    submitter = str(one.get("submitter", ""))
    parts = [str(one.get("job", ""))]
    if one.get("job_name"):
        parts.append(f'"{printable(str(one["job_name"]))}"')
    parts.append(f"for {names.get(submitter) or key(submitter)}")
    workload, runtime = str(one.get("workload", "")), str(one.get("runtime") or "")
    parts.append(workload if runtime in ("", workload) else f"{workload} ({runtime})")
    if one.get("state") and one["state"] != "running":
        parts.append(str(one["state"]))
    if (one.get("tasks_total") or 1) > 1:
        parts.append(f"{one.get('tasks_done', 0)}/{one['tasks_total']} tasks")
    cores = (status.get("machine") or {}).get("cores")
    if one.get("cpu"):
        parts.append(f"{one['cpu']}/{cores:g} cores" if cores else count(one["cpu"], "core"))
    if one.get("memory_peak_bytes"):
        parts.append(size(one["memory_peak_bytes"]))
    elif one.get("memory_bytes"):
        parts.append(f"≤{size(one['memory_bytes'])}")
    if one.get("since"):
        parts.append(duration(max(0.0, time.time() - one["since"])))
    return "  ".join(parts)


def confinement(one: dict[str, Any]) -> str:
    """What a sandbox always means; a test of the sandboxes holds it to it."""
    blocked = one.get("network_attempts_blocked") or 0
    told = [f"{count(blocked, 'attempt')} blocked"] if blocked > 0 else []
    network = "no network"
    if reach := [str(place) for place in one.get("network") or ()]:
        from lender.protocol.reach import in_words  # noqa: PLC0415  # most work has none

        network = in_words(reach)
        moved = [one.get(f"network_{way}_bytes") or 0 for way in ("in", "out")]
        told.insert(0, f"{size(moved[0])} in, {size(moved[1])} out")
    aside = f" ({', '.join(told)})" if told else ""
    return f"{printable(network)}{aside} · sees only its own scratch folder"


def _running(one: dict[str, Any], status: Fields, names: dict[str, str]) -> list[str]:
    shown = [running_line(one, status, names)]
    if one.get("held"):
        shown.append(f"held back: {printable(str(one['held']))}")
    return [*shown, confinement(one)]


def _warm(one: dict[str, Any]) -> str:
    """Sandboxes of a job that are idle for some seconds, in case more of it comes."""
    job = printable(str(one["job"]))
    if one["sandboxes"] == 1:
        return f"1 warm sandbox waits for more of {job}; nothing runs in it"
    return f"{one['sandboxes']} warm sandboxes wait for more of {job}; nothing runs in them"


def _where(reading: Reading) -> str:
    status = reading.fields
    if not reading.answered:
        return ""
    name = printable(str(status.get("name", "")))
    if status.get("connected"):
        return f"    {name} · connected to {status.get('url')}"
    return f"    {name} · not connected"


def _pause(reading: Reading, now: float) -> str:
    status, outcome = reading.fields, reading.told.outcome
    since, until = status.get("paused_at"), status.get("paused_until")
    said = f"by {who_paused(status)}" + (f" since {when(since, now)}" if since else "")
    if until:
        said += f", until {when(until, now)}"
    if outcome == "absent":
        said += "; lenderd will start paused"
    elif outcome != "answered":
        said += "; saved, lenderd obeys when it wakes"
    return f"{said}. lender resume ends it"


def who_paused(status: Fields) -> str:
    """Return `you`, or whose word it was: anyone on the machine may say it."""
    uid = status.get("paused_by")
    if uid is None:
        return "your home automation" if status.get("paused_by_mqtt") else "you"
    try:
        import pwd  # noqa: PLC0415  # a pause of somebody else's is rare

        name = pwd.getpwuid(uid).pw_name
    except (KeyError, TypeError, OverflowError):
        name = f"uid {uid}"
    return f"another user of this machine ({printable(name)})"


def _allowed(status: Fields, names: dict[str, str], now: float) -> list[str]:
    grants: dict[str, list[dict[str, Any]]] = {}
    for grant in status.get("grants", []):
        grants.setdefault(str(grant.get("submitter", "")), []).append(grant)
    said = [
        f"{names.get(submitter) or key(submitter)}: {_agreed(held, now)}"
        for submitter, held in grants.items()
    ]
    said += [
        f"{one.get('name') or key(str(one['submitter']))}: nothing (withdrawn)"
        for one in status.get("withdrawn", [])
        if one["submitter"] not in grants
    ]
    if len(said) > _SUBMITTERS_MAX:
        more = len(said) - _SUBMITTERS_MAX
        said = [*said[:_SUBMITTERS_MAX], f"and {count(more, 'other')}: lender grants"]
    joined = " · ".join(said)
    return [joined] if said and len(joined) + 11 <= _LINE_CHARS else said


def _agreed(grants: list[dict[str, Any]], now: float) -> str:
    """`wasm until 1 Dec (not now: you are here)`, the grants of one submitter."""
    ends: dict[tuple[float, str], dict[str, None]] = {}
    for grant in grants:
        closed = printable(str(grant.get("now") or ""))
        ends.setdefault((grant["not_after"], closed), {})[str(grant.get("workload"))] = None
    return ", ".join(
        f"{' and '.join(workloads)} until {when(end, now)}"
        + (f" (not now: {closed})" if closed else "")
        for (end, closed), workloads in ends.items()
    )


def budget_line(one: dict[str, Any]) -> str:
    """`2.1 of 10 CPU hours today`."""
    unit, scale = _MEASURES.get(one["measure"], (one["measure"], 1.0))
    period = {"day": "today", "week": "this week"}.get(one["per"], one["per"])
    return f"{one['used'] / scale:.3g} of {one['amount'] / scale:g} {unit} {period}"


def _budgets(status: Fields) -> list[str]:
    """Those in all; the grants' own are told by `lender why`."""
    return [budget_line(one) for one in status.get("budgets", []) if not one.get("grant")]


def _today(status: Fields) -> list[str] | None:
    today = status.get("today") or {}
    if "jobs" not in today:
        return None
    parts = [count(today["jobs"], "job")]
    if today.get("seconds"):
        parts.append(span(today["seconds"]))
    if today.get("energy_wh"):
        parts.append(f"~{today['energy_wh'] / 1000:.2g} kWh (estimate)")
    return [" · ".join(parts)]


def _faults(status: Fields) -> list[str]:
    ignored = status.get("ignored_grants", [])
    said = [printable(f"! ignored: {one['path']}: {one['reason']}") for one in ignored]
    for name, runtime in (status.get("runtimes") or {}).items():
        if not runtime.get("available"):
            reason, mend = runtime.get("reason"), runtime.get("mend") or ""
            said.append(f"! no {name}: {reason}. {mend}".rstrip() if reason else f"! no {name}")
    said += [f"! {printable(str(fault))}" for fault in status.get("faults", [])]
    fault = (status.get("receipts") or {}).get("fault")
    return [*said, f"! receipts: {printable(str(fault))}"] if fault else said


def _home(home: Fields) -> str:
    """Your house's MQTT server, if lenderd has one."""
    server = printable(str(home.get("server")))
    if not home.get("connected"):
        return f"no line to {server}: {printable(str(home.get('fault') or 'not yet'))}"
    said = f"connected to {server} as {printable(str(home.get('node')))}"
    if not home.get("key"):
        return f"{said}; follows no command: lender home"
    refused = home.get("refused")
    return f"{said}; last command not followed: {printable(str(refused))}" if refused else said


def _section(title: str, entries: list[str] | None) -> list[str]:
    if entries is None:
        return []
    return [
        f"  {title if n == 0 else '':<8} {entry}" for n, entry in enumerate(entries or ["nothing"])
    ]
