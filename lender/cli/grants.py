"""List what you have agreed to: what holds, what has ended, what is ignored and why."""

import argparse
import time
from typing import Any

from lender.cli.exits import Exit
from lender.cli.owner import add_options, open_state, print_json
from lender.cli.words import count, key, moment, say, size
from lender.core.consent import Grant
from lender.daemon.consent_files import ConsentReading, grant_fields, load_consent

EXAMPLES = """\
  lender grants
  lender grants --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Read the files and print them; lenderd is not asked."""
    state = open_state(args)
    reading = load_consent(state)
    listed = [entry(grant, reading, time.time()) for grant in reading.consent.grants]
    if args.json:
        print_json("grants", {"grants": listed, "ignored": ignored(reading), "ban": reading.ban})
    else:
        say(_lines(listed, reading))
    return Exit.DONE


def ignored(reading: ConsentReading) -> list[dict[str, str]]:
    """The faulty files as JSON."""
    return [{"path": str(fault.path), "reason": fault.reason} for fault in reading.ignored]


def entry(grant: Grant, reading: ConsentReading, now: float) -> dict[str, Any]:
    """A grant as JSON, with its state: holds, ended or withdrawn."""
    if grant.id in reading.consent.revoked:
        holds = "withdrawn"
    else:
        holds = "holds" if now < grant.not_after else "ended"
    name = reading.names.get(grant.submitter, "")
    return {"id": grant.id, "state": holds, **grant_fields(grant, name)}


def _lines(listed: list[dict[str, Any]], reading: ConsentReading) -> list[str]:
    lines = []
    for one in listed:
        pinned = f" (only program {one['digest'][:12]}…)" if one["digest"] else ""
        mark = "✓" if one["state"] == "holds" else "○"
        ending = {"holds": "until", "ended": "ended", "withdrawn": "withdrawn; was until"}
        lines.append(
            f"{mark} {one['id']}  {one['name'] or key(one['submitter'])}: "
            f"{one['workload']}{pinned}, ≤{count(one['cpu'], 'core')}, "
            f"≤{size(one['memory_bytes'])}, "
            f"{ending[one['state']]} {moment(one['not_after'])}"
        )
    lines += [f"! ignored: {fault.path}: {fault.reason}" for fault in reading.ignored]
    if reading.ban:
        lines.append(f"! every grant counts as withdrawn: {reading.ban}")
    return lines or ["Nothing is granted, so nothing runs here. See lender grant --help."]
