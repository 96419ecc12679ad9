"""Clears what a killed daemon left: sandboxes that still stand, their scratch and their records."""

import logging

from lender.daemon.attempt_records import AttemptRecords
from lender.daemon.state import StateFolder
from lender.sandbox import scratch, tree

log = logging.getLogger(__name__)


def clear(state: StateFolder) -> None:
    """Kill and wipe; called before anything new is started.

    The launcher takes its sandboxes along when the daemon dies, so there is usually nothing to
    kill; a record says what to look for all the same.
    """
    records = AttemptRecords(state.attempts)
    reading = records.read_all()
    for path in reading.unreadable:
        log.warning("%s can't be read; what it named died with its launcher", path)
        path.unlink()
    for record in reading.records:
        report = tree.kill(record.roots)
        if report.processes:
            log.warning("lease %s: killed %d leftover processes", record.lease, report.processes)
        records.remove(record.lease)
    for left in state.scratch.iterdir():
        scratch.remove(left)
