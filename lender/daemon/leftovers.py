"""Clears what a killed daemon left: sandboxes that still stand, their scratch and their records."""

import logging
from typing import Any

from lender.sandbox import scratch, stopping
from lender.state.attempt_records import AttemptRecord, AttemptRecords
from lender.state.folder import StateFolder
from lender.state.receipts import ReceiptLog

log = logging.getLogger(__name__)


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
        path.unlink()
    for record in reading.records:
        report = stopping.kill((record,))
        if report.processes:
            log.warning("lease %s: killed %d leftover processes", record.lease, report.processes)
    _account(state, records, reading.records, receipts, now)
    for left in state.scratch.iterdir():
        scratch.remove(left)


def _account(
    state: StateFolder,
    records: AttemptRecords,
    left: tuple[AttemptRecord, ...],
    receipts: ReceiptLog,
    now: float,
) -> None:
    """Write a receipt of each attempt that was lost, unless it has one."""
    # Who was killed between a receipt and the removal of the record has written it last.
    known = {receipt.get("lease") for receipt in receipts.read_back()} if left else set()
    for record in left:
        try:
            if record.lease not in known:
                receipts.append(_receipt(state, record, now))
        except OSError as error:
            log.warning("lease %s: its receipt can't be written: %s", record.lease, error)
        else:
            records.remove(record.lease)


def _receipt(state: StateFolder, record: AttemptRecord, now: float) -> dict[str, Any]:
    """What is still known of it: its record was written right before it started."""
    try:
        started_at = (state.attempts / f"{record.lease}.json").stat().st_mtime
    except OSError:
        started_at = now
    return {
        "lease": record.lease,
        "job": record.job,
        "submitter": record.submitter,
        "workload": record.workload,
        "grant": record.grant,
        "outcome": "lost",
        "ended": "lenderd died",
        "started_at": started_at,
        "ended_at": now,
    }
