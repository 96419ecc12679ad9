"""Reports that the broker has not answered yet, as files: a restarted daemon sends them again."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Spooled:
    """One report: number `number` of a lease, as encoded bytes."""

    lease: str
    number: int
    payload: bytes


class Spool:
    """A folder with one file per report.

    Written without fsync: it outlives a killed process; a power cut costs running the tasks again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, report: Spooled) -> None:
        """Keep `report` until `remove`."""
        path = self._path(report.lease, report.number)
        draft = path.with_suffix(".new")
        draft.write_bytes(report.payload)
        draft.replace(path)

    def remove(self, lease: str, number: int) -> None:
        """Forget a report that was answered."""
        self._path(lease, number).unlink(missing_ok=True)

    def pending(self) -> list[Spooled]:
        """Return what an earlier process left unanswered, each lease's in order."""
        found = []
        for path in sorted(self._folder.glob("*.report")):
            lease, _, number = path.stem.rpartition("-")
            if lease and number.isdecimal():
                found.append(Spooled(lease, int(number), path.read_bytes()))
        return found

    def _path(self, lease: str, number: int) -> Path:
        return self._folder / f"{lease}-{number:06d}.report"
