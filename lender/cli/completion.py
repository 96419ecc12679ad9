"""Print a completion script for bash, zsh or fish: verbs, options, and your own names.

  bash: echo 'source <(lender completion bash)' >> ~/.bashrc
  zsh:  lender completion zsh > "${fpath[1]}/_lender"
  fish: lender completion fish > ~/.config/fish/completions/lender.fish

The scripts ask `lender completion grants` and `... submitters` for the names in your grants' files.
"""

import importlib
from typing import TYPE_CHECKING

from lender.cli import completion_scripts
from lender.cli.completion_scripts import Completed, Option
from lender.cli.exits import Exit
from lender.cli.main import VERBS
from lender.cli.owner import add_options, find_state, is_owner
from lender.state.consent_files import load_consent
from lender.state.folder import StateFolder

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
  source <(lender completion bash)"""

_SHELLS = {
    "bash": completion_scripts.bash,
    "zsh": completion_scripts.zsh,
    "fish": completion_scripts.fish,
}
_NAMES = ("grants", "submitters")
_ASKS_FOR = {"submitter": "submitters", "about": "submitters", "grant": "grants"}
"""Where an option or argument of this name takes one of our names."""


def configure(parser: "argparse.ArgumentParser") -> None:
    """Add the options."""
    parser.add_argument("what", choices=[*_SHELLS, *_NAMES], metavar="bash|zsh|fish")
    add_options(parser, document=False)


def run(args: "argparse.Namespace") -> int:
    """Print a script, or names, one per line; no names are no fault."""
    if args.what in _SHELLS:
        print(_SHELLS[args.what]([_completed(verb) for verb in VERBS]), end="")
        return Exit.DONE
    state = find_state(args)
    if state.path.exists() and is_owner(state):
        for name in _names(state, args.what):
            print(name)
    return Exit.DONE


def _names(state: StateFolder, what: str) -> list[str]:
    reading = load_consent(state)
    grants = [g for g in reading.consent.grants if g.id not in reading.consent.revoked]
    if what == "grants":
        return sorted(grant.id for grant in grants)
    return sorted({reading.names.get(grant.submitter, grant.submitter) for grant in grants})


def _completed(verb: str) -> Completed:
    from lender.cli.parsing import parser_of  # noqa: PLC0415  # names need no parser

    parser = parser_of(verb, importlib.import_module(f"lender.cli.{verb}"))
    options, words, names = [], [], ""
    # argparse has no public way to list what was added.
    for action in parser._actions:  # noqa: SLF001
        choices = [] if action.choices is None else [str(one) for one in action.choices]
        asks = _ASKS_FOR.get(action.dest, "")
        if not action.option_strings:
            words += choices
            names = names or asks
            continue
        help_text = (action.help or "").replace("\n", " ")
        takes = action.nargs != 0
        options += [
            Option(spelling, help_text, choices, asks, takes_value=takes)
            for spelling in action.option_strings
        ]
    return Completed(verb, VERBS[verb], options, words, names)
