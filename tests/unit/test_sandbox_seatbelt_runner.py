"""The macOS runner with real processes; a stand-in for sandbox-exec starts them without walls."""

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lender.sandbox import frames
from lender.sandbox.frames import Frame
from lender.sandbox.plan import Limits, SandboxPlan, outcomes_from_wire, plan_to_wire
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.processes import libproc
from lender.sandbox.runtimes import choice
from lender.sandbox.runtimes import runner as inside
from lender.sandbox.runtimes.seatbelt_runner import SeatbeltRunner
from lender.sandbox.runtimes.seatbelted import Meters
from lender.sandbox.walls import seatbelt

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="asks /proc what the processes do"
)
# Until it has become the command, the fork counts with the memory of this process.
LIMITS = Limits(1, 2 << 30, 20.0, 1000, 1 << 20, 8)
# Skips its own options. As root it becomes somebody else: root's forks are not counted.
STAND_IN = """#!/bin/sh
[ -z "${DYLD_INSERT_LIBRARIES+set}" ] || exit 64
while [ "$1" != -- ]; do shift; done
shift
exec%s "$@"
"""
OTHER_USER = " setpriv --reuid=65533 --regid=65533 --clear-groups"


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, user: str = "") -> None:
    stand_in = folder / "sandbox-exec"
    stand_in.write_text(STAND_IN % user)
    stand_in.chmod(0o755)
    monkeypatch.setattr(seatbelt, "SANDBOX_EXEC", str(stand_in))


@pytest.fixture(autouse=True)
def sandbox_exec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path)


def plan_for(folder: Path, *argv: str, limits: Limits = LIMITS, **more: str) -> SandboxPlan:
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    given = folder / "given"
    given.write_text("the input")
    return SandboxPlan(
        lease="l",
        runtime="process",
        job="j",
        task_count=2,
        program=None,
        argv=argv,
        env=more,
        inputs={"data/in": given},
        outputs=(),
        limits=limits,
        scratch=scratch,
    )


class SoftStop:
    """What a runner has of SIGTERM."""

    def __init__(self) -> None:
        self.asked = False
        self.fd, self._writer = os.pipe()

    def ask(self) -> None:
        self.asked = True
        os.write(self._writer, b"x")

    def __del__(self) -> None:
        os.close(self.fd)
        os.close(self._writer)


class Way:
    """What a runner has of the way back to the daemon."""

    def __init__(self, soft_stop: SoftStop | None = None) -> None:
        self.soft_stop = soft_stop or SoftStop()
        self.told = b""

    def add_log(self, piece: bytes) -> None:
        self.told += piece

    def tell(self) -> None:
        """At once."""


def runner_for(plan: SandboxPlan, way: Way | None = None) -> SeatbeltRunner:
    return SeatbeltRunner(plan, METERS, way or Way())  # type: ignore[arg-type] # as much as it uses


def resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


METERS = Meters(resident_bytes, lambda _pid: 0.0)


def test_a_task_sees_its_folder_and_its_own_environment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the owner")
    plan = plan_for(tmp_path, "env", DYLD_INSERT_LIBRARIES="evil.dylib")
    outcome = runner_for(plan).run(1)
    assert outcome.state == "succeeded"
    scratch = str(plan.scratch)
    assert dict(line.split("=", 1) for line in outcome.value.decode().splitlines()) == {
        "PATH": "/usr/bin:/bin",
        "HOME": scratch,
        "TMPDIR": scratch,
        "LENDER_JOB": "j",
        "LENDER_TASK": "1",
        "LENDER_TASK_COUNT": "2",
        "DYLD_INSERT_LIBRARIES": "evil.dylib",
    }
    outcome = runner_for(plan_for(tmp_path, "sh", "-c", "pwd; echo {task} >out; cat data/in")).run(
        1
    )
    assert outcome.value.decode() == f"{scratch}\nthe input"
    assert (plan.scratch / "out").read_text() == "1\n"
    assert outcome.network_attempts_blocked is None


def test_a_task_is_called_with_its_own_words(tmp_path: Path) -> None:
    script = 'printf "%s|" "$@" "$LENDER_JOB" "$LENDER_TASK" "$LENDER_TASK_COUNT"'
    runner = runner_for(plan_for(tmp_path, "sh", "-c", script, "sh", "all"))
    assert runner.run(1, ["a b", "{task}"]).value == b"all|a b|1|j|1|2|"
    assert runner.run(0).value == b"all|j|0|2|"
    runner.begin_job("job-00002", 7, separate=True)
    assert runner.run(3, ["{task}"]).value == b"all|0|job-00002-3|0|1|"
    own = runner_for(plan_for(tmp_path)._replace(each=((),)))
    assert own.run(0, ["echo", "own"]).value == b"own\n"
    assert own.run(1).error == "not started: no command"


def test_who_watches_hears_what_it_says(tmp_path: Path) -> None:
    way = Way()
    runner_for(plan_for(tmp_path, "sh", "-c", "echo said >&2"), way).run(0)
    assert way.told == b"said\n"


def test_the_next_task_finds_the_inputs_whole_and_nothing_else(tmp_path: Path) -> None:
    script = "ls -a; cat data/in; echo left >left; rm -f data/in; echo other >data/in"
    runner = runner_for(plan_for(tmp_path, "sh", "-c", script))
    first = runner.run(0)
    assert runner.run(1).value == first.value
    assert (tmp_path / "given").read_text() == "the input"


def test_a_task_cannot_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So nothing of it is left to find when its one process is dead."""
    if os.geteuid() == 0:
        install(monkeypatch, tmp_path, OTHER_USER)
    outcome = runner_for(plan_for(tmp_path, "sh", "-c", "echo here; sleep 0; echo forked")).run(0)
    assert (outcome.state, outcome.value) == ("failed", b"here\n"), outcome
    assert b"fork" in outcome.stderr_tail


@pytest.mark.parametrize(
    ("argv", "changed", "limit"),
    [
        (("sleep", "60"), {"time_s": 0.1}, "time"),
        (("head", "-c", "5000", "/dev/zero"), {}, "output"),
        (("cat", "/dev/zero"), {}, "output"),
        (("sh", "-c", "exec head -c 3000000 /dev/zero >big"), {}, "disk"),
        (
            ("sh", "-c", "for n in 1 2; do echo >$n; done; exec sleep 60"),
            {"scratch_bytes": 4096},
            "disk",
        ),
        (
            (sys.executable, "-c", "x = b'x' * (200 << 20); import time; time.sleep(60)"),
            {"memory_bytes": 64 << 20},
            "memory",
        ),
    ],
)
def test_a_limit_that_is_hit_ends_it_and_is_named(
    tmp_path: Path, argv: tuple[str, ...], changed: dict[str, Any], limit: str
) -> None:
    plan = plan_for(tmp_path, *argv, limits=LIMITS._replace(**changed))
    outcome = runner_for(plan).run(0)
    assert (outcome.state, outcome.limit) == ("failed", limit), outcome
    assert len(outcome.value) <= LIMITS.output_bytes


@pytest.mark.parametrize(
    ("argv", "exit_code", "error"),
    [
        (("sh", "-c", "exit 7"), 7, None),
        (("sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM, None),
        (("sh", "-c", "exec >&- 2>&-; exit 3"), 3, None),
        (("no-such-program",), 127, "command not found: no-such-program"),
        (("/etc/passwd",), 126, "command not executable: /etc/passwd"),
    ],
)
def test_an_end_is_told_as_on_linux(
    tmp_path: Path, argv: tuple[str, ...], exit_code: int, error: str | None
) -> None:
    outcome = runner_for(plan_for(tmp_path, *argv)).run(0)
    assert (outcome.state, outcome.exit_code) == ("failed", exit_code)
    assert (outcome.limit, outcome.error) == (None, error)


def test_a_profile_that_macos_refuses_is_told(tmp_path: Path) -> None:
    told = "echo 'sandbox-exec: profile: unbound variable: process-fork' >&2; exit 65"
    Path(seatbelt.SANDBOX_EXEC).write_text(f"#!/bin/sh\n{told}\n")
    outcome = runner_for(plan_for(tmp_path, "true")).run(0)
    assert outcome.error is not None
    assert outcome.error.startswith("the sandbox could not be set up: sandbox-exec: profile")


def test_what_cannot_be_started_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = runner_for(plan_for(tmp_path, "echo", "a\0b")).run(0)
    assert outcome.error is not None
    assert "not started: a zero byte" in outcome.error
    with pytest.raises(PrepareFailedError, match="no command"):
        runner_for(plan_for(tmp_path))
    plan = plan_for(tmp_path, "true")
    (tmp_path / "given").unlink()
    with pytest.raises(PrepareFailedError, match="input"):
        runner_for(plan)
    monkeypatch.setattr(seatbelt, "SANDBOX_EXEC", str(tmp_path / "missing"))
    with pytest.raises(PrepareFailedError, match="is missing"):
        runner_for(plan_for(tmp_path, "true"))


def test_a_runner_takes_no_descriptor_along(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    runner = runner_for(plan_for(tmp_path, "sh", "-c", "echo /proc/$$/fd/*"))
    gc.collect()  # what another test has dropped would be gone behind it
    before = set(Path("/proc/self/fd").iterdir())
    try:
        outcome = runner.run(0)
        assert set(Path("/proc/self/fd").iterdir()) == before
    finally:
        os.close(reader)
        os.close(writer)
    names = {Path(word).name for word in outcome.value.decode().split()}
    assert names <= {"0", "1", "2", "3"}  # a shell opens the folder that it lists


def test_it_is_the_process_runtime_of_a_mac(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = importlib.import_module(choice.ON_MAC["process"])
    processes = SimpleNamespace(footprint_bytes=resident_bytes, cpu_s=lambda _pid: 0.0)
    monkeypatch.setattr(libproc, "load", lambda: processes)
    # Only the main thread of a process may handle signals.
    monkeypatch.setattr(inside, "SoftStop", SoftStop)
    ours, theirs = socket.socketpair()
    serving = (theirs, chosen.start)
    thread = threading.Thread(target=inside.serve, args=serving, daemon=True)
    thread.start()
    with ours, theirs:
        frames.send(ours, Frame({"plan": plan_to_wire(plan_for(tmp_path, "echo", "{task}"))}))
        assert receive(ours).header == {"prepared": True}
        frames.send(ours, Frame({"tasks": [1]}))
        answer = receive(ours)
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    (outcome,) = outcomes_from_wire(answer.header["outcomes"], answer.body)
    assert (outcome.state, outcome.value) == ("succeeded", b"1\n"), outcome


@pytest.mark.parametrize(
    ("on_term", "exit_code"), [("echo saved; exit 0", 0), ("", None)], ids=["obeys", "ignores"]
)
def test_it_can_be_asked_to_end(tmp_path: Path, on_term: str, exit_code: int | None) -> None:
    # Nothing ends it when this test is killed, but its limit.
    script = f"ulimit -t 120; trap '{on_term}' TERM; : >ready; while :; do :; done"
    plan = plan_for(tmp_path, "sh", "-c", script)._replace(grace_s=0.3 if on_term == "" else 60.0)
    soft_stop = SoftStop()

    def ask() -> None:
        wait_until((plan.scratch / "ready").exists)
        soft_stop.ask()

    asking = threading.Thread(target=ask)
    asking.start()
    outcome = runner_for(plan, Way(soft_stop)).run(0)
    asking.join()
    assert (outcome.state, outcome.terminated, outcome.limit) == ("failed", True, None)
    assert (outcome.exit_code, outcome.error) == (exit_code, "was asked to end")
    assert outcome.value == (b"saved\n" if on_term else b"")


def receive(sock: socket.socket) -> Frame:
    decoder = frames.Decoder(1 << 20)
    while True:
        data, fds = frames.receive(sock)
        assert data, "it answers"
        for frame in decoder.feed(data, fds):
            return frame


def test_its_command_dies_with_the_launcher(tmp_path: Path) -> None:
    """macOS sends no signal when a parent dies, so the runner looks for itself."""
    limits = LIMITS._replace(time_s=600.0)
    plan = plan_for(tmp_path, "sh", "-c", "echo $$ >pid; exec sleep 60", limits=limits)
    code = (
        "import json, os, sys, time\n"
        "from lender.sandbox.walls import seatbelt\n"
        "from lender.sandbox.plan import plan_from_wire\n"
        "import socket\n"
        "from lender.sandbox.runtimes.runner import Reporter\n"
        "from lender.sandbox.runtimes.seatbelt_runner import SeatbeltRunner\n"
        "from lender.sandbox.runtimes.seatbelted import Meters\n"
        "seatbelt.SANDBOX_EXEC = sys.argv[2]\n"
        "if os.fork() == 0:\n"
        "    plan = plan_from_wire(json.loads(sys.argv[1]))\n"
        "    meters = Meters(lambda pid: 0, lambda pid: 0.0)\n"
        "    SeatbeltRunner(plan, meters, Reporter(socket.socketpair()[0])).run(0)\n"
        "time.sleep(60)\n"
    )
    words = [sys.executable, "-c", code, json.dumps(plan_to_wire(plan)), seatbelt.SANDBOX_EXEC]
    pid_file = plan.scratch / "pid"
    launcher = subprocess.Popen(words, start_new_session=True)
    try:
        wait_until(lambda: pid_file.is_file() and pid_file.read_text().endswith("\n"))
        pid = int(pid_file.read_text())
        assert alive(pid)
        launcher.kill()
        launcher.wait()
        wait_until(lambda: not alive(pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
        launcher.wait()
        if pid_file.is_file() and alive(pid := int(pid_file.read_text())):
            os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
