"""When the files of a task are looked at: by the clock, and by what its disk lost."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lender.sandbox.files.scratch import TooMuchError
from lender.sandbox.meters import disk
from lender.sandbox.meters.disk import DiskWatch

LIMIT = 1000


class Space(NamedTuple):
    f_bfree: int
    f_frsize: int = 1


class Machine:
    """A file system and what a task holds of it.

    Attributes:
        free_bytes: of the file system.
        used_bytes: by the task; None where there is more than is counted.
        looks: exact ones so far.
    """

    def __init__(self) -> None:
        self.free_bytes, self.used_bytes, self.looks = 1 << 40, 0, 0
        self.too_much = False
        self.watch = DiskWatch(Path("/work"), LIMIT, self._measure)

    def write(self, size_bytes: int, *, by_others: bool = False) -> None:
        self.free_bytes -= size_bytes
        self.used_bytes += 0 if by_others else size_bytes

    def _measure(self) -> int:
        self.looks += 1
        if self.too_much:
            raise TooMuchError
        return self.used_bytes


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(os, "statvfs", lambda _folder: Space(made.free_bytes))
    monkeypatch.setattr(disk.time, "thread_time", lambda: 0.0)  # type: ignore[attr-defined] # imported there
    return made


def test_a_short_task_is_not_looked_at(machine: Machine) -> None:
    assert not machine.watch.exceeds(0.004)
    assert machine.looks == 0


def test_a_quiet_one_is_looked_at_ten_times_a_second(machine: Machine) -> None:
    for tick in range(1, 201):
        machine.write(1)
        assert not machine.watch.exceeds(tick * 0.005)
    assert machine.looks == 10


def test_more_than_its_room_lost_is_looked_at_at_once(machine: Machine) -> None:
    assert not machine.watch.exceeds(0.01)
    machine.write(600)
    assert not machine.watch.exceeds(0.02)
    machine.write(400)
    assert not machine.watch.exceeds(0.03), "just full"
    assert machine.looks == 1
    machine.write(1)
    assert machine.watch.exceeds(0.04)
    assert machine.looks == 2


def test_what_others_write_costs_a_look_and_ends_nobody(machine: Machine) -> None:
    assert not machine.watch.exceeds(0.01)
    machine.write(300)
    machine.write(2000, by_others=True)
    assert not machine.watch.exceeds(0.02)
    assert machine.looks == 2
    assert not machine.watch.exceeds(0.03)
    assert machine.looks == 2, "that is known now"
    machine.write(701)
    assert machine.watch.exceeds(0.04), "its room is what was left"


def test_who_frees_space_meanwhile_hides_a_task_for_a_tenth_of_a_second(machine: Machine) -> None:
    assert not machine.watch.exceeds(0.01)
    machine.write(LIMIT + 1)
    machine.write(-5000, by_others=True)
    assert not machine.watch.exceeds(0.02)
    assert machine.watch.exceeds(0.111)


def test_more_than_is_counted_is_too_much(machine: Machine) -> None:
    machine.too_much = True
    assert machine.watch.exceeds(0.01)


def test_a_file_system_that_does_not_tell_is_looked_at_by_the_clock(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_folder: str) -> None:
        raise OSError

    monkeypatch.setattr(os, "statvfs", fail)
    assert not machine.watch.exceeds(0.01)
    machine.write(LIMIT + 1)
    assert not machine.watch.exceeds(0.1)
    assert machine.watch.exceeds(0.12)


def test_a_rush_is_watched_closely_and_forgotten_when_it_is_over(machine: Machine) -> None:
    assert not machine.watch.exceeds(0.01)
    assert machine.watch.pause_s > 1
    machine.write(100)  # 10 ms for 100 bytes: 90 ms to its limit
    assert not machine.watch.exceeds(0.02)
    assert machine.watch.pause_s == pytest.approx(0.045)
    machine.write(800)
    assert not machine.watch.exceeds(0.03)
    assert machine.watch.pause_s == pytest.approx(0.002), "the least"
    for tick in range(40):
        assert not machine.watch.exceeds(0.04 + tick * 0.01)
    assert machine.watch.pause_s > 0.1


def test_a_look_that_takes_long_is_not_taken_all_the_time(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder of many files: 0.2 s each, every 0.4 s at most, every 0.8 s where it is quiet."""
    clock = iter(range(1000))
    monkeypatch.setattr(disk.time, "thread_time", lambda: next(clock) * 0.2)  # type: ignore[attr-defined] # imported there
    for tick in range(1, 166):
        machine.watch.exceeds(tick * 0.01)
    assert machine.looks == 3
    for tick in range(166, 326):
        machine.write(2000, by_others=True)
        machine.watch.exceeds(tick * 0.01)
    assert machine.looks <= 3 + 5


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """In a file system that counts at once."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("no /dev/shm")
    made = Path(f"/dev/shm/lender-{os.urandom(8).hex()}")
    made.mkdir()
    yield made
    for left in made.iterdir():
        left.unlink()
    made.rmdir()


@pytest.mark.parametrize("named", [True, False])
def test_a_real_file_system_tells_of_it(memory_folder: Path, *, named: bool) -> None:
    with (memory_folder / "big").open("w+b") as file:
        if not named:
            (memory_folder / "big").unlink()
        watch = DiskWatch(memory_folder, 1 << 20, lambda: os.fstat(file.fileno()).st_blocks * 512)
        assert not watch.exceeds(0.01)
        file.write(bytes(3 << 20))
        file.flush()
        assert watch.exceeds(0.011), "long before the clock says so"
