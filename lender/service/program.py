"""How a program of ours begins and ends, without what Python wastes on both.

What modules make when they are loaded is no garbage, yet Python looks through it again and again;
and at the end it takes everything apart, piece by piece. Together that was a quarter of what a
start and an end of lenderd, or of the broker, cost.
"""

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import NoReturn


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Load modules; what they make is left out of every later look for garbage, too.

    Raises:
        SystemExit: one is not installed; the text says what to mend.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    except ModuleNotFoundError as error:
        raise SystemExit(incomplete(error)) from None
    finally:
        gc.enable()


def incomplete(error: ModuleNotFoundError) -> str:
    """Say that we were installed without something that we need, and the mend."""
    return (
        f"{error.name} is missing: lender was not installed whole; mend: install it again together "
        "with what it needs (docs/installing.md)"
    )


def end(status: int) -> NoReturn:
    """End the process at once, with this exit code; whoever calls has put in order what it used.

    Where what was printed can't be written, the code is 1 in place of 0.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            status = status or 1
    os._exit(status)
