"""What a lender's machine keeps whatever is killed: consent, intent, and reports not answered."""

from dataclasses import dataclass, field
from typing import NamedTuple

from lender.core.consent import Consent, Grant, Intent
from lender.core.jobs_done import JobDone


class Spooled(NamedTuple):
    """One report: number `number` of a submitter's lease, as encoded bytes."""

    submitter: str
    lease: str
    number: int
    payload: bytes


class DiskFullError(Exception):
    """No space left."""


@dataclass
class Disk:
    """Files, as far as they decide anything."""

    grants: dict[str, Grant] = field(default_factory=dict)
    issued: dict[str, Grant] = field(default_factory=dict)
    """All that ever were."""
    tombstones: dict[str, None] = field(default_factory=dict)
    intent: Intent = field(default_factory=Intent)
    spool: dict[tuple[str, int], Spooled] = field(default_factory=dict)
    blobs: dict[str, None] = field(default_factory=dict)
    """Large programs that were fetched."""
    jobs_done: dict[str, JobDone] = field(default_factory=dict)
    full: bool = False
    marks: int = 0
    """Changes with every word of the owner's."""

    @property
    def consent(self) -> Consent:
        """What grants and tombstones say."""
        return Consent(tuple(self.grants.values()), frozenset(self.tombstones))

    def keep_grant(self, grant: Grant) -> None:
        """Store a grant."""
        self._check()
        self.grants[grant.id] = self.issued[grant.id] = grant

    def withdraw(self, ids: list[str]) -> None:
        """Write tombstones; where there is no room for them, remove the grants."""
        self.marks += 1
        for id_ in ids:
            if self.full:
                self.grants.pop(id_, None)
            else:
                self.tombstones[id_] = None

    def keep_intent(self, intent: Intent) -> None:
        """Store the owner's word."""
        self._check()
        self.intent = intent

    def keep_job_done(self, done: JobDone) -> None:
        """Keep how much of a job was done; where there is no room, it is forgotten at the end."""
        if not self.full:
            self.jobs_done[done.key] = done

    def put(self, report: Spooled) -> None:
        """Spool a report."""
        if self.full:
            raise DiskFullError
        self.spool[report.lease, report.number] = report

    def pending(self) -> list[Spooled]:
        """Return what is spooled, each lease's in order."""
        return sorted(self.spool.values())

    def purge(self, submitter: str) -> None:
        """Delete all reports of a submitter."""
        kept = {key: one for key, one in self.spool.items() if one.submitter != submitter}
        self.spool = kept

    def _check(self) -> None:
        if self.full:
            raise DiskFullError
        self.marks += 1
