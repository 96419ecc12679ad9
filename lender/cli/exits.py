"""Exit codes of every verb."""

from enum import IntEnum


class Exit(IntEnum):
    """What the shell sees; documented in README.md and stable."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_LENDING = 3
    NOT_PERMITTED = 4
    UNREACHABLE = 5
    PARTIAL = 6


class CommandError(Exception):
    """Ends a verb with a message for stderr and an exit code. The message names the mend."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code
