"""Why this machine lends or not, or why a job of yours waits, with what can change it.

Alone it is about this machine: whether it lends right now, with the numbers and when they can
change. With a submitter's name or key it is about what you grant to them.

With a job's id it is about the job. Of one that you have submitted the fleet is asked (with
your key, see --url): what it waits for, where it runs, or what became of it; --task N asks for one
task of an array, as JOB-N does. Of one that runs or ran on this machine it says what this machine
does with it, and why; there the beginning of its id is enough. A job that is both gets both
answers; in JSON the fleet's is the document, and this machine's is `here`. --state DIR asks that
lender alone.
"""

import time
from typing import TYPE_CHECKING, Any

from lender.cli import comfort_words, reasons
from lender.cli.exits import CommandError, Exit
from lender.cli.job_names import means
from lender.cli.owner import DEFAULTS as OWNER_DEFAULTS
from lender.cli.owner import add_options, is_owner, print_json, warn_of
from lender.cli.reading import Reading, names_of, read_status
from lender.cli.state_choice import choose
from lender.cli.status_lines import budget_line, confinement, running_line
from lender.cli.words import key, printable, say, when
from lender.state.folder import StateFolder

if TYPE_CHECKING:  # loads only where there is something to parse: see `main`
    import argparse

    from lender.cli.job_why import Answer

EXAMPLES = """\
  lender why                                        (this machine)
  lender why alice                                  (what you grant to alice)
  lender why 01JD8Z0W3V6Y9QK2M4T7RXA5BC             (a job of yours, or one that runs here)
  lender why 01JD8Z0W3V6Y9QK2M4T7RXA5BC --task 17   (of its tasks, this one)
  lender why 01JD8Z0W3V6Y9QK2M4T7RXA5BC --json | jq -r .why"""

_OF_A_FLEET = dict.fromkeys(("task", "url", "creds", "ca", "trust", "key"))

DEFAULTS = {**OWNER_DEFAULTS, "about": None, **_OF_A_FLEET}


def configure(parser: "argparse.ArgumentParser") -> None:
    """Add the options."""
    from lender.cli.connection_options import add_connection_options  # noqa: PLC0415  # argparse

    parser.add_argument("about", nargs="?", metavar="JOB|SUBMITTER", help="only this one")
    add_options(parser)
    fleet = parser.add_argument_group("of a job that you have submitted")
    fleet.add_argument("--task", type=int, metavar="N", help="only this task of its array")
    add_connection_options(fleet)


def run(args: "argparse.Namespace") -> int:
    """Ask lenderd once, and explain its answer; of a submitter's own job ask the fleet."""
    if args.about is not None and args.state is None:
        from lender.cli import job_why  # noqa: PLC0415  # loads the client; owners need none of it

        if job_why.is_meant(args):
            return job_why.run(args, lambda: _here(args))
    elif any(getattr(args, name) is not None for name in _OF_A_FLEET):
        raise CommandError(Exit.USAGE, "a fleet is asked for a job: name its id, and no --state")
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


def _here(args: "argparse.Namespace") -> "Answer | None":
    """What this machine knows of a job; None where it knows nothing of it, or lends nothing."""
    from lender.cli.job_why import Answer  # noqa: PLC0415  # as above

    try:
        state = choose(None, as_guest=True).state
        reading = read_status(state)
        document = reasons.as_json(reading)
        lines, selected = _about(state, reading, document, args.about)
    except CommandError:
        return None
    return Answer(lines, document | selected)


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
    jobs = [j for j in reading.fields.get("running", []) if means(about, str(j.get("job")))]
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
            if means(job, str(one.get("job", ""))):
                receipt = one
    if receipt is None:
        raise CommandError(
            Exit.FAILED,
            f"{job!r} neither runs nor ran here, and nothing is granted to it;"
            " a job of yours has its whole id in `lender jobs`",
        )
    ended = printable(str(receipt.get("ended") or receipt.get("outcome")))
    at = receipt.get("ended_at")
    moment = f" {when(at, time.time())}" if isinstance(at, int | float) else ""
    line = f"○ {receipt['job']} ended{moment}: {ended}. lender log {receipt['job']}"
    return [line], {"receipt": receipt}
