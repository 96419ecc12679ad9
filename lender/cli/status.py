"""What this machine lends right now, to whom, and what you allow.

lenderd is asked; without it the files tell what holds. With --check the exit code alone answers:
0 lending, 3 not lending, 5 lenderd does not answer.
"""

import argparse
import time
from typing import Any

from lender.cli.exits import Exit
from lender.cli.owner import (
    Told,
    add_options,
    become_owner,
    find_state,
    is_owner,
    print_json,
    tell,
)
from lender.cli.words import count, duration, key, moment, printable, say, size
from lender.daemon.state import StateFolder

EXAMPLES = """\
  lender status
  lender status --json
  lender status --check && echo lending"""

_MARKS = {"lending": "●"}
_PHASES = {
    "unconsented": "Not lending",
    "lending": "Lending",
    "yielding": "Stepping back",
    "paused": "Paused",
    "draining": "Draining: no new work",
    "offline": "Not lending",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--check", action="store_true", help="exit with 3 where nothing is lent")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    state = find_state(args)
    owner = is_owner(state)
    told = tell(state, "status")
    fields = (
        dict(told.reply) if told.outcome == "answered" else _from_files(state, told, owner=owner)
    )
    fields.pop("ok", None)
    if args.json:
        print_json("status", {"daemon": told.outcome, **fields})
    else:
        say(_lines(fields, answered=told.outcome == "answered"))
    if told.outcome != "answered":
        return Exit.UNREACHABLE
    lends = fields.get("phase") == "lending"
    return Exit.DONE if lends or not args.check else Exit.NOT_LENDING


def _from_files(state: StateFolder, told: Told, *, owner: bool) -> dict[str, Any]:
    """What holds by the files, in the form of lenderd's answer."""
    fields: dict[str, Any] = {"phase": "offline", "reason": _why(told), "connected": False}
    if not owner:
        return fields
    # lenderd being away is the rare case: only then are these modules needed.
    from lender.cli import grants  # noqa: PLC0415
    from lender.daemon.attempt_records import AttemptRecords  # noqa: PLC0415
    from lender.daemon.consent_files import load_consent, read_intent  # noqa: PLC0415

    become_owner(state)
    reading = load_consent(state)
    intent = read_intent(state)
    attempts = AttemptRecords(state.attempts).read_all().records
    return {
        **fields,
        "paused": intent.paused,
        "grants": [
            grants.entry(grant, reading, time.time())
            for grant in reading.consent.valid(time.time())
        ],
        "ignored_grants": grants.ignored(reading),
        "running": [
            {
                "lease": attempt.lease,
                "job": attempt.job,
                "submitter": attempt.submitter,
                "workload": attempt.workload,
            }
            for attempt in attempts
            if attempt.roots
        ],
    }


def _why(told: Told) -> str:
    if told.outcome == "absent":
        return "lenderd does not run"
    return f"lenderd does not answer ({told.reason})"


def _lines(status: dict[str, Any], *, answered: bool) -> list[str]:
    phase = str(status.get("phase", ""))
    reason = printable(str(status.get("reason") or ""))
    head = f"{_MARKS.get(phase, '○')} {_PHASES.get(phase, phase)}{f': {reason}' if reason else ''}"
    if answered:
        where = status.get("url") if status.get("connected") else "not connected"
        at = f" · connected to {where}" if status.get("connected") else f" · {where}"
        head += f"    {printable(str(status.get('name', '')))}{at}"
    lines = [head]
    if status.get("paused"):
        lines.append("  Paused   by you; lenderd will start paused. lender resume ends it")
    if answered:
        lines.append(_room(status))
    names = {g["submitter"]: g["name"] for g in status.get("grants", []) if g.get("name")}
    lines += _section("Running", [_running(r, names) for r in status.get("running", [])])
    lines += _section("Allowed", [_allowed(g, names) for g in status.get("grants", [])])
    today = status.get("today") or {}
    if "jobs" in today:
        spent = f" · {duration(today['seconds'])}" if today.get("seconds") else ""
        lines.append(f"  Today    {count(today['jobs'], 'job')}{spent}")
    for fault in status.get("ignored_grants", []):
        lines.append(f"! ignored: {fault['path']}: {fault['reason']}")
    for name, runtime in (status.get("runtimes") or {}).items():
        if not runtime.get("available"):
            lines.append(
                f"! no {name}: {runtime.get('reason')}. {runtime.get('mend') or ''}".rstrip()
            )
    lines.append("  Stop everything now:  lender revoke --all")
    return lines


def _room(status: dict[str, Any]) -> str:
    headroom = status.get("headroom") or {}
    cores, memory = headroom.get("cpu"), headroom.get("memory_bytes")
    spare = f" · {cores:.2g} cores" if isinstance(cores, int | float) else ""
    spare += f" and {size(memory)} to spare" if isinstance(memory, int | float) else ""
    return f"  Slots    {status.get('slots_free')} of {status.get('slots_total')} free{spare}"


def _section(title: str, entries: list[str]) -> list[str]:
    if not entries:
        return [f"  {title:<8} nothing"]
    return [f"  {title if n == 0 else '':<8} {entry}" for n, entry in enumerate(entries)]


def _running(one: dict[str, Any], names: dict[str, str]) -> str:
    submitter = str(one.get("submitter", ""))
    parts = [str(one.get("job", ""))]
    if one.get("job_name"):
        parts.append(f'"{printable(str(one["job_name"]))}"')
    parts.append(f"for {names.get(submitter) or key(submitter)}")
    parts.append(str(one.get("workload", "")))
    if one.get("state"):
        parts.append(str(one["state"]))
    if one.get("tasks_total", 1) > 1:
        parts.append(f"{one.get('tasks_done', 0)}/{one['tasks_total']} tasks")
    if one.get("since"):
        parts.append(duration(max(0.0, time.time() - one["since"])))
    return "  ".join(parts)


def _allowed(grant: dict[str, Any], names: dict[str, str]) -> str:
    submitter = str(grant.get("submitter", ""))
    return (
        f"{names.get(submitter) or key(submitter)}: {grant.get('workload')} "
        f"until {moment(grant['not_after'])}"
    )
