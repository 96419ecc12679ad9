"""Limits that the kernel keeps: who hits one ends under its name, and nobody else feels it.

Where no controller is delegated the tests of it are skipped; `make test-cgroups` runs them in a
virtual machine that has them all.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sandboxes import (
    LIMITS,
    PATIENCE,
    USER,
    Workshop,
    needs_bubblewrap,
    open_folder,
    until,
    workshop,
)

from lender.sandbox.launcher import Launcher
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import Limits, TaskOutcome
from lender.sandbox.port import PrepareFailedError, SandboxGoneError
from lender.sandbox.processes import cgroup, controllers, stopping, subtree, tree
from lender.sandbox.processes.controllers import Kept
from lender.sandbox.processes.stopping import Standing
from lender.sandbox.processes.subtree import Subtree

__all__ = ["open_folder", "workshop"]  # fixtures

BOMB = """
import os, time
open("ready", "w").close()
while not os.path.exists("go"): time.sleep(0.01)
x = b"x" * (300 << 20)
print("survived", flush=True)
time.sleep(3600)
"""
FORKS = """
import os, sys
sys.stdin.readline()
forks = 0
try:
    while True:
        if os.fork() == 0:
            sys.stdin.readline()
            os._exit(0)
        forks += 1
except OSError:
    print(forks, flush=True)
sys.stdin.readline()
"""
SPINS = "while :; do :; done & while :; do :; done & while :; do :; done & while :; do :; done"


def python(code: str) -> str:
    return f"exec python3 -I -S - <<'END'\n{code}\nEND\n"


async def no_record(_roots: tuple[tree.Root, ...]) -> None:
    """Nobody has to find these processes without us."""


class Stand:
    """A workshop whose sandboxes have cgroups."""

    def __init__(self, workshop: Workshop, cgroups: Subtree) -> None:
        self.workshop = workshop
        self.cgroups = cgroups

    def needs(self, *kept: Kept) -> None:
        if lacking := sorted(set(kept) - self.cgroups.keeps):
            pytest.skip(f"no cgroup v2 controller is delegated here for: {', '.join(lacking)}")

    async def prepared(self, script: str, limits: Limits = LIMITS) -> LeaseSandbox:
        name = f"L-{len(self.workshop.sandboxes)}"
        plan = self.workshop.plan("process", script, limits=limits)
        plan = plan._replace(lease=name, scratch=self.workshop.private(name))
        made = LeaseSandbox(plan, self.workshop.launcher, no_record, cgroups=self.cgroups)
        self.workshop.sandboxes.append(made)
        await made.prepare()
        return made


@pytest.fixture
async def stand(open_folder: Path) -> AsyncIterator[Stand]:
    """Leaves no process and no cgroup behind, and checks that it didn't."""
    launcher = await Launcher.start(drop_to=USER)
    cgroups = subtree.claim(open_folder / "state", launcher.pid, USER)
    if cgroups is None:
        await launcher.close()
        pytest.skip("no cgroup v2 subtree is ours here: not root, and none delegated")
    workshop = Workshop(open_folder, launcher)
    yield Stand(workshop, cgroups)
    for sandbox in workshop.sandboxes:
        await sandbox.close()
    leaves = [one for one in (cgroups.path / cgroup.JOBS).iterdir() if one.is_dir()]
    await launcher.close()
    cgroups.close()
    assert not leaves, "a closed sandbox removes its cgroup"
    assert not cgroups.path.exists()


def counts(file: Path) -> dict[str, int]:
    return {name: int(count) for name, count in map(str.split, file.read_text().splitlines())}


@needs_bubblewrap
async def test_memory_that_no_watcher_sees_ends_its_task_alone(stand: Stand) -> None:
    stand.needs("memory")
    neighbour = await stand.prepared("sleep 3600")
    sandbox = await stand.prepared(python(BOMB))
    resting = asyncio.create_task(neighbour.run(0))
    for task in (0, 1):  # the next one gets another sandbox, and its own end
        running = asyncio.create_task(sandbox.run(task))
        scratch = stand.workshop.folder / "L-1"
        await until((scratch / "ready").exists, "the task runs")
        (root,) = sandbox.root_pids
        os.kill(root.pid, signal.SIGSTOP)  # its watcher: a bomb may be faster than any look
        (scratch / "go").touch()
        outcome = await running
        assert (outcome.task, outcome.state, outcome.limit) == (task, "failed", "memory")
        assert outcome.error == "hit its memory limit"
        assert b"survived" not in outcome.value
        assert outcome.cpu_s > 0
        assert not tree.alive(root), "no half of it goes on"
        (scratch / "ready").unlink()
    assert not stand.workshop.launcher.gone.is_set()
    assert not resting.done()
    await neighbour.close()
    with pytest.raises(SandboxGoneError):
        await resting


@needs_bubblewrap
async def test_what_stays_below_its_memory_runs(stand: Stand) -> None:
    sandbox = await stand.prepared(python("x = b'x' * (60 << 20)\nprint(len(x))"))
    assert (await sandbox.run(0)).value == b"62914560\n"


async def test_a_fork_bomb_is_refused_by_its_own_limit(stand: Stand) -> None:
    stand.needs("processes")
    stand.cgroups.make("L", LIMITS)
    leaf = stand.cgroups.leaf("L")
    bomb = subprocess.Popen(  # noqa: ASYNC220 - its end is ours
        [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert bomb.stdin is not None
    assert bomb.stdout is not None
    with bomb:
        (leaf / "cgroup.procs").write_text(str(bomb.pid))
        assert controllers.hit(leaf) is None
        bomb.stdin.write(b"go\n")
        bomb.stdin.flush()
        forks = int(await asyncio.to_thread(bomb.stdout.readline))
        assert forks + 1 == int((leaf / "pids.max").read_text())
        assert controllers.hit(leaf) == "processes"
        assert stopping.kill([Standing((), leaf)]).verified
        assert bomb.wait(10) == -signal.SIGKILL
    assert not leaf.exists()


@needs_bubblewrap
async def test_a_task_that_gives_up_at_its_last_process_names_the_limit(stand: Stand) -> None:
    """On every machine: the task's own limit (RLIMIT_NPROC) is watched as well."""
    # The watcher looks the less often the longer a look takes: an emulated machine needs patience.
    code = (
        "import os, time\n"
        "began = time.monotonic()\n"
        "try:\n"
        "  while os.fork(): pass\n"
        "except OSError:\n"
        "  time.sleep(min(30, 1 + 40 * (time.monotonic() - began)))\n"
        "  raise SystemExit(1)\n"
        "time.sleep(3600)"
    )
    # Memory for as many interpreters as there may be: that limit is not to be the first one.
    ample = LIMITS._replace(time_s=300, memory_bytes=LIMITS.processes * (16 << 20))
    sandbox = await stand.prepared(python(code), ample)
    outcome = await sandbox.run(0)
    assert (outcome.state, outcome.exit_code, outcome.limit) == ("failed", 1, "processes")
    assert not stand.workshop.launcher.gone.is_set()


@needs_bubblewrap
async def test_a_job_gets_the_cores_that_it_asked_for_and_no_more(stand: Stand) -> None:
    stand.needs("cpu")
    sandbox = await stand.prepared(SPINS)
    running = asyncio.create_task(sandbox.run(0))
    leaf = sandbox.cgroup
    assert leaf is not None
    await until(lambda: cgroup.cpu_s(leaf) > 1, "it computes")
    if (os.cpu_count() or 1) > LIMITS.cpu:
        assert counts(leaf / "cpu.stat")["nr_throttled"] > 0
    target = Standing(sandbox.root_pids, leaf)
    assert (await asyncio.to_thread(stopping.freeze, [target])).verified
    assert (await asyncio.to_thread(stopping.thaw, [target])).verified
    assert (leaf / "cpu.max").read_text() == "10000 10000\n", "a pause does not lift it"
    assert (await asyncio.to_thread(stopping.kill, [target])).verified
    with pytest.raises(SandboxGoneError):
        await running


def test_jobs_leave_the_processor_to_everybody_else_in_lenderds_cgroup(tmp_path: Path) -> None:
    """Two that spin on one core: the job beside a program next to the subtree."""
    # The first one is in the launcher's place, and alone with us: nobody else may stand there.
    started = [subprocess.Popen(["sleep", "60"])]
    beside, cgroups = None, subtree.claim(tmp_path / "state", started[0].pid, None)
    try:
        if cgroups is None or "cpu" not in cgroups.keeps:
            pytest.skip("no cgroup v2 controller is delegated here for: cpu")
        cgroups.make("L", LIMITS)
        leaf = cgroups.leaf("L")
        beside = cgroups.path.parent / "beside"
        beside.mkdir()
        for place in (leaf, beside):
            command = ["sh", "-c", "read go; while :; do :; done"]
            process = subprocess.Popen(command, stdin=subprocess.PIPE)
            started.append(process)
            (place / "cgroup.procs").write_text(str(process.pid))
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        for process in started[1:]:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        while cgroup.cpu_s(beside) + cgroup.cpu_s(leaf) < 2:
            assert started[1].poll() is None
            time.sleep(0.05)
        assert cgroup.cpu_s(beside) > 10 * cgroup.cpu_s(leaf)
        assert stopping.kill([Standing((), leaf)], 20 * PATIENCE).verified
        assert (cgroups.path / "cpu.weight").read_text() == "1\n", "hurried to its end, and back"
    finally:
        for process in started:
            process.kill()
            process.communicate()
        if beside is not None:
            beside.rmdir()
        if cgroups is not None:
            cgroups.close()


def test_lenderd_stands_in_a_leaf_once_its_cgroup_hands_controllers_on(tmp_path: Path) -> None:
    idle = subprocess.Popen(["sleep", "60"])
    try:
        cgroups = subtree.claim(tmp_path / "state", idle.pid, None)
        if cgroups is None or not cgroups.keeps:
            pytest.skip("no cgroup v2 controller is delegated here")
        own, again = cgroup.of(), subtree.claim(tmp_path / "other", idle.pid, None)
        assert own is not None
        assert own.name == cgroup.DAEMON or not (own / "cgroup.type").exists()
        assert again is not None
        assert again.path.parent == cgroups.path.parent, "not one level deeper each time"
        assert again.keeps == cgroups.keeps
    finally:
        idle.kill()
        idle.wait()
    again.close()
    cgroups.close()
    assert not cgroups.path.exists()


@needs_bubblewrap
async def test_a_machine_out_of_memory_ends_a_task_before_the_owners_programs(
    workshop: Workshop,
) -> None:
    sandbox = await workshop.prepared("process", "cat /proc/self/oom_score_adj")
    assert (await sandbox.run(0)).value == b"1000\n"


class PlainLeaf:
    """Stands in for a subtree: a plain folder, whose events a test makes up.

    The same end with the kernel's own events is `test_memory_that_no_watcher_sees...`.
    """

    keeps: frozenset[Kept] = frozenset()

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "leaf"

    def leaf(self, _lease: str) -> Path:
        return self._folder

    def take(self, lease: str) -> Path:
        return self.leaf(lease)

    def ahead(self) -> None:
        """Every process stands in the one folder; none is made ahead."""

    def make(self, _leaf: Path, _limits: Limits) -> None:
        self._folder.mkdir(exist_ok=True)
        self._folder.chmod(0o777)
        (self._folder / "cgroup.procs").touch()
        (self._folder / "cgroup.procs").chmod(0o666)
        self.happened(oom=0, oom_kill=0)

    def happened(self, **events: int) -> None:
        lines = "".join(f"{name} {count}\n" for name, count in events.items())
        (self._folder / "memory.events").write_text(lines)


async def spinning(
    workshop: Workshop,
) -> tuple[LeaseSandbox, PlainLeaf, asyncio.Task[TaskOutcome]]:
    cgroups = PlainLeaf(workshop.folder)
    plan = workshop.plan("wasm", "spin", limits=LIMITS._replace(time_s=0.5))
    made = LeaseSandbox(plan, workshop.launcher, no_record, cgroups=cgroups)  # type: ignore[arg-type] # a stand-in
    workshop.sandboxes.append(made)
    await made.prepare()
    return made, cgroups, asyncio.create_task(made.run(0))


async def test_a_sandbox_that_its_memory_limit_ended_fails_its_task_and_serves_the_next(
    workshop: Workshop,
) -> None:
    sandbox, cgroups, running = await spinning(workshop)
    await asyncio.sleep(0)
    (first,) = sandbox.root_pids
    cgroups.happened(oom=1, oom_kill=2)
    os.kill(first.pid, signal.SIGKILL)
    outcome = await running
    assert (outcome.state, outcome.limit) == ("failed", "memory")
    assert outcome.error == "hit its memory limit"
    assert sandbox.root_pids == ()
    following = await sandbox.run(1)
    assert (following.task, following.limit) == (1, "time"), "a fresh one, and its own end"


@pytest.mark.parametrize("events", [{"oom": 0, "oom_kill": 0}, {"oom": 0, "oom_kill": 2}])
async def test_a_sandbox_that_somebody_else_ended_is_gone(
    workshop: Workshop, events: dict[str, int]
) -> None:
    """Also where the whole machine was out of memory: that is not the task's fault."""
    sandbox, cgroups, running = await spinning(workshop)
    await asyncio.sleep(0)
    cgroups.happened(**events)
    os.kill(sandbox.root_pids[0].pid, signal.SIGKILL)
    with pytest.raises(SandboxGoneError):
        await running


async def test_a_job_that_cannot_be_prepared_in_its_memory_is_told_so(workshop: Workshop) -> None:
    cgroups = PlainLeaf(workshop.folder)

    async def end_it(roots: tuple[tree.Root, ...]) -> None:
        os.kill(roots[0].pid, signal.SIGSTOP)  # it will not come to prepare anything
        asyncio.get_running_loop().call_later(0.2, die, roots[0].pid)

    def die(pid: int) -> None:
        cgroups.happened(oom=1, oom_kill=1)
        os.kill(pid, signal.SIGKILL)

    plan = workshop.plan("wasm", "hello")
    sandbox = LeaseSandbox(plan, workshop.launcher, end_it, cgroups=cgroups)  # type: ignore[arg-type] # a stand-in
    workshop.sandboxes.append(sandbox)
    with pytest.raises(PrepareFailedError) as caught:
        await sandbox.prepare()
    assert (caught.value.invalid, caught.value.field) == (True, "limits.memory_bytes")
