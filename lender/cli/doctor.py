"""Check this machine, read-only, with a mend for each fault. Exits with 1 where it can't lend."""

import argparse
from dataclasses import asdict

from lender.cli.checks import examine
from lender.cli.checks.running import show
from lender.cli.exits import Exit
from lender.cli.owner import add_options, find_state, open_state, print_json

EXAMPLES = """\
  lender doctor
  lender doctor --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the checks and print them."""
    state = find_state(args)
    checks = examine(open_state(args) if state.path.exists() else state)
    blocked = any(check.level == "blocker" for check in checks)
    if args.json:
        print_json("doctor", {"can_lend": not blocked, "checks": [asdict(c) for c in checks]})
    else:
        show(checks, "✗ this machine can't lend yet" if blocked else "✓ this machine can lend")
    return Exit.FAILED if blocked else Exit.DONE
