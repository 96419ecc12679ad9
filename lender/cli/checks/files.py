"""The state folder, the grants in it, and the log of what ran."""

import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lender.cli.checks.check import Check
from lender.cli.proposals import found
from lender.cli.words import printable
from lender.state.consent_files import load_consent, read_intent
from lender.state.folder import StateFolder
from lender.state.receipts import ReceiptLog

_OF_NETWORKS: Final = re.compile(
    r"nfs4?|cifs|smb3|afs|ceph|lustre|9p|fuse\.(sshfs|glusterfs|rclone)"
)
"""Types of file systems that other machines have as well, as Linux calls them."""
_LOCAL_MEND: Final = "set `state` in lenderd.toml to a folder on a disk of this machine, mode 0711"


def state_folder(state: StateFolder) -> Iterator[Check]:
    """Only its owner may write there."""
    if not state.path.exists():
        mend = "lender grant makes it; name another one with --state"
        yield Check("state", "blocker", f"no lender at {state.path}", mend)
        return
    status = state.path.stat()
    if status.st_mode & 0o022:
        yield Check(
            "state.mode", "blocker", f"others can write {state.path}", f"chmod 711 {state.path}"
        )
    private = (state.grants, state.tombstones, state.attempts, state.scratch, state.identity)
    exposed = [p for p in private if p.exists() and stat.S_IMODE(p.stat().st_mode) & 0o077]
    for path in exposed:
        yield Check("state.mode", "warning", f"others can reach {path}", f"chmod go= {path}")
    strange = [p for p in private if p.exists() and p.stat().st_uid not in (0, status.st_uid)]
    for path in strange:
        mend = f"chown {status.st_uid} {path}"
        yield Check("state.owner", "warning", f"{path} belongs to someone else", mend)
    if not exposed and not strange and not status.st_mode & 0o022:
        yield Check("state", "ok", f"{state.path} is private to uid {status.st_uid}")


def shared(state: StateFolder, mounts: Path = Path("/proc/self/mountinfo")) -> Iterator[Check]:
    """Whether other machines have the same state folder, as with a home on a file server.

    Args:
        state: of the lenderd.
        mounts: what is mounted here (proc(5)); where there is no such file, nothing is said.
    """
    if not mounts.is_file():
        return
    place, kind = state.path.resolve(), ""
    for line in mounts.read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda met: chr(int(met[1], 8)), before.split(" ")[4])
        # Of those above it the last one that was mounted counts, the innermost.
        if place.is_relative_to(point):
            kind = after.split(" ")[0]
    if _OF_NETWORKS.fullmatch(kind):
        text = (
            f"{state.path} is on a file server ({kind}): machines that have it, too, share one "
            "identity and what is granted"
        )
        yield Check("state.shared", "warning", text, _LOCAL_MEND)


def consent(state: StateFolder) -> Iterator[Check]:
    """Grants that count, files that do not, the owner's last word."""
    reading = load_consent(state)
    for fault in reading.ignored:
        mend = "grant again, or mend the file"
        yield Check("consent.ignored", "warning", printable(f"{fault.path} {fault.reason}"), mend)
    if reading.ban:
        yield Check(
            "consent.ban", "blocker", f"every grant counts as withdrawn: {reading.ban}",
            f"look into {state.tombstones}",
        )  # fmt: skip
    held = len(reading.consent.valid(time.time()))
    if held:
        yield Check("consent", "ok", f"grants that hold: {held}")
    else:
        mend = (
            "lender grant; what is proposed to you: lender grants"
            if found(state)
            else "lender grant"
        )
        yield Check("consent", "blocker", "nothing is granted, so nothing runs", mend)
    if read_intent(state).holds(time.time()):
        yield Check("intent", "info", "lending is paused", "lender resume")


def receipts(state: StateFolder) -> Iterator[Check]:
    """Whether the chain of receipts is whole."""
    findings = ReceiptLog(state.receipts).verify()
    if findings:
        text = f"the log of what ran was changed: {findings[0].text}"
        yield Check("receipts", "warning", text, "lender log --verify")
    else:
        yield Check("receipts", "ok", "the log of what ran is as it was written")
