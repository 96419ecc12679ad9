"""Clear a pause: lend again what you have granted. Clears no revocation."""

import argparse
import time

from lender.cli.exits import CommandError, Exit
from lender.cli.owner import add_options, open_state, print_json, tell
from lender.cli.words import say
from lender.daemon.intent_file import StoredIntent, write_stored

EXAMPLES = """\
  lender resume"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Save that lending goes on, and tell lenderd."""
    state = open_state(args)
    try:
        write_stored(state, StoredIntent(paused=False, paused_at=time.time()))
    except OSError as error:
        raise CommandError(
            Exit.FAILED, f"still paused, could not save otherwise: {error.strerror}"
        ) from error
    told = tell(state, "resume", timeout_s=5.0)
    if args.json:
        print_json("resume", {"daemon": told.outcome, "daemon_reason": told.reason})
    elif told.outcome == "answered":
        say(["✓ resumed: what you have granted may run again"])
    elif told.outcome == "absent":
        say(["✓ resumed (saved on this machine)", "! lenderd does not run: start it to lend."])
    else:
        say(["✓ resumed (saved on this machine)", f"! lenderd gave no answer ({told.reason})."])
    return Exit.DONE if told.outcome == "answered" else Exit.UNREACHABLE
