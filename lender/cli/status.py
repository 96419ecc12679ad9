"""What this machine lends right now, to whom, and what you allow.

lenderd is asked; without it the files tell what holds. With --check the exit code alone answers:
0 lending, 3 not lending, 5 lenderd does not answer.
"""

from typing import TYPE_CHECKING

from lender.cli.exits import Exit
from lender.cli.owner import DEFAULTS as OWNER_DEFAULTS
from lender.cli.owner import add_options, print_json, warn_of
from lender.cli.reading import Reading, read_status
from lender.cli.state_choice import choose
from lender.cli.status_lines import lines
from lender.cli.words import say

if TYPE_CHECKING:  # loads only where there is something to parse: see `main`
    import argparse

EXAMPLES = """\
  lender status
  lender status --watch
  lender status --json
  lender status --check && echo lending"""

DEFAULTS = {**OWNER_DEFAULTS, "check": False, "watch": False}


def configure(parser: "argparse.ArgumentParser") -> None:
    """Add the options."""
    parser.add_argument("--check", action="store_true", help="exit with 3 where nothing is lent")
    parser.add_argument("--watch", action="store_true", help="again each second, until Ctrl-C")
    add_options(parser)


def run(args: "argparse.Namespace") -> int:
    """Ask and print."""
    choice = choose(args.state, as_guest=True)
    warn_of(choice.others(), choice.state)
    state = choice.state
    if args.watch:
        from lender.cli.watching import watch  # noqa: PLC0415  # rarely asked for

        return watch(state, as_json=args.json)
    reading = read_status(state)
    if args.json:
        print_json("status", as_document(reading))
    else:
        say(lines(reading))
    if not reading.answered:
        return Exit.UNREACHABLE
    lends = reading.fields.get("phase") == "lending" and bool(reading.fields.get("grants"))
    return Exit.DONE if lends or not args.check else Exit.NOT_LENDING


def as_document(reading: Reading) -> dict[str, object]:
    """The fields of the JSON document."""
    return {"daemon": reading.told.outcome, **reading.fields}
