"""Parses a verb's arguments; loaded only where there is something to parse."""

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

_COLUMNS = 100


def parse(verb: str, module: ModuleType, arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of `verb`. Exits with 0 for --help and 2 for what can't be parsed."""
    return parser_of(verb, module).parse_args(arguments)


def parser_of(verb: str, module: ModuleType) -> argparse.ArgumentParser:
    """Return the parser that a verb's module configures."""
    parser = _Parser(
        prog=f"lender {verb}",
        description=module.__doc__,
        epilog=f"examples:\n{module.EXAMPLES}",
        formatter_class=_Help,
    )
    module.configure(parser)
    parser.set_defaults(**getattr(module, "DEFAULTS", {}))
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, not below the list of all options."""

    def error(self, message: str) -> NoReturn:
        """End with 2."""
        if message.startswith("unrecognized") and any(
            one.dest == "command" for one in self._actions
        ):
            message += f"; what belongs to the command goes behind --: {self.prog} -- CMD ARGS"
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Help(argparse.RawDescriptionHelpFormatter):
    """argparse makes one for every option, and loads shutil to learn the width it may use."""

    def __init__(self, prog: str) -> None:
        try:
            columns = os.get_terminal_size(sys.stdout.fileno()).columns
        except (OSError, ValueError, AttributeError):
            columns = _COLUMNS
        super().__init__(prog, width=max(40, min(columns, _COLUMNS) - 2))
