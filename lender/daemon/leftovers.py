"""Clears what a killed daemon left: sandboxes that still stand, their scratch and their records."""

import logging
from pathlib import Path

from lender.daemon.signal_history import BLOCK_S
from lender.sandbox.files import scratch
from lender.sandbox.processes import cgroup, stopping
from lender.state.attempt_records import AttemptRecord, AttemptRecords
from lender.state.closing_receipts import closing_receipt
from lender.state.folder import StateFolder
from lender.state.receipts import ReceiptLog

log = logging.getLogger(__name__)

_UNSEEN_S = 2 * BLOCK_S
"""A lenderd that lives writes its next block of readings sooner than this."""


def clear(state: StateFolder, receipts: ReceiptLog, now: float) -> None:
    """Kill, account and wipe; called before anything new is started.

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
        cpu_s[record.lease] = cgroup.cpu_s(record.cgroup) if record.cgroup else 0.0
        report = stopping.kill((record,))
        if report.processes:
            log.warning("lease %s: killed %d leftover processes", record.lease, report.processes)
    last_seen = _last_seen(state, now)
    # Who was killed between a receipt and the removal of the record has written it last.
    known = {one.get("lease") for one in receipts.read_back()} if reading.records else set()
    for record in reading.records:
        try:
            if record.lease not in known:
                written_at = records.written_at(record.lease) or now
                used_s = cpu_s[record.lease]
                receipts.append(_receipt(record, written_at, last_seen, now, used_s))
        except OSError as error:
            log.warning("lease %s: its receipt can't be written: %s", record.lease, error)
        else:
            records.remove(record.lease)
    for left in state.scratch.iterdir():
        scratch.remove(left)


def _receipt(
    record: AttemptRecord, written_at: float, last_seen: float, now: float, cpu_s: float
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
    )


def _last_seen(state: StateFolder, now: float) -> float:
    """No later than this the earlier lenderd died: else its next block of readings were there.

    A machine that lay without power for days is not to be charged for them.
    """
    blocks = [path.stat().st_mtime for path in (state.path / "signals").glob("*.signals")]
    return min(now, max(blocks) + _UNSEEN_S) if blocks else now
