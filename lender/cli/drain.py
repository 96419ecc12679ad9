"""Take nothing new; what runs may finish until the deadline, and is handed back after it.

Nothing runs afterwards until `lender resume`. This returns at once; with --wait, when nothing is
left. Ctrl-C ends the waiting, not the drain.
"""

import sys
import time
from typing import TYPE_CHECKING, Any

from lender.cli import finishing
from lender.cli.exits import Exit
from lender.cli.owner import DEFAULTS as OWNER_DEFAULTS
from lender.cli.owner import add_options, open_state, print_json
from lender.cli.words import count, duration, say
from lender.state.folder import StateFolder
from lender.state.intent_file import StoredIntent, read_stored

if TYPE_CHECKING:  # loads only where there is something to parse: see `main`
    import argparse

EXAMPLES = """\
  lender drain --deadline 10m
  lender drain --deadline 18:00 --wait"""

DEADLINE_S = 600.0
DEFAULTS = {**OWNER_DEFAULTS, "deadline": None, "wait": False}

_LOOK_AGAIN_S = 0.25
_OVERDUE_S = 90.0
"""After the deadline lenderd kills what is left, and has a minute to see its checkpoints stored."""


def configure(parser: "argparse.ArgumentParser") -> None:
    """Add the options."""
    from lender.cli.moments import deadline_s  # noqa: PLC0415  # loads argparse

    parser.add_argument(
        "--deadline",
        type=deadline_s,
        metavar="10m|18:00",
        help=f"when what still runs is handed back; in {DEADLINE_S / 60:g} minutes if left out",
    )
    parser.add_argument("--wait", action="store_true", help="return when nothing is left here")
    add_options(parser)


def run(args: "argparse.Namespace") -> int:
    """Drain, tell what still runs, and wait for it if asked to."""
    state = open_state(args)
    now = time.time()
    deadline = args.deadline or now + DEADLINE_S
    intent = StoredIntent(paused=True, paused_at=now, finish_by=deadline)
    outcome = finishing.let_finish(state, intent)
    if not args.json:
        say(finishing.lines(outcome))
        sys.stdout.flush()
    status: int = finishing.exit_of(outcome)
    if args.wait and status == Exit.DONE:
        try:
            status = _wait(state, intent, outcome)
        except KeyboardInterrupt:
            print("\nThe drain stays in force. lender resume ends it.", file=sys.stderr)
            status = 130
    if args.json:
        print_json("drain", outcome)
    elif args.wait and status == Exit.DONE:
        say(["✓ nothing runs any more"])
    return status


def _wait(state: StateFolder, intent: StoredIntent, outcome: dict[str, Any]) -> int:
    """Show what is left until nothing is; `outcome` keeps it up to date."""
    assert intent.finish_by is not None
    progress = _Progress()
    try:
        while outcome["running"]:
            progress.show(len(outcome["running"]), intent.finish_by - time.time())
            if time.time() > intent.finish_by + _OVERDUE_S:
                progress.end("The deadline has passed; to end what is left: lender pause")
                return Exit.PARTIAL
            if _replaced(state, intent):
                progress.end("Another word of the owner replaced this drain.")
                return Exit.FAILED
            time.sleep(_LOOK_AGAIN_S)
            outcome["running"] = finishing.running(state)
    finally:
        progress.end()
    return Exit.DONE


def _replaced(state: StateFolder, intent: StoredIntent) -> bool:
    return read_stored(state) != intent


class _Progress:
    """On stderr: one line that changes on a terminal, else a line per change."""

    def __init__(self) -> None:
        self._redraws = sys.stderr.isatty()
        self._shown = 0

    def show(self, left: int, remaining_s: float) -> None:
        """Tell how many are left, and for how long they may go on."""
        text = f"{count(left, 'job')} left"
        if self._redraws:
            print(f"\r{text}, {duration(max(1.0, remaining_s))} \033[K", end="", file=sys.stderr)
        elif left != self._shown:
            print(text, file=sys.stderr)
        sys.stderr.flush()
        self._shown = left

    def end(self, text: str = "") -> None:
        """Leave a clean line behind."""
        if self._redraws and self._shown:
            print("\r\033[K", end="", file=sys.stderr)
        if text:
            print(text, file=sys.stderr)
        self._shown = 0
