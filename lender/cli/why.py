"""Why this machine lends or does not lend right now, with the numbers and when they can change.

A job's id asks for that job, a submitter's name or key for what is granted to them.
"""

import time
from typing import TYPE_CHECKING, Any

from lender.cli import comfort_words, reasons
from lender.cli.exits import CommandError, Exit
from lender.cli.owner import DEFAULTS as OWNER_DEFAULTS
from lender.cli.owner import add_options, is_owner, print_json, warn_of
from lender.cli.reading import Reading, names_of, read_status
from lender.cli.state_choice import choose
from lender.cli.status_lines import budget_line, confinement, running_line
from lender.cli.words import key, printable, say, when
from lender.state.folder import StateFolder

if TYPE_CHECKING:  # loads only where there is something to parse: see `main`
    import argparse

EXAMPLES = """\
  lender why
  lender why alice
  lender why J-7Q2
  lender why --json"""

DEFAULTS = {**OWNER_DEFAULTS, "about": None}


def configure(parser: "argparse.ArgumentParser") -> None:
    """Add the options."""
    parser.add_argument("about", nargs="?", metavar="JOB|SUBMITTER", help="only this one")
    add_options(parser)


def run(args: "argparse.Namespace") -> int:
    """Ask lenderd once, and explain its answer."""
    choice = choose(args.state, as_guest=True)
    warn_of(choice.others(), choice.state)
    state = choice.state
    reading = read_status(state)
    document = reasons.as_json(reading)
    lines = _lines(reading, document)
    if args.about is not None:
        lines, selected = _about(state, reading, document, args.about)
        document |= selected
    if args.json:
        print_json("why", document)
    else:
        say(lines)
    return Exit.DONE if reading.answered else Exit.UNREACHABLE


def _lines(reading: Reading, document: dict[str, Any]) -> list[str]:
    said = [_head(document)]
    if comfort := reading.fields.get("comfort"):
        said.append(f"  You: {comfort_words.presence(comfort)}.")
    for step in document["steps"]:
        said.append(f"{'✓' if step['holds'] else '✗'} {_titled(step['name'], step)}")
        if step["name"] == "machine":
            said += [_finding(one) for one in document["findings"]]
        if step["name"] == "consent":
            said += _grants(document["grants"])
    said += [
        f"  budget     {budget_line(one)}" for one in document["budgets"] if not one.get("grant")
    ]
    return said


def _head(document: dict[str, Any]) -> str:
    if document["lends"]:
        return "● This machine lends."
    return f"○ This machine takes no work: {document['because']}"


def _titled(title: str, step: dict[str, Any]) -> str:
    return f"{title:<10} {step['text']}" + (f" [{step['change']}]" if step["change"] else "")


def _finding(one: dict[str, Any]) -> str:
    value, limit = one.get("value"), one.get("limit")
    numbers = f" ({value:g}, limit {limit:g})" if value is not None and limit is not None else ""
    change = f" [{one['change']}]" if one["change"] else ""
    text = printable(str(one["text"]))
    return f"    → {one['rung']:<8} {one['signal']}: {text}{numbers}{change}"


def _grants(grants: list[dict[str, Any]]) -> list[str]:
    said, now = [], time.time()
    for one in grants:
        mark = "✗" if one["now"] else "✓"
        who = one["name"] or key(str(one["submitter"]))
        line = f"    {mark} {one['id']}  {who}: {one['workload']}, {one['when']}, "
        line += f"until {when(one['not_after'], now)}"
        if one["now"]:
            line += f": not now, {printable(str(one['now']))}"
        if one["opens"]:
            line += f" [{one['opens']}]"
        said += [line, *(f"        {budget}" for budget in one["budgets"])]
    return said


def _about(
    state: StateFolder, reading: Reading, document: dict[str, Any], about: str
) -> tuple[list[str], dict[str, Any]]:
    """Explain one job or one submitter.

    Raises:
        CommandError: neither is known here.
    """
    names = names_of(reading.fields)
    jobs = [j for j in reading.fields.get("running", []) if str(j.get("job")).startswith(about)]
    if jobs:
        return _running(reading, document, jobs[0], names), {"job": jobs[0]}
    keys = {k for k, name in names.items() if name == about} | {about}
    granted = [one for one in document["grants"] if one["submitter"] in keys]
    if granted:
        open_now = document["lends"] and any(not one["now"] for one in granted)
        head = f"● {about} may run here now" if open_now else _head(document)
        if document["lends"] and not open_now:
            head = f"○ {about} can't run here now: {printable(str(granted[0]['now']))}"
        return [head, *_grants(granted)], {"grants": granted}
    if any(one["submitter"] in keys for one in reading.fields.get("withdrawn", [])):
        return [f"○ {about} can't run here: you have withdrawn what you granted"], {"grants": []}
    return _ended(state, about)


def _running(
    reading: Reading, document: dict[str, Any], job: dict[str, Any], names: dict[str, str]
) -> list[str]:
    held = printable(str(job.get("held") or ""))
    frozen = job.get("state") == "frozen"
    head = f"○ stands still: {held or document['because']}" if frozen else "● runs"
    if held and not frozen:
        head = f"● runs, held back: {held}"
    under = [one for one in document["grants"] if one["id"] == job.get("grant")]
    return [
        head,
        f"  {running_line(job, reading.fields, names)}",
        f"  {confinement(job)}",
        *_grants(under),
        *(_finding(one) for one in document["findings"]),
    ]


def _ended(state: StateFolder, job: str) -> tuple[list[str], dict[str, Any]]:
    """The receipt of a job that is over; only the owner reads it."""
    from lender.state.receipts import ReceiptLog  # noqa: PLC0415  # hashlib, rarely needed

    receipt: dict[str, Any] | None = None
    if is_owner(state):
        for one in ReceiptLog(state.receipts).read():
            if str(one.get("job", "")).startswith(job):
                receipt = one
    if receipt is None:
        raise CommandError(
            Exit.FAILED, f"{job!r} neither runs nor ran here, and nothing is granted to it"
        )
    ended = printable(str(receipt.get("ended") or receipt.get("outcome")))
    at = receipt.get("ended_at")
    moment = f" {when(at, time.time())}" if isinstance(at, int | float) else ""
    line = f"○ {receipt['job']} ended{moment}: {ended}. lender log {receipt['job']}"
    return [line], {"receipt": receipt}
