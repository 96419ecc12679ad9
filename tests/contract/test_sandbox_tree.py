"""Freezing and killing whole trees of real processes, hostile ones among them."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lender.sandbox.processes import table, tree
from lender.sandbox.processes.tree import Root

_PR_SET_CHILD_SUBREAPER = 36
Start = Callable[[str], Root]

SPIN = "while True: pass"
IGNORES_TERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SPIN}"
HUNDRED = f"import os\nfor _ in range(99):\n    if os.fork() == 0: break\n{SPIN}"
# A chain of processes, each in a session of its own.
SETSID_CHAIN = f"import os\nfor _ in range(19):\n    if os.fork(): break\n    os.setsid()\n{SPIN}"
# Two children that wake each other whenever they can, and their parent.
WAKERS = """
import os, signal
first = os.fork()
if first == 0:
    while True: os.kill(os.getppid(), signal.SIGCONT)
second = os.fork()
while True:
    try: os.kill(first, signal.SIGCONT)
    except ProcessLookupError: pass
"""
# Its first thread is dead, another one computes.
DEAD_LEADER = f"""
import ctypes, threading
def work():
    {SPIN}
threading.Thread(target=work).start()
ctypes.CDLL(None).syscall(60 if __import__("platform").machine() == "x86_64" else 93, 0)
"""


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a Python program as the root of a tree of its own; nothing of it outlives the test."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    others = tree.children(os.getpid())
    started: list[subprocess.Popen[bytes]] = []

    def make(code: str) -> Root:
        process = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], start_new_session=True)
        started.append(process)
        return tree.identify(process.pid)

    yield make
    for process in started:
        process.kill()
        process.wait()
    adopted = tree.children(os.getpid()) - others
    tree.kill(adopted)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    for orphan in adopted:
        os.waitpid(orphan.pid, 0)


def wait_for_members(root: Root, count: int) -> tuple[Root, ...]:
    deadline = time.monotonic() + 20
    while len(found := tree.members([root])) < count:
        assert time.monotonic() < deadline, f"only {len(found)} of {count} processes"
        time.sleep(0.005)
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def handles(root: Root, number: signal.Signals) -> bool:
    status = Path(f"/proc/{root.pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def states(processes: tuple[Root, ...]) -> set[str]:
    found = set()
    for pid, _ in processes:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found.add((thread / "stat").read_text().rsplit(")", 1)[1].split()[0])
    return found


@pytest.mark.parametrize(
    ("code", "count"), [(SPIN, 1), (HUNDRED, 100), (SETSID_CHAIN, 20), (WAKERS, 3)]
)
def test_a_frozen_tree_stands_still_until_thawed(start: Start, code: str, count: int) -> None:
    root = start(code)
    wait_for_members(root, count)
    report = tree.freeze([root], timeout_s=20)
    assert (report.verified, report.remaining) == (True, ())
    frozen = tree.members([root])
    assert len(frozen) == report.processes == count
    assert states(frozen) == {"T"}
    time.sleep(0.05)  # whoever could wake another would have done it by now
    assert states(frozen) == {"T"}
    assert tree.stopped(root)
    assert tree.thaw([root]).verified
    assert not tree.stopped(root)


@pytest.mark.parametrize(
    ("code", "count"),
    [(SPIN, 1), (IGNORES_TERM, 1), (HUNDRED, 100), (SETSID_CHAIN, 20), (WAKERS, 3)],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_killed_tree_is_gone(start: Start, code: str, count: int, *, frozen: bool) -> None:
    root = start(code)
    met = wait_for_members(root, count)
    if frozen:
        assert tree.freeze([root], timeout_s=20).verified
    report = tree.kill([root], timeout_s=20)
    assert (report.verified, report.remaining) == (True, ())
    assert not any(tree.alive(process) for process in met)
    assert tree.members([root]) == ()


def test_a_double_fork_into_a_new_session_does_not_escape_the_next_sweep(start: Start) -> None:
    others = tree.children(os.getpid())
    root = start(
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork(): os._exit(0)\n"
        f"    {SPIN}\n"
        "os.wait()\n"
        f"{SPIN}"
    )
    # The orphan hangs below the next reaper, here the test, as below a namespace's init.
    deadline = time.monotonic() + 20
    while not (orphans := tree.children(os.getpid()) - others - {root}):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert tree.kill([root, *orphans]).verified
    assert not any(tree.alive(orphan) for orphan in orphans)


def test_threads_behind_a_dead_leader_are_seen(start: Start) -> None:
    root = start(DEAD_LEADER)
    deadline = time.monotonic() + 20
    while "Z" not in states((root,)):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert tree.alive(root), "its other thread computes"
    assert not tree.stopped(root)
    assert tree.freeze([root]).verified
    assert states((root,)) <= {"T", "Z"}
    assert tree.kill([root]).verified
    assert not tree.alive(root)


def test_a_process_that_only_has_the_same_id_is_left_alone(start: Start) -> None:
    root = start(SPIN)
    earlier = root._replace(start_time=root.start_time - 1)
    assert not tree.alive(earlier)
    assert tree.kill([earlier]).processes == 0
    assert tree.freeze([earlier]).processes == 0
    assert tree.alive(root)
    assert not tree.stopped(root)


def test_who_forks_while_it_is_looked_at_hides_no_child(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is slow to stop, and forks between the list of processes and the look at its state."""
    forked = tmp_path / "forked"
    root = start(
        f"import os, signal\n"
        f"def fork(*_):\n"
        f"    if os.fork() == 0: open({str(forked)!r}, 'w').close()\n"
        f"signal.signal(signal.SIGUSR1, fork)\n{SPIN}"
    )
    wait_until(lambda: handles(root, signal.SIGUSR1))
    listed, wait_for, looks = table.listed, tree._wait_for, []

    def forks_behind_the_second_list() -> set[int]:
        found = listed()
        looks.append(len(found))
        if len(looks) == 2:
            os.kill(root.pid, signal.SIGCONT)
            os.kill(root.pid, signal.SIGUSR1)
            wait_until(forked.exists)
            os.kill(root.pid, signal.SIGSTOP)
            wait_until(lambda: tree.stopped(root))
        return found

    def gives_up_the_first_time(*asked: Any) -> bool:  # noqa: ANN401 - passed on
        return wait_for(*asked) and len(looks) > 1

    monkeypatch.setattr(table, "listed", forks_behind_the_second_list)
    monkeypatch.setattr(tree, "_wait_for", gives_up_the_first_time)
    report = tree.freeze([root])
    assert report.verified
    members = tree.members([root])
    assert len(members) == 2
    assert all(map(tree.stopped, members))


def test_what_cannot_be_stopped_in_time_is_reported(start: Start) -> None:
    root = start(HUNDRED)
    wait_for_members(root, 100)
    report = tree.freeze([root], timeout_s=0)
    assert not report.verified
    assert report.remaining


def test_the_module_needs_nothing_else_of_the_project() -> None:
    """`lender revoke` uses it with the daemon stopped, and starts in milliseconds."""
    code = (
        "import sys; import lender.sandbox.processes.tree\n"
        "print(*sorted(m for m in sys.modules if m.startswith('lender')), 'asyncio' in sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    processes = "lender.sandbox.processes"
    ours = [f"{processes}.{name}" for name in ("account", "table", "tree")]
    assert shown == ["lender", "lender.sandbox", processes, *ours, "False"]


def test_no_process_is_identified_where_there_is_none() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(ProcessLookupError):
        tree.identify(child.pid)
    assert not tree.alive(Root(child.pid, 0))


def test_a_process_that_was_stopped_already_is_killed(start: Start) -> None:
    root = start(SPIN)
    os.kill(root.pid, signal.SIGSTOP)
    assert tree.kill([root]).verified
    assert not tree.alive(root)
