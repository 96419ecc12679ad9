"""List what you have agreed to, and what for it was used; what has ended, or is ignored and why.

What was used up is read from the log of what ran (lender log). What is only proposed to you, and
allows nothing, comes last.
"""

import argparse
import time
from typing import Any

from lender.cli.consent_words import changed, known_programs, terms
from lender.cli.exits import Exit
from lender.cli.grant_usage import GrantUses
from lender.cli.owner import add_options, open_state, print_json
from lender.cli.proposed_grants import ask_lines, listed_proposals
from lender.cli.words import count, duration, key, moment, printable, say, size
from lender.core.consent import Grant
from lender.state.consent_files import ConsentReading, grant_fields, load_consent
from lender.state.receipts import ReceiptLog

EXAMPLES = """\
  lender grants
  lender grants --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Read the files and print them; of lenderd only the catalogue is asked."""
    state, now = open_state(args), time.time()
    reading, programs = load_consent(state), known_programs(state)
    uses = GrantUses(ReceiptLog(state.receipts).read())
    listed = [
        {
            **entry(grant, reading, now),
            "terms": terms(grant),
            "workload_changed": changed(grant, programs),
            "used": uses.fields(grant, now),
        }
        for grant in reading.consent.grants
    ]
    proposed = listed_proposals(state, reading, programs, now)
    if args.json:
        fields = {"grants": listed, "ignored": ignored(reading), "ban": reading.ban}
        print_json("grants", {**fields, "proposed": proposed})
    else:
        say([*_lines(listed, reading), *ask_lines(proposed)])
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
        lines += _of_grant(one)
    lines += [printable(f"! ignored: {fault.path}: {fault.reason}") for fault in reading.ignored]
    if reading.ban:
        lines.append(f"! every grant counts as withdrawn: {reading.ban}")
    return lines or ["Nothing is granted, so nothing runs here. See lender grant --help."]


def _of_grant(one: dict[str, Any]) -> list[str]:
    mark = "✓" if one["state"] == "holds" else "○"
    who = one["name"] or key(one["submitter"])
    program = f" (only program {one['digest'][:12]}…)" if one["digest"] else ""
    ending = {"holds": "until", "ended": "ended", "withdrawn": "withdrawn; was until"}
    end = f"{ending[one['state']]} {moment(one['not_after'])}"
    lines = [
        f"{mark} {one['id']}  {who}: {one['workload']}{program}, {end}",
        f"    {one['terms']}",
        f"    {_used(one['used'])}",
    ]
    if one["state"] == "holds" and one["workload_changed"]:
        lines.append(
            "!   workload changed since you agreed, so nothing runs: lender grant it again"
        )
    if one["state"] == "holds" and one["used"]["exhausted"]:
        lines.append(f"!   {one['used']['exhausted']}")
    return lines


def _used(used: dict[str, Any]) -> str:
    if not used["attempts"]:
        return "not used yet"
    parts = [
        f"used for {count(used['jobs'], 'job')}",
        f"{duration(used['cpu_s'])} of CPU time",
        f"{size(used['moved_bytes'])} moved",
        f"last {moment(used['last_at'])}",
        *(bound["text"] for bound in used["budget"]),
    ]
    return ", ".join(parts)
