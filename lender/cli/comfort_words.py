"""The owner's presence and the machine's comfort, in words; for status, why and top."""

from typing import Any

from lender.cli.words import count, printable, span

_RUNGS = {
    "full": "comfortable",
    "reduced": "lends less",
    "frozen": "steps back, lent work stands still",
    "evicted": "steps back, lends nothing",
}


def presence(comfort: dict[str, Any]) -> str:
    """`away 14 min, screen locked (mutter)`; unknown counts as present, and says so."""
    state = comfort.get("presence")
    idle_s, sources = comfort.get("idle_s"), comfort.get("sources") or []
    remote = comfort.get("remote_sessions") or 0
    if state == "present":
        parts = ["here" if sources or remote else "taken to be here, no source can tell"]
        if idle_s is not None:
            parts.append(f"last input {span(idle_s)} ago")
    elif not comfort.get("desktop", True):
        parts = ["nobody sits at this machine"]
    else:
        parts = [f"{state} {span(idle_s)}" if idle_s is not None else str(state)]
    if comfort.get("locked"):
        parts.append("screen locked")
    if remote:
        parts.append(f"{count(remote, 'login')} from elsewhere")
    source = f" ({printable(', '.join(map(str, sources)))})" if sources else ""
    return ", ".join(parts) + source


def machine(comfort: dict[str, Any]) -> str:
    """`Machine comfortable (pressure 0.4 %, 61 °C, on mains)`, or what presses."""
    rung = str(comfort.get("rung", ""))
    findings = [printable(str(one["text"])) for one in comfort.get("findings") or []]
    figures = printable(str(comfort.get("figures") or ""))
    if rung == "full" and not findings:
        return f"Machine comfortable{f' ({figures})' if figures else ''}"
    because = "; ".join(findings) or printable(str(comfort.get("reason") or ""))
    return f"Machine {_RUNGS.get(rung, rung)}{f': {because}' if because else ''}"


def load(cores_lent: float, cores: float) -> str:
    """How much of the machine lent work may take: `light use` up to a quarter of the cores."""
    if cores_lent <= 0:
        return "nothing runs"
    share = cores_lent / cores if cores else 1.0
    return "light use" if share <= 0.25 else "half in use" if share <= 0.6 else "in full use"
