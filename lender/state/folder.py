"""The state folder: where a lender keeps consent, identity, running attempts and receipts.

Standard library only: `lender pause` and `lender revoke` read it without the daemon. pathlib alone
is a sixth of what such a command takes (`make bench-startup`): their way goes by plain names.

The folder itself has mode 0711 and the control socket 0666, so that anyone local can reach the
socket to pause; everything else in it is 0700 or 0600, so that they reach nothing more.
"""

import contextlib
import fcntl
import json
import os
from io import TextIOWrapper
from typing import TYPE_CHECKING

from lender.sandbox.processes.account import Account
from lender.sandbox.processes.boot import boot_id
from lender.sandbox.processes.tree import Root, alive, identify
from lender.service.places import make_folder, state_home

if TYPE_CHECKING:  # loads with the first `Path` that somebody asks for
    from pathlib import Path

SYSTEM_STATE = "/var/lib/lender"
"""The state folder of a lenderd that root started."""

ATTEMPTS = "attempts"
CONTROL_SOCKET = "control.sock"
INTENT = "intent.json"
PID_FILE = "lenderd.pid"


# A record may lie in another user's folder, who writes there what they like.
_NO_RECORD = (ValueError, KeyError, TypeError, ArithmeticError, RecursionError)


class AlreadyRunningError(Exception):
    """Another lenderd serves this state folder."""


class StateFolder:
    """Names of everything under one state folder; nothing is made before `create`.

    Attributes:
        name: its path.
    """

    def __init__(self, path: "Path | str") -> None:
        self.name = os.fspath(path)

    def inside(self, name: str) -> str:
        """Return the plain path of one of its entries."""
        return f"{self.name}/{name}"

    @property
    def path(self) -> "Path":
        """The folder. Not on the way of a pause: root may have become who can't read pathlib."""
        from pathlib import Path  # noqa: PLC0415 - 8 ms

        return Path(self.name)

    @property
    def grants(self) -> "Path":
        """One TOML file per grant; only the owner's `lender grant` writes here."""
        return self.path / "grants"

    @property
    def tombstones(self) -> "Path":
        """One file per revoked grant, named by its id; that it exists is what counts."""
        return self.path / "tombstones"

    def tombstone(self, grant_id: str) -> "Path":
        """What, when it exists, ends this grant: looked at right before a program starts."""
        return self.tombstones / grant_id

    @property
    def intent(self) -> "Path":
        """The owner's last word: paused or not."""
        return self.path / INTENT

    @property
    def attempts(self) -> "Path":
        """One JSON file per sandbox that stands."""
        return self.path / ATTEMPTS

    @property
    def spool(self) -> "Path":
        """Reports that the broker has not answered, a folder for each submitter."""
        return self.path / "spool"

    @property
    def metrics(self) -> "Path":
        """What was counted for those who watch this machine; only where its owner lets them."""
        return self.path / "metrics.json"

    @property
    def jobs_done(self) -> "Path":
        """How much of each job was done here, by digests of their names."""
        return self.path / "jobs-done"

    @property
    def receipts(self) -> "Path":
        """The hash-chained log of what ran."""
        return self.path / "receipts.jsonl"

    @property
    def scratch(self) -> "Path":
        """One folder per lease."""
        return self.path / "scratch"

    @property
    def cache(self) -> "Path":
        """What is kept of submitters to run their next job sooner, a folder for each of them."""
        return self.path / "cache"

    def inputs(self, submitter: str) -> "Path":
        """A submitter's blobs by their SHA-256."""
        return self.cache / submitter / "sha256"

    def opened(self, submitter: str) -> "Path":
        """What was sealed of a submitter's inputs, a folder for each lease; while it is held."""
        return self.cache / submitter / "opened"

    def modules(self, submitter: str) -> "Path":
        """A submitter's compiled wasm modules; native code of our own making, so private."""
        return self.cache / submitter / "modules"

    def reports(self, submitter: str) -> "Path":
        """A submitter's results that the broker has not answered."""
        return self.spool / submitter

    @property
    def identity(self) -> "Path":
        """The lender's own nkey seed."""
        return self.path / "identity.nk"

    @property
    def home_key(self) -> "Path":
        """What commands of the owner's home automation are signed by."""
        return self.path / "home-key"

    @property
    def membership(self) -> "Path":
        """What lets the lender into its fleet, as `lender enroll` has left it."""
        return self.path / "fleet"

    @property
    def control_socket(self) -> "Path":
        """Where lenderd listens for the owner's verbs."""
        return self.path / CONTROL_SOCKET

    @property
    def pid_file(self) -> "Path":
        """Which process lenderd is, for a revoke that must end it."""
        return self.path / PID_FILE

    def create(self) -> None:
        """Make what is missing and set the modes of all folders.

        Raises:
            OSError: the path can't be made or belongs to someone else.
        """
        make_folder(self.path, 0o711)
        self.path.chmod(0o711)
        private = (self.grants, self.tombstones, self.attempts, self.scratch)
        for folder in (*private, self.spool, self.cache):
            make_folder(folder)
            folder.chmod(0o700)
        self._clear_old_layout()

    def _clear_old_layout(self) -> None:
        """Delete what version 0.1 kept of all submitters together; it can be had again."""
        old = [self.cache / "sha256", self.cache / "modules", *self.spool.glob("*.report")]
        for left in old:
            with contextlib.suppress(FileNotFoundError):
                from lender.sandbox.files import scratch  # noqa: PLC0415 - costs every other verb 3 ms

                scratch.remove(left)

    def owner_uid(self) -> int:
        """Who owns this machine's lending: the user that the folder belongs to.

        Raises:
            OSError: there is no such folder.
        """
        return os.stat(self.name).st_uid


def default_state_path() -> str:
    """`$LENDER_STATE`; /var/lib/lender for root; else `$XDG_STATE_HOME/lender` or its default.

    Raises:
        NoHomeError: the last of these needs one.
    """
    named = os.environ.get("LENDER_STATE")
    if named:
        return named
    if os.geteuid() == 0:
        return SYSTEM_STATE
    return f"{state_home()}/lender"


def write_pid(state: StateFolder, account: Account | None = None) -> TextIOWrapper:
    """Record the calling process as the lenderd of `state`; keep the returned file open.

    Its lock ends with the process, so a second lenderd on the same folder is told at once.

    Args:
        state: its folder.
        account: the one that nothing else runs under, if it has such.

    Raises:
        AlreadyRunningError: another process holds the lock.
        OSError: the file can't be written.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.fdopen(os.open(state.pid_file, flags, 0o600), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise AlreadyRunningError(f"another lenderd serves {state.path}: stop it first") from error
    pid = os.getpid()
    file.truncate()
    record: dict[str, object] = {
        "pid": pid,
        "start_time": identify(pid).start_time,
        "boot_id": boot_id(),
    }
    if account is not None:
        record["spared"] = account.spared
    file.write(json.dumps(record))
    file.flush()
    return file


def _read_now(path: str) -> bytes:
    """Read a small file, never waiting: in another user's folder it may be a pipe or a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def read_account(state: StateFolder) -> Account | None:
    """The account that nothing but the lenderd of `state` runs under, whether or not it is alive.

    None where it has none of its own. The folder belongs to that account: who acts on this must
    have become its owner.
    """
    try:
        record = json.loads(_read_now(state.inside(PID_FILE)))
        spared = tuple(Root(int(pid), int(start)) for pid, start in record["spared"])
        uid = state.owner_uid()
        return Account(uid, spared) if uid else None
    except (OSError, *_NO_RECORD):
        return None


def read_pid(state: StateFolder) -> Root | None:
    """The lenderd of `state`, or None: none was recorded, or that process is gone.

    Raises:
        OSError: the record is there but can't be read.
    """
    try:
        record = json.loads(_read_now(state.inside(PID_FILE)))
        root = Root(int(record["pid"]), int(record["start_time"]))
        recorded_boot = record["boot_id"]
    except FileNotFoundError:
        return None
    except _NO_RECORD:
        return None  # only ever half written by a lenderd that died while starting
    return root if recorded_boot == boot_id() and alive(root) else None
