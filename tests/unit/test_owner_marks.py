"""Whatever decides whether the owner's words count is noticed without reading them."""

import os
from pathlib import Path

import pytest
from owner_machine import grant, until

from lender.state.consent_files import load_consent
from lender.state.folder import StateFolder
from lender.state.marks import marks


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "state")
    made.create()
    grant(made, "G-1")
    return made


def test_nothing_changes_while_nobody_does_anything(state: StateFolder) -> None:
    before = marks(state)
    load_consent(state)
    assert marks(state) == before


def test_the_mode_that_doctor_asks_for_is_noticed(state: StateFolder) -> None:
    (file,) = state.grants.glob("*.toml")
    file.chmod(0o666)
    assert load_consent(state).ignored
    before = marks(state)
    file.chmod(0o600)
    assert not load_consent(state).ignored
    assert marks(state) != before


def test_other_content_with_the_same_size_and_time_is_noticed(state: StateFolder) -> None:
    before = marks(state)
    (file,) = state.grants.glob("*.toml")

    def noticed() -> bool:
        status = file.stat()
        file.write_bytes(file.read_bytes()[::-1])
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        return marks(state) != before

    until(noticed, "a tick of the file system's clock later it is noticed")


def test_a_deleted_file_is_noticed(state: StateFolder) -> None:
    before = marks(state)
    (file,) = state.grants.glob("*.toml")
    file.unlink()
    assert marks(state) != before
