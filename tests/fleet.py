"""Fixtures: whole fleets of real processes on this machine."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.fleet import Fleet


@pytest.fixture
def fleet_folder() -> Iterator[Path]:
    """A folder that the lenders' ordinary user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="lender-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def fleet(fleet_folder: Path) -> Iterator[Fleet]:
    """A broker with its NATS server and two lenders whose owners granted everything."""
    with Fleet(fleet_folder, ("desk", "attic")) as running:
        yield running
