"""Clears what a killed daemon left: sandboxes that still stand, their scratch and their records."""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from lender.daemon.cpu_counter import total_s
from lender.daemon.signal_history import BLOCK_S
from lender.sandbox.files import scratch
from lender.sandbox.processes import stopping, tree
from lender.state.attempt_records import AttemptRecord, AttemptRecords
from lender.state.closing_receipts import closing_receipt
from lender.state.folder import StateFolder, read_account, read_pid
from lender.state.moved_bytes import MovedBytes, forget_moved, moved_by
from lender.state.purge import kept_submitters
from lender.state.receipts import ReceiptLog

log = logging.getLogger(__name__)

_UNSEEN_S = 2 * BLOCK_S
"""A lenderd that lives writes its next block of readings sooner than this."""


def clear(
    state: StateFolder,
    receipts: ReceiptLog,
    now: float,
    counted_s: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Kill, account and wipe; called before anything new is started.

    Args:
        state: the folder of the lenderd that died.
        receipts: its log.
        now: seconds since the epoch.
        counted_s: CPU time that the kernel counted, by the name of the cgroup: it was read before
            those were removed.

    The launcher takes its sandboxes along when the daemon dies, so there is usually nothing to
    kill; a record says what to look for all the same. A record whose receipt can't be written
    stays for the next start.
    """
    records = AttemptRecords(state.attempts)
    reading = records.read_all()
    for path in reading.unreadable:
        log.warning("%s can't be read; what it named died with its launcher", path)
        Path(path).unlink()
    cpu_s: dict[str, float] = {}
    for record in reading.records:
        leaf = Path(record.cgroup).name if record.cgroup else ""
        # What is still there can be asked itself: who was stopped, say, along with its launcher.
        stands = bool(record.cgroup) or stopping.alive(record)
        cpu_s[record.lease] = counted_s.get(leaf) or (total_s(record) if stands else 0.0)
        report = stopping.kill((record,))
        if report.processes:
            told, about = (record.lease, report.processes), _ids(record)
            log.warning("lease %s: killed %d leftover processes", *told, extra=about)
    last_seen = _last_seen(state, now)
    # Who was killed between a receipt and the removal of the record has written it last.
    known = {one.get("lease") for one in receipts.read_back()} if reading.records else set()
    for record in reading.records:
        try:
            if record.lease not in known:
                written_at = records.written_at(record.lease) or now
                used_s = cpu_s[record.lease]
                moved = moved_by(state, record)
                receipts.append(_receipt(record, written_at, last_seen, now, used_s, moved))
        except OSError as error:
            told_, about = (record.lease, error), _ids(record)
            log.warning("lease %s: its receipt can't be written: %s", *told_, extra=about)
        else:
            records.remove(record.lease)
    forget_moved(state, records.read_all().records)
    opened = [state.opened(one) for one in kept_submitters(state)]
    for left in (*state.scratch.iterdir(), *filter(Path.is_dir, opened)):
        scratch.remove(left)


def end(state: StateFolder) -> bool:
    """Kill what a lenderd that is gone has left; the next one accounts for it and wipes it.

    Does nothing while a lenderd serves the folder, or where there never was one.

    Returns:
        Whether nothing is left, by the kernel's word.
    """
    if not state.attempts.is_dir() or read_pid(state) is not None:
        return True
    tree.enclose(read_account(state))
    reading = AttemptRecords(state.attempts).read_all()
    report = stopping.kill(reading.records)
    log.info("leftovers: %d processes killed", report.processes)
    for path in reading.unreadable:
        log.warning("%s can't be read: what it names may be left", path)
    if report.remaining:
        log.error("leftovers: these processes could not be ended: %s", report.remaining)
    return report.verified and not reading.unreadable


def _ids(record: AttemptRecord) -> dict[str, object]:
    return {"job": record.job, "lease": record.lease}


def _receipt(
    record: AttemptRecord,
    written_at: float,
    last_seen: float,
    now: float,
    cpu_s: float,
    moved: MovedBytes | None,
) -> dict[str, object]:
    # One that wrote no reading since the attempt began tells nothing about its end.
    began_at = max(written_at, record.terms.started_at if record.terms else 0.0)
    return closing_receipt(
        record,
        "lost",
        "lenderd died",
        written_at=written_at,
        ran_until=last_seen if last_seen > began_at else now,
        ended_at=now,
        cpu_s=cpu_s,
        moved=moved,
    )


def _last_seen(state: StateFolder, now: float) -> float:
    """No later than this the earlier lenderd died: else its next block of readings were there.

    A machine that lay without power for days is not to be charged for them.
    """
    blocks = [path.stat().st_mtime for path in (state.path / "signals").glob("*.signals")]
    return min(now, max(blocks) + _UNSEEN_S) if blocks else now
