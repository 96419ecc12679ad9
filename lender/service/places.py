"""Where a user's programs keep their files (XDG Base Directory Specification).

Standard library only, and little of that: `lender pause` asks here.
"""

import os


class NoHomeError(Exception):
    """This user has no home folder, so there is no usual place; says what to do."""


def state_home() -> str:
    """Return the folder below which programs keep what they know.

    Raises:
        NoHomeError: there is none.
    """
    return _own_folder("XDG_STATE_HOME", "~/.local/state")


def configuration_home() -> str:
    """Return the folder below which programs look for what they were told.

    Raises:
        NoHomeError: there is none.
    """
    return _own_folder("XDG_CONFIG_HOME", "~/.config")


def _own_folder(variable: str, usual: str) -> str:
    """One that the environment names; a relative one is none.

    Without $HOME and without an entry in the list of users `~` stays what it is, a name.
    """
    base = os.environ.get(variable, "")
    if not os.path.isabs(base):
        base = os.path.expanduser(usual)
    if not os.path.isabs(base):
        raise NoHomeError(
            f"uid {os.geteuid()} has no home folder: set HOME, "
            "or name the state folder with --state"
        )
    return base
