"""What ran here, for whom, under which grant, what it used, and why it stopped.

Read from the receipts on this machine; lenderd is not asked. `lender log verify` checks the whole
log for entries that were edited, removed, reordered, inserted or cut off, the signatures, and the
head that was published to the broker (exit 1 if anything was found).
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from typing import Any

from lender.cli.exits import CommandError, Exit
from lender.cli.job_names import means
from lender.cli.owner import add_options, open_state
from lender.cli.receipt_words import in_full, in_short
from lender.cli.words import say
from lender.service.quantities import duration_s
from lender.state.consent_files import load_consent
from lender.state.folder import StateFolder
from lender.state.receipt_chain import Finding
from lender.state.receipts import ReceiptLog

EXAMPLES = """\
  lender log
  lender log J-7Q2mAx91
  lender log --since 2d
  lender log -f
  lender log verify"""

_FOLLOW_S = 0.5
_DATE = r"(\d{4})-(\d{2})-(\d{2})(?:[ T](\d{1,2}):(\d{2}))?"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "job",
        nargs="?",
        help="all about one job; the start of its id will do. `verify`: check the log",
    )
    parser.add_argument("--verify", action="store_true", help="the same as `lender log verify`")
    parser.add_argument("--last", type=int, default=20, metavar="N", help="so many of all (20)")
    parser.add_argument(
        "--since", type=_since, metavar="TIME", help="what ended since: 2h, 3d, 2026-11-21 [18:00]"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on as more is written")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Read, check, print."""
    prove = _prover() if args.verify or args.job == "verify" else None
    state = open_state(args)
    receipts = ReceiptLog(state.receipts)
    try:
        if prove is not None:
            return prove(state, receipts, as_json=args.json)
        if args.follow:
            return _follow(state, receipts, as_json=args.json)
        return _show(args, state, receipts)
    except OSError as error:
        raise CommandError(Exit.FAILED, f"can't read {state.receipts}: {error.strerror}") from error


def _show(args: argparse.Namespace, state: StateFolder, receipts: ReceiptLog) -> int:
    shown = _chosen(args, receipts)
    verdict = receipts.examine()
    findings = verdict.findings
    if args.json:
        _print({"receipts": shown, "findings": _as_json(findings)})
        return Exit.DONE
    if args.job and not shown:
        raise CommandError(Exit.FAILED, f"no receipt of a job {args.job}")
    reading = load_consent(state)
    if args.job:
        agreed = {grant.id: grant.granted_at for grant in reading.consent.grants}
        say(line for one in shown for line in in_full(one, reading.names, agreed))
    else:
        earlier = verdict.receipts - len(shown)
        if earlier > 0:
            say([f"({earlier} earlier: lender log --last N)"])
        elif not shown:
            say(["Nothing has run here."])
        say(in_short(one, reading.names) for one in shown)
    if findings:
        say(f"✗ line {one.line}: {one.kind}: {one.text}" for one in findings)
        say(["  The log is not as it was written: lender log verify"])
    return Exit.DONE


def _chosen(args: argparse.Namespace, receipts: ReceiptLog) -> list[dict[str, Any]]:
    """What was asked for, oldest first; no more is read than that takes."""
    if args.job:
        return [one for one in receipts.read() if means(args.job, str(one.get("job", "")))]
    newest: Iterator[dict[str, Any]] = receipts.read_back()
    if args.since is not None:
        newest = takewhile(lambda one: _not_before(one, args.since), newest)
    else:
        newest = islice(newest, max(0, args.last))
    return list(newest)[::-1]


def _not_before(receipt: dict[str, Any], since: float) -> bool:
    ended_at = receipt.get("ended_at")
    return not isinstance(ended_at, int | float) or ended_at >= since


def _follow(state: StateFolder, receipts: ReceiptLog, *, as_json: bool) -> int:
    """Print what is written from now on, until Ctrl-C."""
    last = next(receipts.read_back(), None)
    while True:
        fresh = _newer(receipts, last)
        if fresh:
            last, names = fresh[-1], load_consent(state).names
            say(json.dumps(one) if as_json else in_short(one, names) for one in fresh)
            sys.stdout.flush()
        time.sleep(_FOLLOW_S)


def _newer(receipts: ReceiptLog, last: dict[str, Any] | None) -> list[dict[str, Any]]:
    return list(takewhile(lambda one: one != last, receipts.read_back()))[::-1]


def _prover() -> Callable[..., int]:
    """What verifies. Only that pays for nkeys, and imports it while root still reads everything."""
    from lender.cli import receipt_proof  # noqa: PLC0415 - see above

    def verify(state: StateFolder, receipts: ReceiptLog, *, as_json: bool) -> int:
        proof = receipt_proof.prove(state, receipts)
        if as_json:
            _print({**proof._asdict(), "findings": _as_json(proof.findings)})
        else:
            say(receipt_proof.words(proof))
        return Exit.FAILED if proof.findings else Exit.DONE

    return verify


def _as_json(findings: list[Finding]) -> list[dict[str, Any]]:
    return [finding._asdict() for finding in findings]


def _print(fields: dict[str, Any]) -> None:
    print(json.dumps({"schema": "lender.log/2", **fields}, indent=2))


def _since(text: str) -> float:
    match = re.fullmatch(_DATE, text)
    if match is None:
        return time.time() - duration_s(text)
    year, month, day, hour, minute = (int(one or 0) for one in match.groups())
    try:
        return time.mktime((year, month, day, hour, minute, 0, 0, 0, -1))
    except (OverflowError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no date") from error
