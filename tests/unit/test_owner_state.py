"""The state folder's modes, the records of attempts, and which process lenderd is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lender.sandbox.processes.tree import Root, identify
from lender.state import attempt_records
from lender.state.attempt_records import AttemptRecord, AttemptRecords, AttemptTerms
from lender.state.folder import (
    SYSTEM_STATE,
    AlreadyRunningError,
    StateFolder,
    default_state_path,
    read_pid,
    write_pid,
)


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "a" / "state")
    made.create()
    return made


def test_only_the_way_to_the_socket_is_open(state: StateFolder) -> None:
    assert state.path.stat().st_mode & 0o777 == 0o711
    for folder in state.path.iterdir():
        assert folder.stat().st_mode & 0o777 == 0o700
    state.grants.chmod(0o777)
    state.create()
    assert state.grants.stat().st_mode & 0o777 == 0o700
    assert state.owner_uid() == os.geteuid()


def test_where_the_state_is_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LENDER_STATE", "/named")
    assert default_state_path() == "/named"
    monkeypatch.delenv("LENDER_STATE")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_state_path() == SYSTEM_STATE
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_state_path() == str(tmp_path / "lender")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_state_path() == str(tmp_path / ".local" / "state" / "lender")


def test_records_are_read_as_they_were_written(state: StateFolder) -> None:
    records = AttemptRecords(state.attempts)
    record = AttemptRecord(
        "L", "J", "U", "render", "G-1", (Root(1, 2), Root(3, 4)), str(str(state.scratch / "L"))
    )
    records.write(record)
    assert records.read_all().records == (record,)
    terms = AttemptTerms(1000.5, 4, 12, "ab" * 32, (("in.npz", "cd" * 32),), 2.5)
    for one in (
        terms,
        terms._replace(program_sha256=None, inputs=()),
        terms._replace(traceparent="00-1-2-01"),
    ):
        records.write(record._replace(terms=one))
        assert records.read_all().records == (record._replace(terms=one),)
    records.remove("L")
    records.remove("L")
    assert records.read_all().records == ()


def test_a_sandbox_that_changes_its_lease_while_the_records_are_read_is_found(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = AttemptRecords(state.attempts)
    record = AttemptRecord(
        "L1", "J", "U", "render", "G-1", (Root(1, 2),), str(state.scratch / "L1")
    )
    records.write(record)
    listed = attempt_records._listed

    def list_and_hand_over(folder: str) -> list[str]:
        found = listed(folder)
        records.write(record._replace(lease="L2"))
        records.remove("L1")
        return found

    monkeypatch.setattr(attempt_records, "_listed", list_and_hand_over)
    assert records.read_all().records == (record._replace(lease="L2"),)


def test_records_of_another_boot_name_no_process(state: StateFolder) -> None:
    records = AttemptRecords(state.attempts)
    records.write(AttemptRecord("L", "J", "U", "render", "G-1", (Root(1, 2),), "/s"))
    path = state.attempts / "L.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot_id": "other"}))
    assert records.read_all().records[0].roots == ()


def test_a_record_of_an_earlier_version_is_read(state: StateFolder) -> None:
    records = AttemptRecords(state.attempts)
    record = AttemptRecord("L", "J", "U", "render", "G-1", (Root(1, 2),), str(state.scratch / "L"))
    records.write(record)
    path = state.attempts / "L.json"
    content = json.loads(path.read_text())
    del content["terms"]
    path.write_text(json.dumps(content))
    assert records.read_all().records == (record,)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"roots": [[1]]}'])
def test_what_is_no_record_is_told_apart(state: StateFolder, content: str) -> None:
    (state.attempts / "x.json").write_text(content)
    (state.attempts / ".x.json.1.new").write_text("half")
    reading = AttemptRecords(state.attempts).read_all()
    assert reading.records == ()
    assert reading.unreadable == (str(state.attempts / "x.json"),)


def test_no_folder_means_no_attempt(tmp_path: Path) -> None:
    assert AttemptRecords(tmp_path / "none").read_all().records == ()


HOLD = """
import sys
from pathlib import Path
from lender.state.folder import StateFolder, write_pid
file = write_pid(StateFolder(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


def test_one_lenderd_per_state_folder_and_none_after_its_death(state: StateFolder) -> None:
    assert read_pid(state) is None
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(state.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert read_pid(state) == identify(holder.pid)
        with pytest.raises(AlreadyRunningError):
            write_pid(state)
        assert read_pid(state) == identify(holder.pid)
        holder.kill()
    assert read_pid(state) is None
    file = write_pid(state)
    assert read_pid(state) == identify(os.getpid())
    file.close()


def test_a_pipe_in_the_place_of_the_pid_file_holds_nobody_up(state: StateFolder) -> None:
    os.mkfifo(state.pid_file)
    assert read_pid(state) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1, "start_time": 2}'])
def test_half_a_pid_file_names_nobody(state: StateFolder, content: str) -> None:
    state.pid_file.write_text(content)
    assert read_pid(state) is None
