"""lenderd as root: becomes the ordinary user that it was told, or refuses."""

import grp
import os
import pwd
import stat
from pathlib import Path

from lender.service.places import make_folder

# Nobody who has one of these gets any further (nologin(8), false(1)).
_NO_SHELLS = frozenset({"nologin", "false"})


class PrivilegeError(Exception):
    """Started as root without a user to become."""


def drop_to(user: str | None) -> tuple[int, int] | None:
    """Return the uid and gid to become; None when this process is no root.

    Raises:
        PrivilegeError: root, and `user` is missing, unknown or root itself.
    """
    if os.geteuid() != 0:
        return None
    if user is None:
        raise PrivilegeError(
            "lenderd does not run work as root: start it as an ordinary user, or set "
            "`user` (LENDERD_USER) to the one that it is to become"
        )
    try:
        entry = pwd.getpwnam(user)
    except KeyError as error:
        raise PrivilegeError(f"no user {user!r} on this machine") from error
    if entry.pw_uid == 0:
        raise PrivilegeError(f"{user} is root: choose an ordinary user")
    return entry.pw_uid, entry.pw_gid


def check_dedicated(user: str | None) -> None:
    """See that a user may count as one that nothing but lenderd runs as.

    Raises:
        PrivilegeError: this process is no root, or somebody can log in as that user: all that they
            run would be killed.
    """
    if user is None or os.geteuid() != 0:
        raise PrivilegeError("`user_is_dedicated` is for a lenderd that root starts as `user`")
    shell = pwd.getpwnam(user).pw_shell
    if Path(shell).name not in _NO_SHELLS:
        raise PrivilegeError(
            f"{user} can log in (its shell is {shell or 'the usual one'}), so more than lenderd "
            "may run as it: make an account for lenderd alone, or unset `user_is_dedicated`"
        )


def become(ids: tuple[int, int], state: Path) -> None:
    """Give the state folder and all folders below it to the user, and become it, for good.

    So are the files of folders that were root's alone until now: a grant that root wrote before
    the first start. All others are left alone: a hard link among them could name anything.
    """
    uid, gid = ids
    make_folder(state, 0o711)
    # By descriptor: the user may swap a folder for a link under our hands.
    for _, _, files, folder in os.fwalk(state):
        if _is_roots_alone(os.fstat(folder)):
            for name in files:
                _give(name, folder, uid, gid)
        os.fchown(folder, uid, gid)
    os.setgroups(_kept_groups(uid))
    os.setgid(gid)
    os.setuid(uid)


def become_owner_of(state: Path) -> None:
    """As root, turn into the owner of an existing state folder for good.

    What another user writes there can then point root at nobody's processes.
    """
    found = state.stat()
    if os.geteuid() == 0 and found.st_uid != 0:
        os.setgroups([])
        os.setgid(found.st_gid)
        os.setuid(found.st_uid)


def _is_roots_alone(found: os.stat_result) -> bool:
    return found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _give(name: str, folder: int, uid: int, gid: int) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(name, flags, dir_fd=folder)
    except OSError:
        return  # a link, or a socket
    try:
        found = os.fstat(file)
        if stat.S_ISREG(found.st_mode) and found.st_uid == 0 and found.st_nlink == 1:
            os.fchown(file, uid, gid)
    finally:
        os.close(file)


def _kept_groups(uid: int) -> list[int]:
    """Return `input` for its members: whether somebody types is seen in its devices.

    The launcher and its sandboxes drop every group.
    """
    try:
        devices = grp.getgrnam("input")
        return [devices.gr_gid] if pwd.getpwuid(uid).pw_name in devices.gr_mem else []
    except KeyError:
        return []
