"""Which state folder a verb means, and which other lenderds are alive on this machine.

The kernel lists every listening socket with the path it was bound to, for everybody (proc(5),
/proc/net/unix). So a lenderd is found wherever its folder is, and one that was killed leaves
nothing behind. The list is a hint: a folder counts as alive by its own lock, or because its socket
takes a connection, and a folder of another user is never chosen over one of ours. Where the
kernel has no such list (macOS), and in another network namespace, only the usual folders are known.

Standard library only, and little of it: this is part of every `lender pause`, and goes by plain
names (see `lender.state.folder`).
"""

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from lender.cli.exits import CommandError, Exit
from lender.daemon.socket_address import connected
from lender.service.places import NoHomeError, configuration_home
from lender.state.folder import (
    CONTROL_SOCKET,
    SYSTEM_STATE,
    StateFolder,
    default_state_path,
    read_pid,
)

_LISTED = "/proc/net/unix"
_LISTENS = 0x10000  # linux/net.h, __SO_ACCEPTCON
_SOCKET = f"/{CONTROL_SOCKET}"


class Other(NamedTuple):
    """A lenderd that is alive and was not meant.

    Attributes:
        path: its state folder.
        uid: whom it belongs to; None: out of this user's reach.
    """

    path: str
    uid: int | None


class Choice(NamedTuple):
    """A state folder, whether or not it exists, and whether the owner named it."""

    state: StateFolder
    named: bool

    def others(self) -> list[Other]:
        """Return the lenderds that the owner might have meant instead.

        Of other users only while nobody serves this folder: then theirs may be the one.
        """
        served = serves(self.state)
        if self.named and served:
            return []
        mine = served and _is_ours(self.state.name)
        return [
            Other(path, _uid(path))
            for path in _alive()
            if path != self.state.name and (not mine or _is_ours(path) or path == SYSTEM_STATE)
        ]


def choose(named: str | None, *, as_guest: bool = False) -> Choice:
    """Return what was named, here or by $LENDER_STATE, else where a lenderd of ours is alive.

    The machine's own (`SYSTEM_STATE`) counts as ours. Where none is alive it is the folder that
    lenderd would serve if it were started.

    Args:
        named: by an option.
        as_guest: the verb is one that anyone may use: without a lender of ours, another user's.

    Raises:
        CommandError: nothing is named or alive, and this user has no usual folder.
    """
    if named is not None or os.environ.get("LENDER_STATE"):
        return Choice(StateFolder(_absolute(named or default_state_path())), named=True)
    default = _usual()
    if default is not None and serves(StateFolder(default)):
        return Choice(StateFolder(default), named=False)
    alive = [path for path in _alive() if _uid(path) is not None]
    ours = [path for path in alive if _is_ours(path)]
    system = [path for path in alive if path == SYSTEM_STATE]
    usual = filter(None, (default, SYSTEM_STATE))
    known = filter(None, [configured_state_path(), *filter(os.path.exists, usual)])
    found = [*ours, *system, *known, *(alive if as_guest else ())]
    try:
        path = found[0] if found else default_state_path()
    except NoHomeError as error:
        raise CommandError(Exit.USAGE, str(error)) from error
    return Choice(StateFolder(_absolute(path)), named=False)


def serves(state: StateFolder) -> bool:
    """Whether a lenderd is alive on this folder, also one that is stopped or has no socket."""
    with contextlib.suppress(OSError):  # what a stranger may not read
        if read_pid(state) is not None:
            return True
    try:
        with connected(state.inside(CONTROL_SOCKET), 0):
            return True
    except BlockingIOError:
        return True  # so busy that its queue is full
    except OSError:
        return False


def configured_state_path() -> str | None:
    """Return what lenderd was told: `$LENDERD_STATE`, else `state` in its lenderd.toml, if any.

    The file is the one that `lender.service.settings.find_file` finds.
    """
    if named := os.environ.get("LENDERD_STATE"):
        return named
    try:
        file = f"{configuration_home()}/lender/lenderd.toml"
    except NoHomeError:
        return None
    if not os.path.isfile(file):
        return None  # or root's own, and root has become the owner
    import tomllib  # noqa: PLC0415 - 5 ms, for those who have such a file and no lenderd

    try:
        with open(file, "rb") as content:
            told = tomllib.load(content).get("state")
    except (OSError, ValueError, RecursionError):
        return None  # lenderd does not start with it either
    return told if isinstance(told, str) else None


def _alive() -> list[str]:
    """State folders of living lenderds, and such that only the kernel tells of."""
    known = {*filter(None, [_usual()]), SYSTEM_STATE}
    try:
        with open(_LISTED, "rb") as file:
            listed = set(_listed(file.read()))
    except OSError:
        listed = set(filter(None, [configured_state_path()]))
    reached = {path for path in known | listed if _uid(path) is not None}
    hidden = {path for path in listed - reached if _is_hidden(path)}
    return sorted(hidden | {path for path in reached if serves(StateFolder(path))})


def _usual() -> str | None:
    """The folder that lenderd would serve without another word, if this user has such a place."""
    try:
        return _absolute(default_state_path())
    except NoHomeError:
        return None


def _listed(text: bytes) -> Iterator[str]:
    """Folders of listening sockets that are named as a lenderd's."""
    for line in os.fsdecode(text).split("\n"):
        if not line.endswith(_SOCKET):
            continue
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7].startswith("/") and int(fields[3], 16) & _LISTENS:
            yield fields[7].removesuffix(_SOCKET)


def _absolute(path: str) -> str:
    path = path.rstrip("/") or "/"
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def _is_ours(path: str) -> bool:
    """Whether it belongs to this user, or to the one who became root by sudo."""
    ours = {os.geteuid()}
    if os.geteuid() == 0:
        with contextlib.suppress(KeyError, ValueError):
            ours.add(int(os.environ["SUDO_UID"]))
    return _uid(path) in ours


def _uid(path: str) -> int | None:
    try:
        return os.stat(path).st_uid
    except OSError:
        return None


def _is_hidden(path: str) -> bool:
    try:
        os.stat(path)
    except PermissionError:
        return True
    except OSError:
        pass
    return False
