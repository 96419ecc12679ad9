"""The macOS side of freeze and kill, over a libproc that answers from this machine's /proc."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from libproc_stand_in import PAGE_BYTES, LinuxLibproc, stat_of

from lender.sandbox.processes import libproc, table, tree

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the stand-in for libproc reads /proc"
)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> LinuxLibproc:
    found = LinuxLibproc()
    monkeypatch.setattr(table, "_processes", libproc.Processes(found, os.geteuid))
    return found


@pytest.fixture
def family(tmp_path: Path) -> Iterator[tree.Root]:
    """A process with a child, both ignoring what can be ignored."""
    code = (
        "import os, signal, threading, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "os.fork()\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        f"open({str(tmp_path)!r} + f'/{{os.getpid()}}', 'w')\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        deadline = time.monotonic() + 20
        while len(list(tmp_path.iterdir())) < 2:
            assert time.monotonic() < deadline, "they start"
            time.sleep(0.01)
        yield tree.identify(process.pid)
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def states(tmp_path: Path) -> list[str]:
    found = [stat_of(int(one.name)) for one in tmp_path.iterdir()]
    return ["gone" if one is None or one[0] in "ZX" else one[0] for one in found]


def test_a_tree_is_frozen_thawed_and_killed(
    library: LinuxLibproc, family: tree.Root, tmp_path: Path
) -> None:
    assert tree.alive(family)
    assert len(tree.members([family])) == 2
    report = tree.freeze([family])
    assert (report.verified, report.processes) == (True, 2)
    assert states(tmp_path) == ["T", "T"]
    assert tree.stopped(family)
    assert tree.thaw([family]).verified
    assert "T" not in states(tmp_path)
    report = tree.kill([family])
    assert (report.verified, report.processes) == (True, 2)
    assert states(tmp_path) == ["gone", "gone"]
    assert not tree.alive(family)
    wanted = (4, os.geteuid()) if os.geteuid() else (1, 0)
    assert set(library.listed) == {wanted}


def test_a_stopped_process_with_a_thread_on_the_processor_is_not_called_still(
    library: LinuxLibproc, family: tree.Root
) -> None:
    assert tree.freeze([family]).verified
    library.still_running.add(family.pid)
    report = tree.freeze([family], timeout_s=0.05)
    assert (report.verified, report.remaining) == (False, (family.pid,))


def test_a_later_process_with_the_same_id_is_somebody_else(
    library: LinuxLibproc, family: tree.Root
) -> None:
    assert library is not None
    later = tree.Root(family.pid, family.start_time + 1)
    assert not tree.alive(later)
    assert tree.kill([later]).processes == 0
    assert tree.alive(family)


def test_processes_that_start_while_they_are_listed_are_listed(library: LinuxLibproc) -> None:
    library.late_pids = 500
    assert os.getpid() in libproc.Processes(library, os.geteuid).pids()


def test_of_another_user_only_theirs_are_listed(library: LinuxLibproc) -> None:
    found = libproc.Processes(library, os.geteuid).pids(os.geteuid())
    assert os.getpid() in found
    assert library.listed[-1] == (4, os.geteuid())


def test_a_list_that_is_refused_is_no_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    library = LinuxLibproc()
    monkeypatch.setattr(library, "proc_listpids", lambda *_: 0)
    with pytest.raises(OSError, match="lists no processes"):
        libproc.Processes(library, os.geteuid).pids()


def test_the_footprint_is_the_kernels_own_measure() -> None:
    processes = libproc.Processes(LinuxLibproc(), os.geteuid)
    held_bytes = processes.footprint_bytes(os.getpid())
    assert held_bytes > 1000 * PAGE_BYTES
    assert held_bytes % PAGE_BYTES == 0
    assert processes.footprint_bytes(2**22 + 1) == 0


def test_processor_time_is_counted_in_the_ticks_of_the_machine() -> None:
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    used_s = libproc.Processes(LinuxLibproc(), os.geteuid).cpu_s(os.getpid())
    slower = libproc.Processes(LinuxLibproc(), os.geteuid, tick_ns=125 / 3)
    assert 0.1 <= used_s <= time.process_time() + 0.1
    assert slower.cpu_s(os.getpid()) > used_s * 41
    assert slower.cpu_s(2**22 + 1) == 0.0


def test_elsewhere_it_does_nothing() -> None:
    assert table._processes is None
    with pytest.raises(OSError, match="libproc"):
        libproc.load()
