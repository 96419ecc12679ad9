"""Stop lending now. When this returns, every process of every job stands still.

The pause is saved first, so it survives a reboot. Then all processes of all jobs are stopped,
whatever lenderd is doing, lenderd is told, and what the kernel says of each process is checked.
Anyone on this machine may pause; only the owner may resume.
"""

import argparse
import time
from typing import Any

from lender.cli.exits import CommandError, Exit
from lender.cli.owner import Told, add_options, become_owner, find_state, is_owner, print_json, tell
from lender.cli.words import count, duration, say
from lender.daemon.attempt_records import AttemptReading, AttemptRecords
from lender.daemon.intent_file import StoredIntent, write_stored
from lender.daemon.state import StateFolder
from lender.sandbox import tree

EXAMPLES = """\
  lender pause
  lender pause --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Pause, then tell what was verified."""
    state = find_state(args)
    outcome = _pause_as_owner(state) if is_owner(state) else _pause_as_guest(state)
    if args.json:
        print_json("pause", outcome)
    else:
        say(_lines(outcome))
    return Exit.DONE if outcome["verified"] and not outcome["not_saved"] else Exit.PARTIAL


def _pause_as_owner(state: StateFolder) -> dict[str, Any]:
    started = time.monotonic()
    become_owner(state)
    not_saved = _save(state)
    first = _freeze(state)
    stopped_s = time.monotonic() - started
    told = tell(state, "pause")
    # Once more: what lenderd was about to start has a record by now.
    last = _freeze(state)
    return {
        **last,
        "stopped_ms": round(stopped_s * 1000, 3) if first["verified"] else None,
        "verified_ms": round((time.monotonic() - started) * 1000, 3),
        "verified_by": "kernel",
        "not_saved": not_saved,
        **_daemon(told),
    }


def _pause_as_guest(state: StateFolder) -> dict[str, Any]:
    """Another local user reads no records: lenderd pauses, verifies and saves."""
    started = time.monotonic()
    told = tell(state, "pause", timeout_s=5.0)
    if told.outcome != "answered":
        raise CommandError(
            Exit.UNREACHABLE, f"lenderd did not pause: {told.reason}; its owner or root can"
        )
    report = told.reply.get("report")
    found: dict[str, Any] = report if isinstance(report, dict) else {}
    return {
        "verified": found.get("verified") is True,
        "processes": found.get("processes", 0),
        "jobs": found.get("jobs", 0),
        "remaining": [],
        "unreadable_records": [],
        "stopped_ms": None,
        "verified_ms": round((time.monotonic() - started) * 1000, 3),
        "verified_by": "lenderd",
        "not_saved": "",
        **_daemon(told),
    }


def _save(state: StateFolder) -> str:
    """Save the pause; return why it could not be."""
    try:
        write_stored(state, StoredIntent(paused=True, paused_at=time.time()))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _freeze(state: StateFolder) -> dict[str, Any]:
    try:
        reading = AttemptRecords(state.attempts).read_all()
    except OSError:
        reading = AttemptReading((), (state.attempts,))
    report = tree.freeze([root for record in reading.records for root in record.roots])
    alive = {r.job for r in reading.records if any(tree.alive(root) for root in r.roots)}
    return {
        "verified": report.verified and not reading.unreadable,
        "processes": report.processes,
        "jobs": len(alive),
        "remaining": list(report.remaining),
        "unreadable_records": [str(path) for path in reading.unreadable],
    }


def _daemon(told: Told) -> dict[str, Any]:
    return {"daemon": told.outcome, "daemon_reason": told.reason}


def _lines(outcome: dict[str, Any]) -> list[str]:
    lines = []
    after = duration(outcome["verified_ms"] / 1000)
    if outcome["verified"] and outcome["processes"]:
        whose = "" if outcome["verified_by"] == "kernel" else ", by lenderd's own check"
        lines.append(
            f"✓ paused: {count(outcome['processes'], 'process')} of "
            f"{count(outcome['jobs'], 'job')} stand still, verified after {after}{whose}"
        )
    elif outcome["verified"]:
        lines.append(f"✓ paused: no job was running, verified after {after}")
    else:
        left = ", ".join(str(pid) for pid in outcome["remaining"])
        doubt = f"process {left}" if left else f"can't read {outcome['unreadable_records'][0]}"
        lines.append(f"✗ not verified that all stand still after {after}: {doubt}")
        lines.append("  To end it instead: lender revoke --all")
    if outcome["not_saved"]:
        lines.append(f"! the pause could not be saved ({outcome['not_saved']}): a restart ends it")
    if outcome["daemon"] == "absent":
        lines.append("! lenderd does not run; it will start paused.")
    elif outcome["daemon"] != "answered":
        stopped = duration((outcome["stopped_ms"] or outcome["verified_ms"]) / 1000)
        lines.append(
            f"! lenderd gave no answer ({outcome['daemon_reason']}); "
            f"stopped without it after {stopped}."
        )
    lines.append("Nothing runs until you type `lender resume`.")
    return lines
