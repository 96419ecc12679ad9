"""What the python runtime promises, shown on real sandboxes."""


# Functions of jobs do as they like.
# ruff: noqa: ARG001, PTH101, PTH103, PTH104, PTH108, PTH109, PTH123, PTH208, T201

import asyncio
import builtins
import contextlib
import ctypes
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from python_jobs import needs_python, plan_of, prepared, value
from sandboxes import Workshop, open_folder, until, workshop

from lender.client.functions import VERSION
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.processes import tree
from lender.sandbox.runtimes import installed_python

__all__ = ["open_folder", "workshop"]  # fixtures
pytestmark = needs_python


async def test_a_function_is_called_with_the_tasks_index(workshop: Workshop) -> None:
    sandbox = await prepared(workshop, lambda task: {"square": task * task})
    for task in (3, 0, 7):
        outcome = await sandbox.run(task)
        assert value(outcome) == {"square": task * task}
        assert (outcome.task, outcome.exit_code, outcome.limit) == (task, 0, None)
        assert (outcome.error, outcome.stderr_tail) == (None, b"")
        assert outcome.memory_peak_bytes > 1 << 20
    assert outcome.duration_s < 5


async def test_tasks_share_one_warm_interpreter(workshop: Workshop) -> None:
    def count(task: int) -> object:
        builtins.calls = getattr(builtins, "calls", 0) + 1  # type: ignore[attr-defined]
        return os.getpid(), builtins.calls  # type: ignore[attr-defined]

    sandbox = await prepared(workshop, count)
    seen = [value(await sandbox.run(task)) for task in range(3)]
    pids, calls = zip(*seen, strict=True)  # type: ignore[misc]
    assert (len(set(pids)), calls) == (1, (1, 2, 3))


async def test_each_task_finds_what_the_first_one_found(workshop: Workshop) -> None:
    def look_then_litter(task: int) -> object:
        umask = os.umask(0o77)
        found = {
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "files": sorted(os.listdir("/work")),
            "temporary": os.listdir("/tmp") + os.listdir("/dev/shm"),
            "umask": umask,
            "stdout": sys.stdout is sys.__stdout__,
            "term": callable(signal.getsignal(signal.SIGTERM)),
            "timer": signal.getitimer(signal.ITIMER_REAL),
        }
        os.environ.clear()
        os.environ["LITTER"] = "1"
        os.makedirs("a/b")
        for name in ("/work/a/b/c", "/tmp/litter", "/dev/shm/litter"):
            with open(name, "w") as file:
                file.write("litter")
        os.chdir("/tmp")
        os.chmod("/work", 0o500)
        sys.stdout = io.StringIO()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 100)
        return found

    sandbox = await prepared(
        workshop,
        look_then_litter,
        inputs={"in/data": workshop.file("data", b"x")},
        env={"COLOUR": "red", "LENDER_TASK": "99"},
    )
    for task in (4, 5, 6):
        assert value(await sandbox.run(task)) == {
            "environment": {
                "COLOUR": "red",
                "HOME": "/work",
                "LENDER_JOB": "job-1",
                "LENDER_TASK": str(task),
                "LENDER_TASK_COUNT": "8",
                "PATH": "/usr/bin:/bin",
                "PWD": "/work",
            },
            "folder": "/work",
            "files": ["in"],
            "temporary": [],
            "umask": 0o022,
            "stdout": True,
            "term": True,
            "timer": (0.0, 0.0),
        }


async def test_nothing_of_the_owners_python_is_seen(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("OWNERS_SECRET", "1")

    def look(_task: int) -> object:
        import importlib.util  # noqa: PLC0415 - a submodule is not sent along

        packages = ("cloudpickle", "json", "lender", "pydantic", "pytest", "pip")
        found = [name for name in packages if importlib.util.find_spec(name)]
        return found, "OWNERS_SECRET" in os.environ, [p for p in sys.path if "-packages" in p]

    sandbox = await prepared(workshop, look)
    assert value(await sandbox.run(0)) == (["cloudpickle", "json"], False, [])


async def test_packages_are_those_that_the_owner_names(workshop: Workshop) -> None:
    def look(_task: int) -> str:
        import packaging.version  # noqa: PLC0415 - it is not everywhere

        return str(packaging.version.Version("1.0"))

    plan = plan_of(workshop, look)
    with_more = plan._replace(packages=("cloudpickle", "packaging"))
    sandbox = workshop.sandbox(with_more)
    await sandbox.prepare()
    assert value(await sandbox.run(0)) == "1.0"
    await sandbox.close()
    sandbox = await prepared(workshop, look)
    outcome = await sandbox.run(0)
    assert outcome.error == "ModuleNotFoundError: No module named 'packaging'"


async def test_an_exception_fails_its_task_alone(workshop: Workshop) -> None:
    def fall(task: int) -> int:
        if task == 1:
            raise ValueError("no\n\x1b[31m good")
        if task == 2:
            sys.exit("gone")
        return task

    sandbox = await prepared(workshop, fall)
    outcome = await sandbox.run(1)
    assert (outcome.state, outcome.exit_code, outcome.limit) == ("failed", None, None)
    assert outcome.error == "ValueError: no  [31m good", "one printable line"
    tail = outcome.stderr_tail.decode()
    assert "Traceback" in tail
    assert "in fall" in tail
    assert "inside.py" not in tail
    assert outcome.value == b""
    pids = {root.pid for root in sandbox.root_pids}
    assert (await sandbox.run(2)).error == "SystemExit: gone"
    assert value(await sandbox.run(3)) == 3
    assert {root.pid for root in sandbox.root_pids} == pids


async def test_what_is_printed_is_kept_apart_from_the_value(workshop: Workshop) -> None:
    def talk(task: int) -> int:
        print("python", task)
        os.system("echo child; echo child-err >&2")
        ctypes.CDLL(None).printf(b"c\n")
        sys.stdout.write("unfinished")
        return task

    sandbox = await prepared(workshop, talk)
    for task in (0, 1):
        outcome = await sandbox.run(task)
        assert value(outcome) == task
        said = outcome.stderr_tail.decode()
        assert sorted(said.replace("unfinished", "").split("\n")) == sorted(
            [f"python {task}", "child", "child-err", "c", ""]
        )


async def test_much_that_is_printed_leaves_its_end(workshop: Workshop) -> None:
    def talk(_task: int) -> None:
        for number in range(20_000):
            print(number)

    sandbox = await prepared(workshop, talk)
    outcome = await sandbox.run(0)
    assert len(outcome.stderr_tail) == 8192
    assert outcome.stderr_tail.endswith(b"19998\n19999\n")


async def test_children_that_a_task_left_are_gone_before_the_next(workshop: Workshop) -> None:
    def leave(task: int) -> object:
        others = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) not in (1, os.getpid()):
                with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                    state = file.read().rpartition(") ")[2][:1]
                    others += [name] if state != "Z" else []
        subprocess.Popen(["sleep", "1000"])
        if os.fork() == 0:
            if os.fork() == 0:
                os.execv("/bin/sh", ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
            os._exit(0)
        return others

    sandbox = await prepared(workshop, leave)
    for task in range(3):
        assert value(await sandbox.run(task)) == []
    (root,) = sandbox.root_pids
    await until(lambda: len(tree.members([root])) <= 5, "nothing of the last task's is left")


@pytest.mark.parametrize("way", ["a thread's", "a thread's that ended", "an orphan", "adopted"])
async def test_a_process_is_gone_before_the_next_whose_child_it_may_be(  # noqa: C901 - a task's own functions
    workshop: Workshop, way: str
) -> None:
    def company() -> int:
        count = 0
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) not in (1, os.getpid()):
                with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                    count += file.read().rpartition(") ")[2][:1] != "Z"
        return count

    def leave(task: int) -> int:
        count = company()
        born, goes_on = threading.Event(), threading.Event()

        def bear() -> None:
            pid = os.fork()
            if pid == 0:
                if way in {"an orphan", "adopted"} and os.fork() != 0:
                    os._exit(0)
                time.sleep(1000)
            if way in {"an orphan", "adopted"}:
                os.waitpid(pid, 0)
            born.set()
            if way == "a thread's":
                goes_on.wait()

        if way == "adopted":
            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        thread = threading.Thread(target=bear, daemon=True)
        thread.start()
        born.wait()
        if way != "a thread's":
            thread.join()
        return count

    sandbox = await prepared(workshop, leave)
    assert [value(await sandbox.run(task, (task + 1,))) for task in range(3)] == [0, 0, 0]


async def test_a_fork_that_returns_does_not_answer(workshop: Workshop) -> None:
    def fork(task: int) -> object:
        parent = os.getpid()
        os.fork()
        if os.getpid() != parent and task == 1:
            raise ValueError("of the child")
        return os.getpid() == parent, task

    sandbox = await prepared(workshop, fork)
    for task in range(4):
        assert value(await sandbox.run(task)) == (True, task)


async def test_inputs_can_be_read_and_not_be_taken_away(workshop: Workshop) -> None:
    def tamper(task: int) -> object:
        with open("in/data", "rb") as file:
            content = file.read()
        for attempt in (
            lambda: os.unlink("in/data"),
            lambda: open("in/data", "wb").close(),
            lambda: os.chmod("in/data", 0o666),
            lambda: os.rename("in", "out") if task == 1 else None,
        ):
            with contextlib.suppress(OSError):
                attempt()
        return content

    source = workshop.file("data", b"content of the input")
    sandbox = await prepared(workshop, tamper, inputs={"in/data": source})
    for task in range(4):
        assert value(await sandbox.run(task)) == b"content of the input"
    assert source.read_bytes() == b"content of the input"


async def test_tries_to_reach_a_network_are_counted_for_their_task(workshop: Workshop) -> None:
    def reach(task: int) -> int:
        for _ in range(task):
            with contextlib.suppress(OSError), socket.socket() as sock:
                sock.connect(("192.0.2.1", 80))
        return task

    sandbox = await prepared(workshop, reach)
    counted = 0
    for task in (3, 0, 2):
        blocked = (await sandbox.run(task)).network_attempts_blocked
        assert blocked is not None
        counted += blocked
        await asyncio.sleep(0.03)  # counters are read that often at most
    blocked = (await sandbox.run(0)).network_attempts_blocked
    assert blocked is not None
    assert counted + blocked == 5


async def test_processor_time_is_told_once(workshop: Workshop) -> None:
    def work(task: int) -> int:
        begun = time.process_time()
        while time.process_time() - begun < 0.3:
            pass
        if task == 1:
            script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
            subprocess.run(["sh", "-c", script], check=True)
        return task

    sandbox = await prepared(workshop, work)
    first, second, third = [(await sandbox.run(task)).cpu_s for task in range(3)]
    assert 0.3 <= first < 2
    assert 0.3 <= third < 0.4
    assert second > third + 0.02, "what its child used counts too"


def test_the_lenders_own_interpreter_moves_to_where_it_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "lib" / f"python{VERSION}"
    (library / "site-packages").mkdir(parents=True)
    (library / "os.py").touch()
    executable = tmp_path / "bin" / f"python{VERSION}"
    executable.parent.mkdir()
    executable.touch(mode=0o755)
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    found = installed_python.find()
    assert found.version == VERSION
    assert found.executable.startswith("/run/lender/")
    assert str(executable) in found.shown.values()
    assert not any(str(tmp_path) in place for place in found.shown)
    assert found.hidden == (f"/run/lender/python/lib/python{VERSION}/site-packages",)
    assert found.libraries == ""
    (tmp_path / "lib" / f"libpython{VERSION}.so.1.0").touch()
    assert installed_python.find().libraries == "/run/lender/python/lib"


def test_without_an_own_interpreter_it_is_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "unreadable"))
    system = installed_python._system("/usr/bin")
    assert system is None or installed_python.find() == system
    monkeypatch.setattr(installed_python, "_FOLDERS", (str(tmp_path),))
    with pytest.raises(PrepareFailedError, match="not installed"):
        installed_python.find()
