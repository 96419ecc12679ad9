"""What macOS offers for comfort; nothing of it is needed to lend. Not yet run on a Mac."""

from collections.abc import Iterator

from lender.cli.checks.check import Check
from lender.state.folder import StateFolder, read_account

_MEND = (
    "make an account for lenderd alone, start lenderd as root with it as `user`, and set "
    "`user_is_dedicated` (lender/sandbox/README.md)"
)


def system(state: StateFolder) -> Iterator[Check]:
    """Whether what leaves its tree of processes would be found."""
    if read_account(state) is not None:
        text = "lenderd has an account of its own: all that runs there is found and stopped by it"
        yield Check("account", "ok", text)
    else:
        text = "lenderd has no account of its own, so process and python tasks can't start others"
        yield Check("account", "info", text, _MEND)
