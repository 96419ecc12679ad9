"""Clear a pause or a drain: lend again what you have granted. Clears no revocation."""

import time
from typing import TYPE_CHECKING

from lender.cli.exits import CommandError, Exit
from lender.cli.last_word import keep
from lender.cli.owner import DEFAULTS, add_options, open_state, print_json, tell
from lender.cli.words import say
from lender.state.intent_file import StoredIntent

if TYPE_CHECKING:  # loads only where there is something to parse: see `main`
    import argparse

__all__ = ["DEFAULTS", "EXAMPLES", "configure", "run"]

EXAMPLES = """\
  lender resume"""

_ANSWER_S = 5.0


def configure(parser: "argparse.ArgumentParser") -> None:
    """Add the options."""
    add_options(parser)


def run(args: "argparse.Namespace") -> int:
    """Save that lending goes on, and tell lenderd."""
    state = open_state(args)
    fault = keep(state, StoredIntent(paused=False, paused_at=time.time()))
    if fault:
        raise CommandError(
            Exit.FAILED, f"still paused, could not save otherwise: {fault}; mend that and try again"
        )
    told = tell(state, "resume", timeout_s=_ANSWER_S)
    if args.json:
        print_json("resume", {"daemon": told.outcome, "daemon_reason": told.reason})
    elif told.outcome == "answered":
        say(["✓ resumed: what you have granted may run again"])
    elif told.outcome == "absent":
        say(["✓ resumed (saved on this machine)", "! lenderd does not run: start it to lend."])
    else:
        say(["✓ resumed (saved on this machine)", f"! lenderd gave no answer ({told.reason})."])
    return Exit.DONE if told.outcome == "answered" else Exit.UNREACHABLE
