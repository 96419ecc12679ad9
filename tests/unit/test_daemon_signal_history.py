"""Readings are kept for days in a few bytes each, and never cost lenderd more than a warning."""

import os
import resource
import zlib
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest

from lender.core.comfort import Comfort
from lender.core.policy import Limits, Policy, Threshold
from lender.core.signals import GpuSignal, Presence, Signals
from lender.daemon import signal_history
from lender.daemon.signal_history import BLOCK_S, FILES_MAX, ROWS_PER_BLOCK, SignalHistory
from lender.daemon.signal_rows import BlockError, Row, pack, unpack

START = 1_700_000_000.0
MIB = 1 << 20
CALM = Signals(0.5, 4096 * MIB)
FULL = Signals(
    cpu_others=1.25,
    memory_available_bytes=1024 * MIB,
    swap_in_bytes_per_s=128.0 * 1024,
    pressure_cpu=12.3,
    pressure_memory=0.0,
    pressure_io=99.9,
    gpus=(
        GpuSignal("a", 4096 * MIB, use_others=0.1),
        GpuSignal("b", 512 * MIB, use_others=0.62, carries_lent=True),
    ),
    temperature_c=61.0,
    temperature_limit_c=95.0,
    throttled=True,
    on_battery=True,
    battery=0.42,
    presence=Presence(840.0, True, True, 2, ("mutter",)),
    inhibited_by="Mozilla Firefox",
    game=True,
    exclusive_app="blender",
    metered=True,
    utc_offset_s=-3600,
    joules_per_cpu_s=8.0,
)


def seconds(count: int, signals: Signals = CALM) -> list[Row]:
    return [(START + at, signals) for at in range(count)]


def recorded(folder: Path, rows: list[Row], days: int = 7) -> SignalHistory:
    history = SignalHistory(folder, days)
    for now, signals in rows:
        history.record(now, signals)
    history.close()
    return history


def test_what_the_policy_reads_comes_back() -> None:
    kept = replace(
        FULL,
        gpus=(GpuSignal("", 512 * MIB, use_others=0.62),),
        presence=replace(FULL.presence, sources=()),
        inhibited_by="something",
        exclusive_app="something",
        joules_per_cpu_s=0.0,
    )
    rows = [(START, FULL), (START + 1.5, CALM), (START + 0.5, FULL)]
    assert unpack(pack(rows)) == [(START, kept), (START + 1.5, CALM), (START + 0.5, kept)]


def test_no_name_of_a_program_is_kept() -> None:
    assert b"Firefox" not in zlib.decompress(pack([(START, FULL)]))
    assert unpack(pack([(START, FULL)]))[0][1].inhibited_by == "something"


@pytest.mark.parametrize(
    "block", [b"", b"no block", pack([(START, CALM)])[:-1], zlib.compress(b"\x93")]
)
def test_what_is_no_block_is_refused(block: bytes) -> None:
    with pytest.raises(BlockError):
        unpack(block)


def test_a_block_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lender.daemon.signal_rows.VERSION", 3)
    newer = pack([(START, CALM)])
    monkeypatch.undo()
    with pytest.raises(BlockError, match="version 3"):
        unpack(newer)


def test_readings_from_before_gpu_memory_was_kept_still_count() -> None:
    version, columns = msgpack.unpackb(zlib.decompress(pack([(START, FULL)])))
    assert version == 2
    older = zlib.compress(msgpack.packb([1, columns[:-1]]))
    ((_, signals),) = unpack(older)
    assert signals.gpus[0].use_others == 0.62
    watchful = Limits(vram_kept_bytes=Threshold(1 << 40, 1 << 41))
    verdict = Comfort(Policy(watchful, watchful), 4.0)
    verdict.sampled(START, replace(signals, on_battery=False))
    assert verdict.verdict.gpu_work, "what was not read asks for nothing"


def test_history_reads_back_since_a_time(tmp_path: Path) -> None:
    history = recorded(tmp_path / "signals", seconds(150))
    found = [now - START for now, _ in history.read(START + 100)]
    assert found == list(range(100, 150))
    assert not list(SignalHistory(tmp_path / "none").read(0))


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    recorded(tmp_path / "signals", seconds(1))
    (file,) = (tmp_path / "signals").iterdir()
    assert (tmp_path / "signals").stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_killed_lenderd_loses_at_most_a_block(tmp_path: Path) -> None:
    history = SignalHistory(tmp_path / "signals")
    for now, signals in seconds(ROWS_PER_BLOCK + 5):
        history.record(now, signals)
    assert len(list(history.read(0))) == ROWS_PER_BLOCK
    slow = SignalHistory(tmp_path / "slow")
    for at in (0.0, 10.0, BLOCK_S):
        slow.record(START + at, CALM)
    assert len(list(slow.read(0))) == 3


def test_a_torn_tail_is_left_out_and_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    folder = tmp_path / "signals"
    recorded(folder, seconds(60))
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    for torn in (b"\x40", b"\x40\x00\x01\x02\x03\x04half", bytes(64)):
        file.write_bytes(whole + torn)
        assert len(list(SignalHistory(folder).read(0))) == 60
    recorded(folder, [(START + 100, CALM)])
    assert len(list(SignalHistory(folder).read(0))) == 61
    assert len(list(folder.iterdir())) == 1


def test_a_block_that_is_not_understood_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "signals"
    monkeypatch.setattr("lender.daemon.signal_rows.VERSION", 3)
    recorded(folder, seconds(60))
    monkeypatch.undo()
    recorded(folder, [(START + 100, CALM)])
    assert [now for now, _ in SignalHistory(folder).read(0)] == [START + 100]


def test_it_stays_bounded_and_the_oldest_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal_history, "FILE_BYTES_MAX", 400)
    folder = tmp_path / "signals"
    history = recorded(folder, seconds(60 * 100))
    assert len(list(folder.iterdir())) == FILES_MAX
    assert sum(file.stat().st_size for file in folder.iterdir()) <= FILES_MAX * 400
    found = [now for now, _ in history.read(0)]
    assert found[-1] == START + 60 * 100 - 1
    assert found == sorted(found)
    assert found[0] > START


def test_old_files_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal_history, "FILE_BYTES_MAX", 400)
    folder = tmp_path / "signals"
    recorded(folder, seconds(600))
    for file in folder.iterdir():
        os.utime(file, (0, 0))
    history = recorded(folder, seconds(600))
    assert not [now for now, _ in history.read(0) if now < START]
    assert all(file.stat().st_mtime > 0 for file in folder.iterdir())


def test_an_owner_who_wants_no_history_has_none(tmp_path: Path) -> None:
    folder = tmp_path / "signals"
    recorded(folder, seconds(60))
    recorded(folder, seconds(120), days=0)
    assert list(folder.iterdir()) == []


def test_a_disk_that_takes_only_a_part_is_told_and_recording_goes_on_after_it(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "signals"
    history = recorded(folder, seconds(60))
    (file,) = folder.iterdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (0, 10):
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + room, limits[1]))
        try:
            for now, signals in seconds(60):
                history.record(now + 60, signals)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "readings are not recorded" in history.fault
    for now, signals in seconds(60):
        history.record(now + 120, signals)
    assert history.fault == ""
    assert len(list(history.read(0))) == 120


def test_a_file_that_is_rotated_away_while_somebody_reads_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal_history, "FILE_BYTES_MAX", 400)
    folder = tmp_path / "signals"
    history = recorded(folder, seconds(600))
    reading = history.read(0)
    next(reading)
    for file in sorted(folder.iterdir())[1:]:
        file.unlink()
    assert 0 < len(list(reading)) < 600


def test_what_cannot_be_deleted_is_told(tmp_path: Path) -> None:
    (tmp_path / "1.signals").mkdir()
    assert "can't be deleted" in recorded(tmp_path, seconds(2), days=0).fault


def test_a_folder_that_cannot_be_made_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    history = recorded(tmp_path / "file" / "signals", seconds(1))
    assert "Not a directory" in history.fault
    off = recorded(tmp_path / "file" / "signals", seconds(1), days=0)
    assert off.fault == ""


def test_a_sensor_that_tells_no_number_is_no_failure(tmp_path: Path) -> None:
    history = recorded(tmp_path / "signals", [(START, replace(CALM, cpu_others=float("nan")))])
    assert "not recorded" in history.fault
    history.record(START + 1, CALM)
    history.close()
    assert history.fault == ""
