"""Withdraw grants. Their work is killed and wiped at once; nothing is asked.

Works with lenderd stopped, hung or gone, without NATS, and on a full disk. First the grants are
withdrawn, then every process under them is killed, then lenderd is told; a lenderd that does not
answer within half a second is killed too, so that it can start nothing more. What was kept of a
submitter who may do nothing here any more is deleted: inputs, compiled modules, results, and what
you called them. What is printed was verified.
"""

import argparse
import time

from lender.cli.exits import CommandError, Exit
from lender.cli.owner import add_options, open_state, print_json
from lender.cli.revocation import Outcome, revoke
from lender.cli.words import clock, count, duration, say, size
from lender.state.attempt_records import AttemptReading, AttemptRecords
from lender.state.consent_files import ConsentReading, load_consent
from lender.state.folder import StateFolder
from lender.state.grant_claims import claims
from lender.state.purge import kept_submitters
from lender.state.withdrawal import Selection

EXAMPLES = """\
  lender revoke --all
  lender revoke --submitter alice
  lender revoke --submitter alice --workload render
  lender revoke --grant G-k3x7qa2m"""


_DAEMON = {
    "killed": "! lenderd was killed: {reason}. The broker is told on reconnect.",
    "absent": "! lenderd does not run; stopped without it. The broker hears at its start.",
    "silent": "✗ lenderd does not answer and could not be killed: end it by hand",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--all", action="store_true", help="every grant on this machine")
    parser.add_argument("--submitter", metavar="KEY|NAME", help="grants of this submitter")
    parser.add_argument("--workload", "--class", metavar="NAME", help="grants of this workload")
    parser.add_argument("--grant", metavar="ID", help="this one grant")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Do everything first, tell afterwards: a closed pipe must not come between."""
    if not (args.all or args.submitter or args.workload or args.grant):
        raise CommandError(
            Exit.USAGE, "say what to withdraw: --all, --submitter, --workload or --grant"
        )
    state = open_state(args)
    outcome = revoke(state, _selection(args, state))
    if args.json:
        print_json("revoke", outcome.as_json())
    else:
        after = load_consent(state)
        say([*_lines(outcome), *_still(after, _dormant(state, after))])
    return Exit.DONE if outcome.complete else Exit.PARTIAL


def _selection(args: argparse.Namespace, state: StateFolder) -> Selection:
    """What the words mean here.

    Raises:
        CommandError: they match no grant and nothing that runs.
    """
    reading = load_consent(state)
    faulty = [claim for _, claim in claims(state, reading)]
    submitters = None
    if args.submitter is not None:
        named = {key for key, name in reading.names.items() if name == args.submitter}
        named |= {one.submitter for one in faulty if one.name == args.submitter} - {""}
        submitters = frozenset(named or {args.submitter})
    selection = Selection(args.all, submitters, args.workload, args.grant)
    try:
        attempts = AttemptRecords(state.attempts).read_all()
    except OSError:
        attempts = AttemptReading((), (str(state.attempts),))
    known = (
        args.all
        or any(selection.ends(grant) for grant in reading.consent.grants)
        or any(selection.may_end(claim) for claim in faulty)
        or any(fault.path == state.grants for fault in reading.ignored)
        or any(selection.stops(attempt) for attempt in attempts.records)
        or bool(kept_submitters(state) & (submitters or frozenset()))
    )
    if not known and attempts.unreadable:
        raise CommandError(
            Exit.FAILED,
            f"no grant matches, but {attempts.unreadable[0]} can't be read: it may name what runs; "
            "`lender revoke --all` ends everything",
        )
    if not known:
        raise CommandError(Exit.FAILED, "no grant matches; `lender grants` lists them")
    return selection


def _lines(outcome: Outcome) -> list[str]:
    lines = [_withdrawn(outcome)]
    lines += [f"! withdrawn too, it may be meant: {one}" for one in outcome.unclear]
    lines += [f"✗ could not be withdrawn: {one}" for one in outcome.not_withdrawn]
    lines.append(_stopped(outcome))
    if outcome.scratch_left:
        lines.append(f"✗ scratch could not be deleted: {', '.join(outcome.scratch_left)}")
    elif outcome.jobs or outcome.freed_bytes:
        lines.append(f"✓ scratch deleted ({size(outcome.freed_bytes)})")
    if outcome.purge_left:
        lines.append(f"✗ could not be deleted: {', '.join(outcome.purge_left)}")
    elif outcome.purged_bytes:
        lines.append(
            f"✓ inputs and results that were kept are deleted ({size(outcome.purged_bytes)})"
        )
    if outcome.daemon in _DAEMON:
        lines.append(_DAEMON[outcome.daemon].format(reason=outcome.daemon_reason))
    return lines


def _dormant(state: StateFolder, after: ConsentReading) -> list[str]:
    """Files that allow nothing only because of a fault: mended, they may be consent again."""
    return [
        f"{fault.path} ({fault.reason})"
        for fault, claim in claims(state, after)
        if not claim.ids or not claim.ids <= after.consent.revoked
    ]


def _still(after: ConsentReading, dormant: list[str]) -> list[str]:
    """What is left of the consent."""
    lines = [f"! not withdrawn, and allows nothing as long as it is so: {one}" for one in dormant]
    if after.ban:
        return [*lines, f"! every grant counts as withdrawn as long as this is so: {after.ban}"]
    held = len(after.consent.valid(time.time()))
    if held:
        lines.append(f"{count(held, 'other grant')} still hold{'s' if held == 1 else ''}.")
    elif not dormant:
        lines.append("Nothing can run until you type `lender grant`.")
    return lines


def _withdrawn(outcome: Outcome) -> str:
    if not outcome.grants:
        return "✓ no grant to withdraw" if not outcome.not_withdrawn else "✗ no grant withdrawn"
    grants = count(len(outcome.grants), "grant")
    if not outcome.not_saved:
        return f"✓ {clock(outcome.saved_at)} {grants} withdrawn (saved on this machine)"
    if outcome.set_aside:
        return (
            f"! no tombstone could be saved ({outcome.not_saved}); the files of "
            f"{count(len(outcome.set_aside), 'grant')} were set aside instead"
        )
    return f"✗ the withdrawal could not be saved ({outcome.not_saved}): free some space"


def _stopped(outcome: Outcome) -> str:
    took = duration(outcome.stopped_s)
    if not outcome.verified:
        left = ", ".join(str(pid) for pid in outcome.remaining)
        return f"✗ not verified that nothing is left ({left or outcome.doubt}), after {took}"
    stopped = f"{count(outcome.jobs, 'job')}, {count(outcome.processes, 'process')} stopped"
    return (
        f"✓ {clock(outcome.stopped_at)} {stopped if outcome.jobs else 'no job was running'} - "
        f"verified, none left, after {took}"
    )
