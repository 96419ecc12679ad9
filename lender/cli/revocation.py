"""Carries out a revocation with the owner's own hands: withdraw, kill, save, tell, verify, wipe.

Standard library only; in this order so that whatever fails later, what came before holds. All
stands still before a file is touched. The tombstones count for every reader before the first kill;
that they outlive a power cut is seen to after it, because on a busy disk that takes seconds.
"""

import contextlib
import time
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from lender.cli.owner import tell
from lender.sandbox.processes import account, cgroup, stopping, tree
from lender.state.attempt_records import AttemptRecord, AttemptRecords
from lender.state.closing_receipts import closing_receipt
from lender.state.folder import StateFolder, read_account, read_pid
from lender.state.moved_bytes import forget_moved, moved_by
from lender.state.purge import remove
from lender.state.receipts import ReceiptLog
from lender.state.withdrawal import Selection, Withdrawal, forget, save, withdraw

_KILL_S = 5.0
_RECENT = 1000  # receipts that are looked at for one of ours
_KILL_AGAIN_S = 1.0  # after a kill that ran into its bound


@dataclass(slots=True)
class Outcome:
    """What was done and what was verified.

    Attributes:
        grants: ids withdrawn.
        unclear: files of grants that don't count and don't say whose they are: withdrawn too.
        not_withdrawn: what may hold a grant and was not withdrawn, and why.
        saved_at: when the withdrawal was durable, seconds since the epoch; 0 if it is not.
        not_saved: why no tombstone is durable; empty if they all are.
        set_aside: grants whose file was put out of the way instead.
        jobs: jobs that had a living process.
        processes: processes met in their trees.
        killed_s: from the start of the verb until all were dead; None: not verified at once.
        verified: none of them is left, by the kernel's word.
        remaining: process ids that are.
        doubt: why it can't be verified, where no process is known to be left.
        stopped_at: time of that verification, after lenderd was told.
        stopped_s: from the start of the verb until then.
        freed_bytes: disk space of the wiped scratch folders.
        scratch_left: folders that could not be wiped.
        purged_bytes: disk space of deleted inputs, compiled modules and results.
        purge_left: what of them could not be deleted.
        daemon: what became of lenderd; `silent`: it neither answered nor could be killed.
        daemon_reason: why it was not left alive.
    """

    grants: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()
    not_withdrawn: tuple[str, ...] = ()
    saved_at: float = 0.0
    not_saved: str = ""
    set_aside: tuple[str, ...] = ()
    jobs: int = 0
    processes: int = 0
    killed_s: float | None = None
    verified: bool = False
    remaining: tuple[int, ...] = ()
    doubt: str = ""
    stopped_at: float = 0.0
    stopped_s: float = 0.0
    freed_bytes: int = 0
    scratch_left: list[str] = field(default_factory=list)
    purged_bytes: int = 0
    purge_left: list[str] = field(default_factory=list)
    daemon: Literal["answered", "killed", "absent", "silent"] = "absent"
    daemon_reason: str = ""

    def take(self, withdrawal: Withdrawal) -> None:
        """Have it say what became of the grants."""
        self.grants, self.unclear = withdrawal.grants, withdrawal.unclear
        self.not_withdrawn, self.not_saved = withdrawal.not_withdrawn, withdrawal.not_saved
        self.set_aside = withdrawal.set_aside

    @property
    def complete(self) -> bool:
        """Whether all of it was done, durable and verified."""
        left = self.scratch_left or self.purge_left or self.not_saved or self.not_withdrawn
        return self.verified and not left and self.daemon != "silent"

    def as_json(self) -> dict[str, Any]:
        """For `--json`; durations in milliseconds."""
        fields = asdict(self)
        fields["stopped_ms"] = _ms(fields.pop("stopped_s"))
        fields["killed_ms"] = _ms(fields.pop("killed_s"))
        return {**fields, "complete": self.complete}


def revoke(state: StateFolder, selection: Selection) -> Outcome:
    """End the selected grants and everything that runs under them. Raises nothing of its own."""
    outcome, started = Outcome(), time.monotonic()
    tree.enclose(read_account(state))
    attempts = _Attempts(state, selection)
    attempts.freeze()
    withdrawal = withdraw(state, selection, time.time())
    first = attempts.kill(outcome, _KILL_S)
    if first.verified:
        outcome.killed_s = time.monotonic() - started
    outcome.take(saved := save(state, withdrawal))
    outcome.saved_at = 0.0 if saved.not_saved else time.time()
    _tell(state, outcome, attempts.unreadable)
    # Once more: what was being launched when the tombstones came has a record by now.
    last = attempts.kill(outcome, _KILL_S if first.verified else _KILL_AGAIN_S)
    if not last.verified and selection.everything and tree.is_enclosed():
        # One call for all that runs as this user, lenderd with it: nobody forks away from that.
        account.end_everything()
        outcome.daemon, outcome.daemon_reason = "killed", "sandboxes did not end"
        last = attempts.kill(outcome, _KILL_S)
    outcome.processes = first.processes + last.processes
    outcome.remaining = last.remaining
    if attempts.unreadable and outcome.daemon != "killed":
        outcome.doubt = f"{attempts.unreadable[0]} can't be read: remove it"
    outcome.verified = last.verified and not outcome.doubt
    outcome.stopped_at, outcome.stopped_s = time.time(), time.monotonic() - started
    if last.verified:
        attempts.wipe(outcome)
        whose = withdrawal.submitters | attempts.submitters
        outcome.purged_bytes, outcome.purge_left = forget(state, selection, whose, time.time())
        if outcome.daemon != "answered":
            attempts.account()
    return outcome


class _Attempts:
    """The selected attempts, as their records come and go."""

    def __init__(self, state: StateFolder, selection: Selection) -> None:
        self._state = state
        self._records = AttemptRecords(state.attempts)
        self._selection = selection
        self._seen: dict[str, AttemptRecord] = {}
        self._cpu_s: dict[str, float] = {}
        self.unreadable: tuple[str, ...] = ()

    @property
    def submitters(self) -> set[str]:
        """Whose they are."""
        return {record.submitter for record in self._seen.values()}

    def freeze(self) -> None:
        """Have all that is known stand still at once, without waiting for it."""
        stopping.freeze(self._fresh().values(), timeout_s=0)

    def kill(self, outcome: Outcome, timeout_s: float) -> tree.StopReport:
        """Kill all that have a record now or had one before."""
        fresh = self._fresh()
        outcome.jobs += len({r.job for r in fresh.values() if stopping.alive(r)})
        self._seen |= fresh
        for lease, record in self._seen.items():
            # Their cgroups go with them; one that is gone already counts as before.
            used_s = cgroup.cpu_s(record.cgroup) if record.cgroup else 0.0
            self._cpu_s[lease] = max(used_s, self._cpu_s.get(lease, 0.0))
        return stopping.kill(tuple(self._seen.values()), timeout_s)

    def _fresh(self) -> dict[str, AttemptRecord]:
        records: tuple[AttemptRecord, ...] = ()
        try:
            reading = self._records.read_all()
            records, self.unreadable = reading.records, reading.unreadable
        except OSError:
            self.unreadable = (str(self._state.attempts),)
        return {r.lease: r for r in records if self._selection.stops(r)}

    def wipe(self, outcome: Outcome) -> None:
        """Delete their scratch folders, once they are dead."""
        outcome.scratch_left = []
        for record in self._seen.values():
            folder = Path(record.scratch)
            if folder.parent != self._state.scratch or folder.name in (".", ".."):
                outcome.scratch_left.append(f"{folder} (not below {self._state.scratch})")
                continue
            for one in (folder, self._state.opened(record.submitter) / folder.name):
                freed_bytes, fault = remove(one)
                outcome.freed_bytes += freed_bytes
                if fault:
                    outcome.scratch_left.append(f"{one} ({fault})")

    def account(self) -> None:
        """Without lenderd the receipts are ours to write; a full disk keeps them out."""
        log = ReceiptLog(self._state.receipts)
        known: set[object] = set()
        with contextlib.suppress(OSError):
            # A lenderd that was ended just now may have written them already.
            known = {receipt.get("lease") for receipt in islice(log.read_back(), _RECENT)}
        for record in self._seen.values():
            with contextlib.suppress(OSError):
                if record.roots and record.lease not in known:
                    log.append(self._receipt(record, time.time()))
                self._records.remove(record.lease)
        with contextlib.suppress(OSError):
            forget_moved(self._state, self._records.read_all().records)

    def _receipt(self, record: AttemptRecord, now: float) -> dict[str, Any]:
        return closing_receipt(
            record,
            "revoked",
            "you revoked, lenderd was not there",
            written_at=self._records.written_at(record.lease) or now,
            ran_until=now,
            ended_at=now,
            cpu_s=self._cpu_s[record.lease],
            moved=moved_by(self._state, record),
        )


def _tell(state: StateFolder, outcome: Outcome, unreadable: tuple[str, ...]) -> None:
    """Have lenderd re-read the consent; end one that does not, and all that hangs below it.

    That closes the race with a launch that it had begun. A lenderd whose records can't be read
    is ended as well: nothing else would show what it runs.
    """
    told = tell(state, "reload")
    if told.outcome == "answered" and not unreadable:
        outcome.daemon = "answered"
        return
    outcome.daemon_reason = f"{unreadable[0]} can't be read" if unreadable else told.reason
    try:
        daemon = read_pid(state)
    except OSError:
        daemon = None
    if daemon is not None:
        outcome.daemon = "killed" if tree.kill([daemon]).verified else "silent"
    elif told.outcome != "absent":
        outcome.daemon = "answered" if told.outcome == "answered" else "silent"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
