"""lenderd as root: becomes the ordinary user that it was told, or refuses."""

import grp
import os
import pwd
from pathlib import Path


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


def become(ids: tuple[int, int], state: Path) -> None:
    """Give the state folder and all folders below it to the user, and become it, for good.

    Files are left alone: a hard link among them could name anything.
    """
    uid, gid = ids
    state.mkdir(parents=True, exist_ok=True)
    # By descriptor: the user may swap a folder for a link under our hands.
    for _, _, _, folder in os.fwalk(state):
        os.fchown(folder, uid, gid)
    os.setgroups(_kept_groups(uid))
    os.setgid(gid)
    os.setuid(uid)


def _kept_groups(uid: int) -> list[int]:
    """Return `input` for its members: whether somebody types is seen in its devices.

    The launcher and its sandboxes drop every group.
    """
    try:
        devices = grp.getgrnam("input")
        return [devices.gr_gid] if pwd.getpwuid(uid).pw_name in devices.gr_mem else []
    except KeyError:
        return []
