"""Stop lending now. When this returns, every process of every job stands still.

All processes of all jobs are stopped first, whatever lenderd is doing. Then the pause is saved, so
that it survives a reboot, lenderd is told, and what the kernel says of each process is checked.
With --finish what runs may go on, and nothing new is taken. Anyone on this machine may pause;
only the owner may say until when, and resume.
"""

import time
from typing import TYPE_CHECKING, Any

from lender.cli.exits import CommandError, Exit
from lender.cli.last_word import announce_pause, as_json, keep
from lender.cli.owner import DEFAULTS as OWNER_DEFAULTS
from lender.cli.owner import add_options, become_owner, is_owner, print_json, tell, warn_of
from lender.cli.state_choice import Choice, choose
from lender.cli.words import count, duration, say, when
from lender.sandbox.processes import stopping, tree
from lender.state.attempt_records import AttemptReading, AttemptRecords
from lender.state.folder import ATTEMPTS, StateFolder, read_account
from lender.state.intent_file import StoredIntent

if TYPE_CHECKING:  # loads only where there is something to parse: see `main`
    import argparse

EXAMPLES = """\
  lender pause
  lender pause --for 2h
  lender pause --until 18:00
  lender pause --finish"""

DEFAULTS = {**OWNER_DEFAULTS, "for_s": None, "until": None, "finish": False}

_FINISH_S = 7 * 86_400.0
"""What may finish has this long; then it is handed back like everything in a pause."""

_GUEST_ANSWER_S = 5.0


def configure(parser: "argparse.ArgumentParser") -> None:
    """Add the options."""
    from lender.cli.moments import moment_s, span_s  # noqa: PLC0415  # loads argparse

    ends = parser.add_mutually_exclusive_group()
    ends.add_argument(
        "--for", dest="for_s", type=span_s, metavar="2h", help="lend again by itself after this"
    )
    ends.add_argument(
        "--until",
        type=moment_s,
        metavar="18:00",
        help="lend again by itself then: today or tomorrow, or '2026-11-21 18:00'",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--now", dest="finish", action="store_false", help="everything stands still (the default)"
    )
    how.add_argument(
        "--finish", action="store_true", help="nothing new; what runs may finish, a week at most"
    )
    add_options(parser)


def run(args: "argparse.Namespace") -> int:
    """Pause, then tell what was verified."""
    started = time.monotonic()
    choice = choose(args.state, as_guest=True)
    try:
        return _pause(args, choice, started)
    finally:
        warn_of(choice.others(), choice.state)  # only now: looking for them takes time


def _pause(args: "argparse.Namespace", choice: Choice, started: float) -> int:
    state, intent = choice.state, _intent(args, time.time())
    if not is_owner(state):
        if intent.until is not None or intent.finish_by is not None:
            raise CommandError(
                Exit.NOT_PERMITTED, "only the owner may say until when; `lender pause` alone works"
            )
        outcome = pause_as_guest(state)
    elif intent.finish_by is not None:
        return _let_finish(state, intent, as_document=args.json)
    else:
        outcome = pause_as_owner(state, intent, started)
    missed = outcome["daemon"] == "absent" and not choice.named and bool(choice.others())
    if args.json:
        print_json("pause", outcome)
    else:
        say(lines_of(outcome, missed=missed))
    if missed:
        return Exit.UNREACHABLE
    whole = outcome["verified"] and not outcome["not_saved"] and outcome["daemon"] != "refused"
    return Exit.DONE if whole else Exit.PARTIAL


def _intent(args: "argparse.Namespace", now: float) -> StoredIntent:
    until = now + args.for_s if args.for_s is not None else args.until
    finish_by = now + _FINISH_S if args.finish else None
    return StoredIntent(paused=True, paused_at=now, until=until, finish_by=finish_by)


def _let_finish(state: StateFolder, intent: StoredIntent, *, as_document: bool) -> int:
    from lender.cli import finishing  # noqa: PLC0415  # a plain pause does not need it

    outcome = finishing.let_finish(state, intent)
    if as_document:
        print_json("pause", outcome)
    else:
        say(finishing.lines(outcome))
    return finishing.exit_of(outcome)


def pause_as_owner(state: StateFolder, intent: StoredIntent, started: float) -> dict[str, Any]:
    """Freeze, save, tell, look again; `started` is when the owner said it, monotonic."""
    become_owner(state)
    tree.enclose(read_account(state))
    first = _freeze(state)
    stopped_s = time.monotonic() - started
    not_saved = keep(state, intent)
    told = announce_pause(state, intent)
    # Once more: what lenderd was about to start has a record by now.
    last = _freeze(state)
    return {
        **last,
        "stopped_ms": round(stopped_s * 1000, 3) if first["verified"] else None,
        "verified_ms": round((time.monotonic() - started) * 1000, 3),
        "verified_by": "kernel",
        **as_json(state, intent, not_saved, told),
    }


def pause_as_guest(state: StateFolder) -> dict[str, Any]:
    """Another local user reads no records: lenderd pauses, verifies and saves."""
    started = time.monotonic()
    told = tell(state, "pause", timeout_s=_GUEST_ANSWER_S)
    known = as_json(state, StoredIntent(), "", told)
    if not known["obeyed"]:
        code = Exit.FAILED if told.outcome == "refused" else Exit.UNREACHABLE
        raise CommandError(code, f"lenderd did not pause: {told.reason}; its owner or root can")
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
        **known,
    }


def _freeze(state: StateFolder) -> dict[str, Any]:
    try:
        reading = AttemptRecords(state.inside(ATTEMPTS)).read_all()
    except OSError:
        reading = AttemptReading((), (state.inside(ATTEMPTS),))
    report = stopping.freeze(reading.records)
    alive = {r.job for r in reading.records if stopping.alive(r)}
    return {
        "verified": report.verified and not reading.unreadable,
        "processes": report.processes,
        "jobs": len(alive),
        "remaining": list(report.remaining),
        "unreadable_records": list(reading.unreadable),
    }


def lines_of(outcome: dict[str, Any], *, missed: bool = False) -> list[str]:
    """Say what was verified, and what was not; `missed`: another lenderd might have been meant."""
    lines = _stopped(outcome, missed=missed)
    if outcome["not_saved"]:
        lines.append(f"! the pause could not be saved ({outcome['not_saved']}): a restart ends it")
    if outcome["daemon"] == "absent":
        lines.append("! lenderd does not run; it will start paused.")
    elif outcome["daemon"] == "refused":
        lines.append(f"! lenderd reports a fault: {outcome['daemon_reason']}")
    elif outcome["daemon"] != "answered":
        stopped = duration((outcome["stopped_ms"] or outcome["verified_ms"]) / 1000)
        lines.append(
            f"! lenderd gave no answer ({outcome['daemon_reason']}); "
            f"stopped without it after {stopped}."
        )
    if outcome["daemon"] == "refused" and not outcome["obeyed"]:
        lines.append("✗ lenderd is not paused and may start new work: lender revoke --all")
    elif not missed:
        lines.append(_ending(outcome["until"]))
    return lines


def _stopped(outcome: dict[str, Any], *, missed: bool) -> list[str]:
    after = duration(outcome["verified_ms"] / 1000)
    if outcome["verified"] and outcome["processes"]:
        whose = "" if outcome["verified_by"] == "kernel" else ", by lenderd's own check"
        processes, jobs = count(outcome["processes"], "process"), count(outcome["jobs"], "job")
        return [f"✓ paused: {processes} of {jobs} stand still, verified after {after}{whose}"]
    if outcome["verified"] and missed:
        return [f"! no job was running from {outcome['state']}, verified after {after}"]
    if outcome["verified"]:
        return [f"✓ paused: no job was running, verified after {after}"]
    if outcome["verified_by"] == "lenderd" and outcome["daemon"] == "refused":
        return ["! lenderd is paused, but did not tell what stands still: lender status"]
    left = ", ".join(str(pid) for pid in outcome["remaining"])
    doubt = f"process {left}" if left else "lenderd could not verify it"
    if outcome["unreadable_records"]:
        doubt = f"can't read {outcome['unreadable_records'][0]}"
    return [
        f"✗ not verified that all stand still after {after}: {doubt}",
        "  To end it instead: lender revoke --all",
    ]


def _ending(until: float | None) -> str:
    if until is None:
        return "Nothing runs until you type `lender resume`."
    return f"Nothing runs until {when(until, time.time())}; `lender resume` ends it sooner."
