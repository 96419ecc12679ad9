"""How much of each job was done here, on the disk: a restart forgets no job that was worked off."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lender.core.jobs_done import KEPT_MAX, JobDone

log = logging.getLogger(__name__)

_LINE: Final = re.compile(rb"([0-9a-f]{32}) ([0-9]{1,18}) ([0-9]{1,18})")
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class JobsDoneFile:
    """One line for each lease that was let go; the last of a job counts.

    A full file takes the place of the one before it, so the two together hold at least the last
    `lines_max` jobs, and never more than twice as many lines. Written without fsync: it outlives
    a killed lenderd; a power cut forgets the last seconds, and nobody outside can cause one.
    """

    def __init__(self, path: Path, lines_max: int = KEPT_MAX) -> None:
        """Open the file at `path`, and make it where there is none.

        Raises:
            OSError: that can't be done.
        """
        self._path = path
        self._before = path.with_name(f"{path.name}.before")
        self._lines_max = lines_max
        self._lines = len(_lines_of(path))
        self._file = os.open(path, _FLAGS, 0o600)

    def read(self) -> Iterator[JobDone]:
        """Yield what is kept, oldest first; a line that was cut off or damaged is left out."""
        for line in (*_lines_of(self._before), *_lines_of(self._path)):
            if found := _LINE.fullmatch(line):
                yield JobDone(found[1].decode(), int(found[2]), int(found[3]))

    def append(self, done: JobDone) -> None:
        """Keep how much of a job was done; where the disk is full, this lenderd still knows it."""
        try:
            os.write(self._file, f"{done.key} {done.taken} {done.run}\n".encode())
            self._lines += 1
            if self._lines >= self._lines_max:
                self._begin_anew()
        except OSError as error:
            log.error("what was done of a job is not on the disk: %s", error)  # noqa: TRY400

    def close(self) -> None:
        """Write no more."""
        os.close(self._file)

    def _begin_anew(self) -> None:
        self._path.replace(self._before)
        file = os.open(self._path, _FLAGS, 0o600)
        os.close(self._file)
        self._file, self._lines = file, 0


def _lines_of(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
