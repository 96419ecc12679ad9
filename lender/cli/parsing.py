"""Parses a verb's arguments; loaded only where there is something to parse."""

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType

_COLUMNS = 100


def parse(verb: str, module: ModuleType, arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of `verb`. Exits with 0 for --help and 2 for what can't be parsed."""
    return parser_of(verb, module).parse_args(arguments)


def parser_of(verb: str, module: ModuleType) -> argparse.ArgumentParser:
    """Return the parser that a verb's module configures."""
    parser = argparse.ArgumentParser(
        prog=f"lender {verb}",
        description=module.__doc__,
        epilog=f"examples:\n{module.EXAMPLES}",
        formatter_class=_Help,
    )
    module.configure(parser)
    parser.set_defaults(**getattr(module, "DEFAULTS", {}))
    return parser


class _Help(argparse.RawDescriptionHelpFormatter):
    """argparse makes one for every option, and loads shutil to learn the width it may use."""

    def __init__(self, prog: str) -> None:
        try:
            columns = os.get_terminal_size(sys.stdout.fileno()).columns
        except (OSError, ValueError, AttributeError):
            columns = _COLUMNS
        super().__init__(prog, width=max(40, min(columns, _COLUMNS) - 2))
