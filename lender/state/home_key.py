"""The key that commands of the owner's home automation are signed by, in the state folder."""

import os
import stat

from lender.core.home_commands import CommandKey
from lender.state.durable import write_whole
from lender.state.folder import StateFolder

_BYTES_MAX = 256


def read_home_key(state: StateFolder) -> CommandKey | None:
    """The key; None where there is none, or one that others can read or that is damaged."""
    try:
        handle = os.open(state.home_key, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode) or mode & 0o077:
            return None
        return CommandKey.parse(os.read(handle, _BYTES_MAX).decode("ascii").strip())
    except (OSError, ValueError):
        return None
    finally:
        os.close(handle)


def make_home_key(state: StateFolder) -> CommandKey:
    """Make a new key, and keep it durably with mode 0600. The one before it counts no more.

    Raises:
        OSError: it could not be kept.
    """
    key = CommandKey(os.urandom(32).hex(), os.urandom(32).hex())
    write_whole(state.inside(state.home_key.name), f"{key.inner}{key.outer}\n".encode())
    return key
