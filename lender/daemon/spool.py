"""Reports that the broker has not answered yet, as files: a restarted daemon sends them again."""

import contextlib
import os
import re
from dataclasses import dataclass

from lender.daemon.deletion import delete_soon
from lender.state.durable import write_whole
from lender.state.folder import StateFolder
from lender.state.grant_file import SUBMITTER_PATTERN


@dataclass(frozen=True, slots=True)
class Spooled:
    """One report: number `number` of a submitter's lease, as encoded bytes."""

    submitter: str
    lease: str
    number: int
    payload: bytes


class Spool:
    """A folder for each submitter, with one file per report.

    Written without fsync: it outlives a killed process; a power cut costs running the tasks again.
    """

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._folder = os.fspath(state.spool)

    def put(self, report: Spooled) -> None:
        """Keep `report` until `remove`.

        Raises:
            OSError: it could not be written.
        """
        path = self._path(report)
        try:
            write_whole(path, report.payload, durable=False)
        except FileNotFoundError:  # the submitter's first, or the folder was just purged
            self._state.reports(report.submitter).mkdir(mode=0o700, exist_ok=True)
            write_whole(path, report.payload, durable=False)

    def remove(self, report: Spooled) -> None:
        """Forget a report that was answered."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(report))  # noqa: PTH108 - for each lease: a path costs more

    def purge(self, submitter: str) -> None:
        """Delete all reports of a submitter."""
        delete_soon(self._state.reports(submitter))

    def pending(self) -> list[Spooled]:
        """Return what an earlier process left unanswered, each lease's in order."""
        found = []
        # What is being deleted has a name of its own kind, and may be gone while it is looked at.
        for path in sorted(self._state.spool.glob("[!.]*/*.report")):
            submitter = path.parent.name
            lease, _, number = path.stem.rpartition("-")
            if re.fullmatch(SUBMITTER_PATTERN, submitter) and lease and number.isdecimal():
                found.append(Spooled(submitter, lease, int(number), path.read_bytes()))
        return found

    def _path(self, report: Spooled) -> str:
        name = f"{report.lease}-{report.number:06d}.report"
        return f"{self._folder}/{report.submitter}/{name}"
