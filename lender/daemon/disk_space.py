"""Reads the disk that working folders lie on, and which large inputs are kept there."""

import shutil
from pathlib import Path

from lender.core.events import DiskSampled
from lender.daemon.inputs import InputCache


class DiskSpace:
    """One state folder's disk.

    Attributes:
        inputs: what is kept of jobs' inputs; None before there is a connection to fetch any.
    """

    def __init__(self, scratch: Path) -> None:
        self.inputs: InputCache | None = None
        self._scratch = scratch

    def read(self) -> DiskSampled:
        """Take a reading; some microseconds, a few milliseconds beside 100,000 inputs."""
        blobs = self.inputs.largest() if self.inputs is not None else ()
        return DiskSampled(shutil.disk_usage(self._scratch).free, blobs)
