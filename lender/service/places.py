"""Where a user's programs keep their files (XDG Base Directory Specification), and their folders.

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


def make_folder(path: "str | os.PathLike[str]", mode: int = 0o700) -> None:
    """Make a folder, unless it is there, and those above it that are missing.

    Whatever the umask, nobody else can write to any of them: who can write to one above puts
    another in the place of ours.

    Args:
        path: of the folder.
        mode: its own; of those above 0755. The umask may take more away.

    Raises:
        OSError: it can't be made, or is no folder.
    """
    if os.path.isdir(path):
        return
    above = os.path.dirname(os.fspath(path).rstrip("/"))
    if above:
        make_folder(above, 0o755)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):  # nor has another process made it just now
            raise


def check_private(handle: int) -> None:
    """See that an open file is its owner's alone, whatever was asked for when it was made.

    A file system without modes (FAT, a Windows drive in WSL, some shares) lets one ask and does
    nothing. To be called before a key is written.

    Raises:
        OSError: others can reach it.
    """
    if os.fstat(handle).st_mode & 0o077:
        import errno  # noqa: PLC0415 - `lender pause` is to load nothing that it can do without

        raise OSError(
            errno.ENOTSUP, "its file system lets others read it, whatever mode it is given"
        )


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
