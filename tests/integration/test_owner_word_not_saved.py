"""On a disk that takes nothing more lenderd still obeys, and every verb says just that."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from fleet import StandingFleet
from owner_machine import AS_STRANGER, STRANGER_UID

from deploy.local.fleet import Lender, wait_until
from lender.state.folder import StateFolder, read_pid

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    with StandingFleet("desk") as fleet:
        yield fleet


@pytest.fixture
def desk(standing: StandingFleet) -> Iterator[Lender]:
    """A machine that works."""
    fleet = standing.in_order()
    desk = fleet.lenders["desk"]
    fleet.submit("submit", "--no-wait", "--", "sleep", "60")
    wait_until(desk.busy, "the task runs")
    yield desk
    for file in desk.state.glob("*/in-the-way"):
        shutil.rmtree(file.parent)
    for file in desk.state.glob(".*/in-the-way"):
        shutil.rmtree(file.parent)


def stand_in_the_way(desk: Lender, name: str = "intent.json") -> None:
    """Put a folder where a file is to be written."""
    place = desk.state / name
    place.unlink(missing_ok=True)
    place.mkdir()
    (place / "in-the-way").touch()


def test_the_owner_reads_that_it_is_paused_and_what_is_at_fault(desk: Lender) -> None:
    stand_in_the_way(desk)
    done = desk.owner("pause")
    assert done.returncode == 6
    assert "stand still, verified" in done.stdout
    assert "could not be saved" in done.stdout
    assert "lenderd reports a fault: lenderd could not pause" in done.stdout
    assert "no answer" not in done.stdout
    assert "not paused" not in done.stdout
    assert desk.status()["phase"] == "paused"


def test_a_drain_is_in_force_and_waits_for_nobody_to_wake(desk: Lender) -> None:
    stand_in_the_way(desk)
    done = desk.owner("drain", "--deadline", "10m")
    assert done.returncode == 6
    assert "nothing new is taken; 1 job may go on" in done.stdout
    assert "lenderd reports a fault" in done.stdout
    assert "wakes" not in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_stranger_is_not_told_that_nothing_was_paused(desk: Lender) -> None:
    for folder in desk.state.parents:
        folder.chmod(folder.stat().st_mode | 0o001)
    lenderd = read_pid(StateFolder(desk.state))
    assert lenderd is not None
    stand_in_the_way(desk, f".intent.json.{lenderd.pid}.new")
    # lenderd itself may run as that one here.
    code = AS_STRANGER.replace(str(STRANGER_UID), str(STRANGER_UID - 1))
    command = [sys.executable, "-c", code, "--state", str(desk.state), "pause"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 6, done.stderr
    assert "did not pause" not in done.stderr
    assert "! lenderd is paused" in done.stdout
    assert desk.status()["phase"] == "paused"
