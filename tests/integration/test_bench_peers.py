"""bench/peers with the one peer that is always there: it measures, and leaves nothing behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from bench import rows
from bench.peers import guest, measures
from bench.peers.guest import Guest
from bench.peers.known import Known

BRIEF = measures.Effort(tasks_s=0.05, idle_s=0.05, trips=3, limit_s=30.0)


def test_a_pool_of_processes_is_measured(tmp_path: Path) -> None:
    with Guest(Known("ProcessPoolExecutor", "pool"), tmp_path / "pool") as one:
        one.ask("start", 30.0)
        found = {finding.measure: finding for finding in measures.all_of(one, BRIEF)}
        workers = guest.family(one.ask("processes", 30.0)["workers"])
        assert len(workers) == 2
    assert not one.folder.exists()
    assert not any(worker.is_running() for worker in workers)
    assert found["no-op tasks"].value > 0
    assert found["no-op tasks, many to a message"].unit == "1/s"
    assert found["idle round trip, p50"].value <= found["idle round trip, p99"].value
    assert found["idle memory, workers"].value > 0


def test_what_ran_before_a_guest_goes_on_after_it(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "100"]) as bystander:
        try:
            with Guest(Known("ProcessPoolExecutor", "pool"), tmp_path / "pool"):
                pass
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_ctrl_c_ends_every_process_and_folder(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "bench.peers", "--only", "process", "--runs", "1000"]
    program = (
        "import runpy, sys, pathlib; from bench import rows; "
        f"rows.write.__kwdefaults__['folder'] = pathlib.Path({str(tmp_path / 'rows')!r}); "
        f"sys.argv = {argv[2:]!r}; runpy.run_module('bench.peers', run_name='__main__')"
    )
    runner = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=rows.ROOT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    below: list[psutil.Process] = []
    end = time.monotonic() + 30
    while len(below) < 3 and time.monotonic() < end:  # the host and its pool
        below = psutil.Process(runner.pid).children(recursive=True)
        time.sleep(0.01)
    assert len(below) >= 3
    runner.send_signal(signal.SIGINT)
    said, _ = runner.communicate(timeout=40)
    assert "ended; rows so far" in said
    assert not any(one.is_running() for one in below)
    assert not list(tmp_path.glob("bench-*"))
    assert rows.read(tmp_path / "rows" / "peers.json").bench == "peers"
