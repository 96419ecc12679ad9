"""`lenderd --end-leftovers`, as its unit calls it once lenderd is gone."""

import subprocess
import sys
from pathlib import Path

from owner_machine import Machine, grant, machine

from lender.sandbox.processes import tree

__all__ = ["machine"]

LENDERD = Path(sys.executable).with_name("lenderd")


def end_leftovers(machine: Machine) -> subprocess.CompletedProcess[str]:
    command = [str(LENDERD), "--end-leftovers", "--state", str(machine.state.path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def test_it_spares_what_a_living_lenderd_runs_and_kills_what_a_dead_one_left(
    machine: Machine,
) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    daemon = machine.daemon()
    assert end_leftovers(machine).returncode == 0
    assert all(map(tree.alive, record.roots))
    daemon.kill()
    daemon.wait()
    done = end_leftovers(machine)
    assert done.returncode == 0, done.stderr
    assert not any(map(tree.alive, record.roots))
    assert list(machine.state.attempts.iterdir()), "the next lenderd accounts for it"


def test_where_nothing_ever_ran_it_makes_nothing(tmp_path: Path) -> None:
    command = [str(LENDERD), "--end-leftovers", "--state", str(tmp_path / "none")]
    subprocess.run(command, check=True, timeout=90, capture_output=True)
    assert not (tmp_path / "none").exists()
