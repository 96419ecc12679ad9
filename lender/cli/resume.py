"""Clear a pause or a drain: lend again what you have granted. Clears no revocation."""

import time
from typing import TYPE_CHECKING, Any

from lender.cli.exits import CommandError, Exit
from lender.cli.last_word import keep
from lender.cli.owner import DEFAULTS, Told, add_options, open_state, print_json, tell
from lender.cli.status_lines import head
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
    after = tell(state, "status").reply if told.outcome == "answered" else {}
    if args.json:
        kept = {name: after.get(name) for name in ("phase", "paused", "reason")}
        print_json("resume", {"daemon": told.outcome, "daemon_reason": told.reason, **kept})
    else:
        say(lines_of(told, after))
    if told.outcome == "refused" or after.get("paused"):
        return Exit.FAILED
    return Exit.DONE if told.outcome == "answered" else Exit.UNREACHABLE


def lines_of(told: Told, after: dict[str, Any]) -> list[str]:
    """Say what follows from it; `after`: the status that lenderd gave next, empty without one."""
    if told.outcome == "refused":
        return ["! saved on this machine", f"✗ lenderd reports a fault: {told.reason}"]
    if told.outcome == "absent":
        return ["✓ resumed (saved on this machine)", "! lenderd does not run: start it to lend."]
    if told.outcome == "silent":
        return ["✓ resumed (saved on this machine)", f"! lenderd gave no answer ({told.reason})."]
    if after.get("paused"):
        return ["✗ saved on this machine, but lenderd is still paused: somebody paused it again"]
    if after.get("phase") == "lending" and after.get("grants"):
        return ["✓ resumed: what you have granted may run again"]
    return ["✓ the pause is over", head(after, time.time())] if after else ["✓ the pause is over"]
