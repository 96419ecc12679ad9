"""Carries out a revocation with the owner's own hands: save, kill, wipe, tell, verify.

Standard library only; in this order so that whatever fails later, what came before holds.
"""

import contextlib
import re
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lender.cli.owner import tell
from lender.core.consent import Grant
from lender.daemon.attempt_records import AttemptRecord, AttemptRecords
from lender.daemon.consent_files import (
    GRANT_ID_PATTERN,
    load_consent,
    withdraw_grants,
    write_tombstones,
)
from lender.daemon.receipts import ReceiptLog
from lender.daemon.state import StateFolder, read_pid
from lender.sandbox import scratch, tree

_KILL_S = 5.0
_KILL_AGAIN_S = 1.0  # after a kill that ran into its bound
_WIPE_S = 1.0


@dataclass(frozen=True, slots=True)
class Selection:
    """What to withdraw; several restrictions narrow it."""

    everything: bool = False
    submitters: frozenset[str] | None = None
    workload: str | None = None
    grant: str | None = None

    def ends(self, grant: Grant) -> bool:
        """Whether this grant is among them."""
        return self._matches(grant.id, grant.submitter, grant.workload)

    def stops(self, attempt: AttemptRecord) -> bool:
        """Whether this attempt is, also where its grant's file is gone."""
        return self._matches(attempt.grant, attempt.submitter, attempt.workload)

    def _matches(self, grant: str, submitter: str, workload: str) -> bool:
        return self.everything or (
            self.grant in (None, grant)
            and (self.submitters is None or submitter in self.submitters)
            and self.workload in (None, workload)
        )


@dataclass(slots=True)
class Outcome:
    """What was done and what was verified.

    Attributes:
        grants: ids withdrawn.
        saved_at: when the withdrawal was durable, seconds since the epoch; 0 if it is not.
        not_saved: why no tombstone is durable; empty if they all are.
        set_aside: grants whose file was put out of the way instead.
        jobs: jobs that had a living process.
        processes: processes met in their trees.
        verified: none of them is left, by the kernel's word.
        remaining: process ids that are.
        doubt: why it can't be verified, where no process is known to be left.
        stopped_at: time of that verification.
        stopped_s: from the start of the verb until then.
        freed_bytes: disk space of the wiped scratch folders.
        scratch_left: folders that could not be wiped.
        daemon: what became of lenderd; `silent`: it neither answered nor could be killed.
    """

    grants: tuple[str, ...] = ()
    saved_at: float = 0.0
    not_saved: str = ""
    set_aside: tuple[str, ...] = ()
    jobs: int = 0
    processes: int = 0
    verified: bool = False
    remaining: tuple[int, ...] = ()
    doubt: str = ""
    stopped_at: float = 0.0
    stopped_s: float = 0.0
    freed_bytes: int = 0
    scratch_left: list[str] = field(default_factory=list)
    daemon: Literal["answered", "killed", "absent", "silent"] = "absent"

    @property
    def complete(self) -> bool:
        """Whether all of it was done, durable and verified."""
        done = self.verified and not self.scratch_left and self.daemon != "silent"
        return done and not self.not_saved

    def as_json(self) -> dict[str, Any]:
        """For `--json`; durations in milliseconds."""
        fields = asdict(self)
        fields["stopped_ms"] = round(fields.pop("stopped_s") * 1000, 3)
        return {**fields, "complete": self.complete}


def revoke(state: StateFolder, selection: Selection) -> Outcome:
    """End the selected grants and everything that runs under them. Raises nothing of its own."""
    outcome, started = Outcome(), time.monotonic()
    _withdraw(state, selection, outcome)
    attempts = _Attempts(state, selection)
    first = attempts.kill(outcome, _KILL_S)
    if first.verified:
        attempts.wipe(outcome)
    _tell(state, outcome, distrusted=attempts.unreadable)
    # Once more: what was being launched when the tombstones came has a record by now.
    last = attempts.kill(outcome, _KILL_S if first.verified else _KILL_AGAIN_S)
    outcome.processes = first.processes + last.processes
    outcome.remaining = last.remaining
    if attempts.unreadable and outcome.daemon != "killed":
        outcome.doubt = f"{attempts.unreadable[0]} can't be read: remove it"
    outcome.verified = last.verified and not outcome.doubt
    outcome.stopped_at, outcome.stopped_s = time.time(), time.monotonic() - started
    if last.verified:
        attempts.wipe(outcome)
        if outcome.daemon != "answered":
            attempts.account()
    return outcome


def _withdraw(state: StateFolder, selection: Selection, outcome: Outcome) -> None:
    """Make the withdrawal durable, with tombstones or, on a full disk, without the grants."""
    reading = load_consent(state)
    ids = {grant.id for grant in reading.consent.grants if selection.ends(grant)}
    # A faulty grant file might be mended later: its id is withdrawn too.
    faulty = {fault.path.stem for fault in reading.ignored if fault.path.suffix == ".toml"}
    ids |= faulty if selection.everything else faulty & {selection.grant}
    outcome.grants = tuple(sorted(i for i in ids if re.fullmatch(GRANT_ID_PATTERN, i)))
    try:
        write_tombstones(state, outcome.grants, time.time())
    except OSError as error:
        outcome.not_saved = error.strerror or str(error)
        with contextlib.suppress(OSError):
            outcome.set_aside = withdraw_grants(state, outcome.grants)
    else:
        outcome.saved_at = time.time()


class _Attempts:
    """The selected attempts, as their records come and go."""

    def __init__(self, state: StateFolder, selection: Selection) -> None:
        self._state = state
        self._records = AttemptRecords(state.attempts)
        self._selection = selection
        self._seen: dict[str, AttemptRecord] = {}
        self.unreadable: tuple[Path, ...] = ()

    def kill(self, outcome: Outcome, timeout_s: float) -> tree.StopReport:
        """Kill all that have a record now or had one before."""
        records: tuple[AttemptRecord, ...] = ()
        try:
            reading = self._records.read_all()
            records, self.unreadable = reading.records, reading.unreadable
        except OSError:
            self.unreadable = (self._state.attempts,)
        fresh = {r.lease: r for r in records if self._selection.stops(r)}
        alive = {r.job for r in fresh.values() if any(tree.alive(root) for root in r.roots)}
        outcome.jobs += len(alive)
        self._seen |= fresh
        roots = [root for record in self._seen.values() for root in record.roots]
        return tree.kill(roots, timeout_s)

    def wipe(self, outcome: Outcome) -> None:
        """Delete their scratch folders, once they are dead."""
        outcome.scratch_left = []
        for record in self._seen.values():
            folder = record.scratch
            if folder.parent != self._state.scratch or folder.name in (".", ".."):
                outcome.scratch_left.append(f"{folder} (not below {self._state.scratch})")
                continue
            freed_bytes, fault = _delete(folder)
            outcome.freed_bytes += freed_bytes
            if fault:
                outcome.scratch_left.append(f"{folder} ({fault})")

    def account(self) -> None:
        """Without lenderd the receipts are ours to write; a full disk keeps them out."""
        log = ReceiptLog(self._state.receipts)
        for record in self._seen.values():
            with contextlib.suppress(OSError):
                if record.roots:
                    log.append(_receipt(record, time.time()))
                self._records.remove(record.lease)


def _tell(state: StateFolder, outcome: Outcome, *, distrusted: Iterable[Path]) -> None:
    """Have lenderd re-read the consent; end one that does not, and all that hangs below it.

    That closes the race with a launch that it had begun. A lenderd whose records can't be read
    is ended as well: nothing else would show what it runs.
    """
    told = tell(state, "reload")
    if told.outcome == "answered" and not distrusted:
        outcome.daemon = "answered"
        return
    try:
        daemon = read_pid(state)
    except OSError:
        daemon = None
    if daemon is not None:
        outcome.daemon = "killed" if tree.kill([daemon]).verified else "silent"
    elif told.outcome != "absent":
        outcome.daemon = "answered" if told.outcome == "answered" else "silent"


def _delete(folder: Path) -> tuple[int, str]:
    """Delete a scratch folder; return the disk space freed, and why something is left.

    A lenderd that lives deletes it as well: what vanishes under our hands is no fault.
    """
    freed_bytes, deadline = 0, time.monotonic() + _WIPE_S
    while True:
        try:
            if folder.is_symlink() or not folder.is_dir():
                folder.unlink()
            else:
                folder.chmod(0o700)
                with contextlib.suppress(scratch.TooMuchError):
                    freed_bytes = max(freed_bytes, scratch.used_bytes(folder))
                scratch.wipe(folder)
                folder.rmdir()
        except OSError as error:
            if isinstance(error, FileNotFoundError) and str(error.filename) == str(folder):
                return freed_bytes, ""
            if time.monotonic() > deadline:
                return 0, error.strerror or str(error)
            time.sleep(0.01)


def _receipt(record: AttemptRecord, now: float) -> dict[str, Any]:
    return {
        "lease": record.lease,
        "job": record.job,
        "submitter": record.submitter,
        "workload": record.workload,
        "grant": record.grant,
        "outcome": "revoked",
        "ended": "you revoked, lenderd was not there",
        "ended_at": now,
    }
