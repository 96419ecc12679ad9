"""What ran here, for whom, under which grant, what it used, and why it stopped.

Read from the receipts on this machine; lenderd is not asked. With --verify the whole log is
checked for lines that were edited, removed, reordered or cut off (exit 1 if any were).
"""

import argparse
from typing import Any

from lender.cli.exits import CommandError, Exit
from lender.cli.owner import add_options, open_state, print_json
from lender.cli.words import count, duration, key, moment, printable, say, size
from lender.daemon.consent_files import load_consent
from lender.daemon.receipts import Finding, ReceiptLog
from lender.daemon.state import StateFolder

EXAMPLES = """\
  lender log
  lender log J-7Q2mAx91
  lender log --verify"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("job", nargs="?", help="all about one job; the start of its id will do")
    parser.add_argument("--verify", action="store_true", help="only check that nothing was changed")
    parser.add_argument("--last", type=int, default=20, metavar="N", help="so many of all (20)")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Read, check, print."""
    state = open_state(args)
    log = ReceiptLog(state.receipts)
    try:
        findings = log.verify()
        receipts = [] if args.verify else list(log.read())
    except OSError as error:
        raise CommandError(Exit.FAILED, f"can't read {state.receipts}: {error.strerror}") from error
    if args.job:
        receipts = [r for r in receipts if str(r.get("job", "")).startswith(args.job)]
    if args.json:
        found = [{"line": f.line, "kind": f.kind, "text": f.text} for f in findings]
        print_json("log", {"receipts": receipts, "findings": found})
    elif args.verify:
        say(_verdict(findings))
    elif args.job and not receipts:
        raise CommandError(Exit.FAILED, f"no receipt of a job {args.job}")
    else:
        shown = receipts if args.job else receipts[-args.last :] if args.last > 0 else []
        earlier = len(receipts) - len(shown)
        lines = _receipts(shown, state, in_full=bool(args.job))
        say([*([f"({earlier} earlier: lender log --last N)"] if earlier else []), *lines])
        if findings:
            say(_verdict(findings))
    return Exit.FAILED if args.verify and findings else Exit.DONE


def _verdict(findings: list[Finding]) -> list[str]:
    if not findings:
        return ["✓ the log is as it was written"]
    return [f"✗ line {f.line}: {f.kind}: {f.text}" for f in findings]


def _receipts(receipts: list[dict[str, Any]], state: StateFolder, *, in_full: bool) -> list[str]:
    if not receipts:
        return ["Nothing has run here."]
    reading = load_consent(state)
    agreed = {grant.id: grant.granted_at for grant in reading.consent.grants}
    lines = []
    for receipt in receipts:
        if receipt.get("kind") == "repair":
            lines.append(f"! {receipt.get('seq')}  the log was repaired: {_text(receipt, 'note')}")
        elif in_full:
            lines += _in_full(receipt, reading.names, agreed)
        else:
            lines.append(_in_short(receipt, reading.names))
    return lines


def _in_short(receipt: dict[str, Any], names: dict[str, str]) -> str:
    parts = [
        _moment(receipt, "ended_at"),
        _text(receipt, "job"),
        f"for {_who(receipt, names)}",
        _text(receipt, "workload"),
        _text(receipt, "outcome"),
    ]
    if "tasks_run" in receipt:
        parts.append(count(int(_number(receipt, "tasks_run")), "task"))
    return "  ".join(parts)


def _in_full(receipt: dict[str, Any], names: dict[str, str], agreed: dict[str, float]) -> list[str]:
    grant = _text(receipt, "grant")
    when = f" (you agreed {moment(agreed[grant])})" if grant in agreed else ""
    title = f"{_text(receipt, 'job')} {_text(receipt, 'job_name')}".rstrip()
    started = f"{_moment(receipt, 'started_at')} started for {_who(receipt, names)}"
    lines = [
        f"{title}  receipt {receipt.get('seq')}, attempt {receipt.get('attempt', '?')}",
        f"  {started} under grant {grant}{when}",
    ]
    program = receipt.get("program_sha256")
    what = f"{_text(receipt, 'workload')} ({_text(receipt, 'runtime')})"
    lines.append(f"  {what}" + (f" · program sha256:{str(program)[:12]}…" if program else ""))
    if "tasks_run" in receipt:
        lines.append(
            f"  {count(int(_number(receipt, 'tasks_run')), 'task')}, "
            f"{int(_number(receipt, 'tasks_failed'))} failed · "
            f"CPU {duration(_number(receipt, 'cpu_s'))} · "
            f"in {size(_number(receipt, 'bytes_in'))} · out {size(_number(receipt, 'bytes_out'))}"
        )
    ended = _text(receipt, "ended")
    why = f": {ended}" if ended else ""
    lines.append(f"  {_moment(receipt, 'ended_at')} {_text(receipt, 'outcome')}{why}")
    return lines


def _who(receipt: dict[str, Any], names: dict[str, str]) -> str:
    submitter = _text(receipt, "submitter")
    return names.get(submitter) or key(submitter)


def _text(receipt: dict[str, Any], field: str) -> str:
    return printable(str(receipt.get(field) or ""))


def _number(receipt: dict[str, Any], field: str) -> float:
    value = receipt.get(field)
    return value if isinstance(value, int | float) else 0


def _moment(receipt: dict[str, Any], field: str) -> str:
    return moment(_number(receipt, field)) if receipt.get(field) else "?"
