"""Real cgroups: one write stops or kills a sandbox, nothing escapes, nothing is left behind."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sandboxes import LIMITS, PATIENCE, USER, Workshop, needs_bubblewrap, open_folder, until

from lender.sandbox.launcher import Launcher
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import Runtime
from lender.sandbox.port import PrepareFailedError, RefusedError, SandboxGoneError
from lender.sandbox.processes import autogroup, cgroup, stopping, subtree, tree
from lender.sandbox.processes.stopping import Standing
from lender.sandbox.processes.subtree import Subtree
from lender.state.attempt_records import AttemptRecord, AttemptRecords

__all__ = ["open_folder"]  # fixtures

WITHIN_S = 20 * PATIENCE
FORKS = "exec python3 -I -S -c 'import os\nwhile True:\n  try: os.fork()\n  except OSError: pass'"
DAEMONIZES = (
    "trap '' TERM; (setsid sh -c 'trap \"\" TERM; (while :; do :; done) & while :; do :; done' &)"
    "; while :; do :; done"
)


class Stand:
    """A launcher with a subtree, and sandboxes in it."""

    def __init__(self, workshop: Workshop, state: Path, cgroups: Subtree) -> None:
        self.workshop = workshop
        self.state = state
        self.cgroups = cgroups

    def sandbox(
        self,
        runtime: Runtime,
        program: str,
        before_go: Callable[[Standing], None] = lambda _standing: None,
        abort_if_exists: tuple[Path, ...] = (),
        time_s: float = LIMITS.time_s,
    ) -> LeaseSandbox:
        plan = self.workshop.plan(runtime, program, limits=LIMITS._replace(time_s=time_s))

        async def record(roots: tuple[tree.Root, ...]) -> None:
            before_go(Standing(roots, made.cgroup))

        made = LeaseSandbox(plan, self.workshop.launcher, record, abort_if_exists, self.cgroups)
        self.workshop.sandboxes.append(made)
        return made

    async def running(
        self, runtime: Runtime, program: str, processes: int
    ) -> tuple[LeaseSandbox, asyncio.Task[object], Standing]:
        """A sandbox whose only task runs, with at least so many processes in its cgroup."""
        sandbox = self.sandbox(runtime, program)
        await sandbox.prepare()
        task: asyncio.Task[object] = asyncio.create_task(sandbox.run(0))
        leaf = sandbox.cgroup
        assert leaf is not None
        await until(lambda: len(cgroup.pids(leaf)) >= processes, "the task runs")
        return sandbox, task, Standing(sandbox.root_pids, leaf)


@pytest.fixture
async def stand(open_folder: Path) -> AsyncIterator[Stand]:
    """Leaves no process and no cgroup behind, and checks that it didn't."""
    state = open_folder / "state"
    launcher = await Launcher.start(drop_to=USER)
    cgroups = subtree.claim(state, launcher.pid, USER)
    if cgroups is None:
        await launcher.close()
        pytest.skip("no cgroup v2 subtree is ours here: not root, and none delegated")
    workshop = Workshop(open_folder, launcher)
    yield Stand(workshop, state, cgroups)
    for sandbox in workshop.sandboxes:
        await sandbox.close()
    leaves = [one for one in (cgroups.path / cgroup.JOBS).iterdir() if one.is_dir()]
    await launcher.close()
    cgroups.close()
    assert not leaves, "a closed sandbox removes its cgroup"
    assert not cgroups.path.exists()


def cpu_ticks(pids: set[int]) -> dict[int, int]:
    found = {}
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        found[pid] = int(fields[11]) + int(fields[12])
    return found


@pytest.mark.parametrize(
    ("runtime", "program", "processes"),
    [
        ("wasm", "spin", 1),
        ("wasm", "sleep", 1),
        pytest.param("process", FORKS, LIMITS.processes, marks=needs_bubblewrap),
        pytest.param("process", DAEMONIZES, 6, marks=needs_bubblewrap),
    ],
)
async def test_everything_stands_still_goes_on_and_dies(
    stand: Stand, runtime: Runtime, program: str, processes: int
) -> None:
    _, task, target = await stand.running(runtime, program, processes)
    leaf = target.cgroup
    assert leaf is not None
    for _ in range(2):  # what stands still already is frozen again
        report = await asyncio.to_thread(stopping.freeze, [target], WITHIN_S)
        assert (report.verified, report.remaining) == (True, ())
    assert stopping.stands_still(target)
    met = cgroup.pids(leaf)
    assert len(met) == report.processes >= 1
    assert {root.pid for root in tree.members(target.roots)} <= met
    before = cpu_ticks(met)
    await asyncio.sleep(0.1)
    assert cpu_ticks(met) == before
    assert cgroup.pids(leaf) == met

    assert (await asyncio.to_thread(stopping.thaw, [target], WITHIN_S)).verified
    assert not stopping.stands_still(target)
    assert (await asyncio.to_thread(stopping.freeze, [target], WITHIN_S)).verified
    members = tree.members(target.roots)
    report = await asyncio.to_thread(stopping.kill, [target], WITHIN_S)  # frozen as it is
    assert (report.verified, report.remaining) == (True, ())
    assert not any(map(tree.alive, members))
    assert not leaf.exists()
    with pytest.raises(SandboxGoneError):
        await task
    assert (await asyncio.to_thread(stopping.kill, [target])).verified, "again, with nothing left"
    assert (await asyncio.to_thread(stopping.freeze, [target])).verified


@needs_bubblewrap
async def test_what_stopped_itself_stays_stopped_and_confuses_nobody(stand: Stand) -> None:
    script = "while :; do :; done & kill -STOP $!; echo $! > stopped; while :; do :; done"
    _, task, target = await stand.running("process", script, 5)
    await until((stand.workshop.scratch / "stopped").exists, "a process stops another")
    await until(lambda: any(map(tree.stopped, tree.members(target.roots))), "it is stopped")
    sleeper = [root for root in tree.members(target.roots) if tree.stopped(root)]
    assert not stopping.stands_still(target)
    assert (await asyncio.to_thread(stopping.freeze, [target])).verified
    assert (await asyncio.to_thread(stopping.thaw, [target])).verified
    assert tree.stopped(sleeper[0]), "who the task stopped is the task's to wake"
    assert (await asyncio.to_thread(stopping.kill, [target])).verified
    with pytest.raises(SandboxGoneError):
        await task


@needs_bubblewrap
async def test_who_was_moved_out_of_the_cgroup_is_stopped_and_killed_too(stand: Stand) -> None:
    _, task, target = await stand.running("process", FORKS, LIMITS.processes)
    moved = [root for root in tree.members(target.roots) if root not in target.roots][-3:]
    for root in moved:
        (stand.cgroups.path / "launcher" / "cgroup.procs").write_text(str(root.pid))
    report = await asyncio.to_thread(stopping.freeze, [target], WITHIN_S)
    assert report.verified
    assert all(map(tree.stopped, moved))
    met = tree.members(target.roots)
    assert (await asyncio.to_thread(stopping.kill, [target], WITHIN_S)).verified
    assert not any(map(tree.alive, met))
    with pytest.raises(SandboxGoneError):
        await task


@pytest.mark.parametrize("runtime", ["wasm", pytest.param("process", marks=needs_bubblewrap)])
async def test_time_that_it_stood_still_does_not_count(stand: Stand, runtime: Runtime) -> None:
    sandbox = stand.sandbox(runtime, "spin", time_s=0.5)
    await sandbox.prepare()
    task = asyncio.create_task(sandbox.run(0))
    await asyncio.sleep(0.2)
    target = Standing(sandbox.root_pids, sandbox.cgroup)
    assert (await asyncio.to_thread(stopping.freeze, [target])).verified
    await asyncio.sleep(1.5)
    assert not task.done()
    assert (await asyncio.to_thread(stopping.thaw, [target])).verified
    outcome = await task
    assert outcome.limit == "time", "it ran on to its limit"
    assert outcome.duration_s > 1.9, "and had its time: the pause was added to it"


def weight(pid: int) -> str | None:
    """The nice value of a session (sched(7), autogroup)."""
    try:
        return Path(f"/proc/{pid}/autogroup").read_text().split()[-1]
    except FileNotFoundError:
        return None


async def test_the_weight_that_a_stop_needed_is_taken_back(stand: Stand) -> None:
    _, task, target = await stand.running("wasm", "spin", 1)
    launcher = stand.workshop.launcher.pid
    if weight(launcher) is None:
        pytest.skip("this kernel has no autogroups")
    sessions = autogroup.sessions(root.pid for root in target.roots)
    assert sessions == {launcher}
    autogroup.hurry(sessions)
    assert weight(launcher) == "0"
    await until(lambda: weight(launcher) == "19", "the launcher yields again")
    autogroup.hurry(sessions)
    assert (await asyncio.to_thread(stopping.thaw, [target])).verified
    await until(lambda: weight(launcher) == "19", "a thaw yields again")
    await asyncio.to_thread(stopping.kill, [target])
    with pytest.raises(SandboxGoneError):
        await task


async def test_a_child_that_is_held_stands_in_its_cgroup_before_it_is_recorded(
    stand: Stand,
) -> None:
    seen = []

    def freeze_it(target: Standing) -> None:
        assert target.cgroup is not None
        assert {root.pid for root in target.roots} == cgroup.pids(target.cgroup)
        seen.append(target)
        assert stopping.freeze([target]).verified

    sandbox = stand.sandbox("wasm", "spin", freeze_it)
    preparing = asyncio.create_task(sandbox.prepare())
    await until(lambda: bool(seen), "it is recorded")
    before = cpu_ticks({seen[0].roots[0].pid})
    await asyncio.sleep(0.2)
    assert not preparing.done(), "it was let go, but it stands still"
    assert cpu_ticks({seen[0].roots[0].pid}) == before
    assert stopping.thaw(seen).verified
    await preparing


async def test_a_child_that_is_killed_while_it_is_held_never_runs(stand: Stand) -> None:
    sandbox = stand.sandbox("wasm", "spin", _killed)
    with pytest.raises(SandboxGoneError):
        await sandbox.prepare()


def _killed(target: Standing) -> None:
    assert stopping.kill([target]).verified


async def test_a_tombstone_ends_the_launch_right_before_it(stand: Stand) -> None:
    tombstone = stand.workshop.folder / "G-1"
    sandbox = stand.sandbox("wasm", "spin", lambda _target: tombstone.touch(), (tombstone,))
    with pytest.raises(RefusedError):
        await sandbox.prepare()


async def test_without_its_cgroup_nothing_is_started(stand: Stand) -> None:
    (stand.cgroups.path / cgroup.JOBS).rmdir()
    with pytest.raises(PrepareFailedError):
        await stand.sandbox("wasm", "spin").prepare()
    (stand.cgroups.path / cgroup.JOBS).mkdir()


@needs_bubblewrap
async def test_a_task_neither_sees_nor_writes_the_cgroup_hierarchy(stand: Stand) -> None:
    script = (
        "cat /proc/self/cgroup; grep -c cgroup /proc/self/mountinfo; ls /sys 2>/dev/null;"
        "mkdir cg; mount -t cgroup2 none cg 2>/dev/null && echo mounted;"
        "for f in /sys/fs/cgroup/cgroup.procs /proc/1/root/sys/fs/cgroup/cgroup.procs; do"
        " (: > $f) 2>/dev/null && echo $f; done; true"
    )
    sandbox = stand.sandbox("process", script)
    await sandbox.prepare()
    outcome = await sandbox.run(0)
    shown = outcome.value.decode().split()
    assert "0::/" in shown, "its own cgroup is the top of what it sees"
    assert all(word.startswith("0::/") or ":/" in word or word == "0" for word in shown), shown
    assert stand.cgroups.path.name not in outcome.value.decode()


async def test_another_lenderd_cannot_take_a_subtree_that_is_held(stand: Stand) -> None:
    """Nor does it remove it as abandoned; its own stands beside."""
    _, task, target = await stand.running("wasm", "spin", 1)
    assert subtree.claim(stand.state, os.getpid(), None) is None
    other = stand.workshop.folder / "other"
    idle = subprocess.Popen(["sleep", "60"])  # noqa: ASYNC220 - its end is ours
    try:
        beside = subtree.claim(other, idle.pid, None)
        assert beside is not None
        assert beside.path != stand.cgroups.path
        assert tree.alive(target.roots[0])
    finally:
        idle.kill()
        idle.wait()
    beside.close()
    assert not beside.path.exists()
    await asyncio.to_thread(stopping.kill, [target])
    with pytest.raises(SandboxGoneError):
        await task


def test_what_an_earlier_lenderd_left_is_killed_and_removed(tmp_path: Path) -> None:
    left = subprocess.Popen(["sleep", "600"])
    idle = subprocess.Popen(["sleep", "600"])
    try:
        first = subtree.claim(tmp_path / "state", idle.pid, None)
        if first is None:
            pytest.skip("no cgroup v2 subtree is ours here: not root, and none delegated")
        leaf = first.leaf("L-1")
        leaf.mkdir()
        (leaf / "cgroup.procs").write_text(str(left.pid))
        (leaf / "cgroup.freeze").write_text("1")
        os.close(first._lock)  # as its death would
        second = subtree.claim(tmp_path / "state", idle.pid, None)
        assert second is not None
        assert left.wait(10) == -9
        assert not leaf.exists()
        assert second.left_cpu_s["L-1"] > 0, "what it had used is known"
    finally:
        for process in (left, idle):
            process.kill()
            process.wait()
    second.close()
    assert not second.path.exists()


def record(state: Path, leaf: Path | str | None) -> AttemptRecord:
    scratch, cgroup = str(state / "scratch" / "L-1"), leaf and str(leaf)
    return AttemptRecord("L-1", "job", "U", "render", "G-1", (), scratch, cgroup)


def test_a_record_that_names_a_strangers_cgroup_is_not_followed(tmp_path: Path) -> None:
    top = cgroup.mount()
    if top is None:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    state = tmp_path / "state"
    (state / "attempts").mkdir(parents=True)
    records, name = AttemptRecords(state / "attempts"), cgroup.name_for(state)
    good = top / "x.service" / name / "jobs" / "L-1"
    records.write(record(state, good))
    assert [one.cgroup for one in records.read_all().records] == [str(good)]
    lies = [
        top,
        top / "user.slice" / "jobs" / "L-1",
        top / "lender-1-2" / "jobs" / "L-1",
        top / name / "jobs",
        top / name / "jobs" / ".." / ".." / name / "jobs" / "L-1",
        f"{top}/{name}/jobs/.",
        f"{top}/{name}/jobs/",
        f"{top}/{name}//jobs/L-1",
        Path("/tmp") / name / "jobs" / "L-1",
    ]
    for lie in lies:
        records.write(record(state, lie))
        reading = records.read_all()
        assert (len(reading.records), len(reading.unreadable)) == (0, 1), lie


def test_a_record_without_a_cgroup_reads(tmp_path: Path) -> None:
    records = AttemptRecords(tmp_path)
    records.write(record(tmp_path, None))
    path = tmp_path / "L-1.json"
    content = json.loads(path.read_text())
    del content["cgroup"]  # as an earlier version wrote it
    path.write_text(json.dumps(content))
    assert [one.cgroup for one in records.read_all().records] == [None]


def test_stopping_needs_the_standard_library_only() -> None:
    """`lender revoke` uses it with the daemon stopped, and starts in milliseconds."""
    code = (
        "import sys; import lender.sandbox.processes.stopping\n"
        "ours = sorted(m for m in sys.modules if m.startswith('lender.'))\n"
        "print(*ours, 'asyncio' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert shown == [
        "lender.sandbox",
        "lender.sandbox.processes",
        *(
            f"lender.sandbox.processes.{name}"
            for name in ("account", "autogroup", "cgroup", "stopping", "table", "tree")
        ),
        "False",
    ]
