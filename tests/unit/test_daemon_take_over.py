"""A sandbox that goes on for another lease stays within reach of its owner all the while."""

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core_world import LENDER, lease_id, make_lease, make_spec

from lender.core.consent import Intent
from lender.core.effects import OpenSandbox
from lender.core.events import (
    CheckpointSaved,
    Event,
    PreparationFailed,
    SandboxPrepared,
    TasksEnded,
    TaskTerminated,
    UsageMetered,
)
from lender.daemon.execution import Execution
from lender.daemon.machinery import Machinery, OnLog
from lender.daemon.results import ResultMaker
from lender.daemon.seals import Seals
from lender.daemon.task_logs import TaskLogs
from lender.link.blobs import Reference
from lender.protocol.bounds import CHUNK_RESULTS_MAX
from lender.protocol.job import BlobRef
from lender.protocol.lease import Lease
from lender.protocol.signature import Signer, seed_from_entropy
from lender.sandbox.files import checkpoint
from lender.sandbox.plan import SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.processes import tree
from lender.state.attempt_records import AttemptRecords
from lender.state.consent_files import write_intent, write_tombstones
from lender.state.folder import StateFolder

SPEC = make_spec(
    workload="command",
    runtime="process",
    program=None,
    argv=("true",),
    inputs=(),
    array={"count": 9},
    checkpoint=True,
)


class Receipts:
    """Each is durable once a test says so."""

    def __init__(self) -> None:
        self.written: dict[str, asyncio.Event] = {}

    def event(self, number: int) -> asyncio.Event:
        return self.written.setdefault(lease_id(number), asyncio.Event())

    async def durable(self, lease: str) -> bool:
        await self.written.setdefault(lease, asyncio.Event()).wait()
        return True


class Sandbox:
    """A real process that sleeps; what its tasks come to is up to the test."""

    cgroup = None

    def __init__(self, pid: int) -> None:
        self.root_pids = (tree.identify(pid),)
        self.outcomes: asyncio.Queue[TaskOutcome] = asyncio.Queue()
        self.began = asyncio.Event()
        self.jobs: list[tuple[object, ...]] = []

    def begin_job(self, job: str, task_count: int, *, separate: bool, each: object) -> None:
        self.jobs.append((job, task_count, separate, each))

    async def load(self, job: str, task_count: int, program: Path) -> None:
        self.jobs.append((job, task_count, program))
        if program.name == "broken":
            raise PrepareFailedError("can't be loaded", invalid=True, field="program")

    def open(self, plan: SandboxPlan, record: Any, _: object, on_log: OnLog) -> Any:  # noqa: ANN401 - part of a sandbox
        self.plan, self._record, self.on_log = plan, record, on_log
        return self

    async def prepare(self) -> None:
        await self._record(self.root_pids)

    async def run(self, _task: int, _ahead: tuple[int, ...] = ()) -> TaskOutcome:
        self.began.set()
        return await self.outcomes.get()

    async def close(self) -> None:
        pass


class Store:
    """Keeps what is uploaded; while `flows` is not set nothing gets there."""

    def __init__(self) -> None:
        self.blobs: list[bytes] = []
        self.flows = asyncio.Event()
        self.flows.set()

    async def put_bytes(self, submitter: str, content: bytes) -> BlobRef:
        await self.flows.wait()
        assert submitter == SPEC.submitter
        self.blobs.append(content)
        return BlobRef(sha256="ab" * 32, size_bytes=len(content), by=LENDER)


class World:
    def __init__(self, state: StateFolder, pid: int) -> None:
        self.state = state
        self.records = AttemptRecords(state.attempts)
        self.receipts = Receipts()
        self.sandbox = Sandbox(pid)
        self.store = Store()
        self.inputs = Inputs()
        self.logs = TaskLogs(LENDER, lambda: 0.0)
        self.told: asyncio.Queue[Event] = asyncio.Queue()
        blobs: Any = self.store
        seals = Seals(Signer(seed_from_entropy(bytes(32))), state.scratch)
        parts: dict[str, Any] = {
            "inputs": self.inputs,
            "receipts": self.receipts,
            "open_sandbox": self.sandbox.open,
            "results": ResultMaker(blobs),
            "seals": seals,
            "logs": self.logs,
        }
        self.machinery = Machinery(
            state=state,
            records=self.records,
            post=self.told.put_nowait,
            reread_consent=lambda: None,
            **parts,
        )

    def leases(self) -> list[str]:
        return sorted(one.lease for one in self.records.read_all().records)

    async def first(self) -> Execution:
        execution = Execution(self.machinery, OpenSandbox(lease(1), SPEC, "G-1"))
        assert await self.told.get() == SandboxPrepared(lease_id(1))
        return execution


class Inputs:
    def __init__(self) -> None:
        self.held: set[str] = set()

    def for_lease(self, _: str) -> "Inputs":
        return self

    async def fetch(self, wanted: Reference) -> Path:
        self.held.add(wanted.sha256)
        return Path("broken" if wanted.size_bytes == 0 else wanted.sha256)

    def release_all_but(self, digests: set[str]) -> None:
        self.held &= digests

    def release(self) -> None:
        pass


def lease(number: int) -> Lease:
    return make_lease(SPEC, number, ranges=((number, 1),))


def more(number: int) -> OpenSandbox:
    return OpenSandbox(lease(number), SPEC, "G-1", reuse=lease_id(number - 1))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    state = StateFolder(tmp_path / "state")
    state.create()
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        yield World(state, process.pid)
        process.kill()


async def until(condition: Any) -> None:  # noqa: ANN401 - a question
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - files tell nobody
            await asyncio.sleep(0.005)


async def test_there_is_a_record_at_every_moment_and_the_old_one_waits_for_its_receipt(
    world: World,
) -> None:
    execution = await world.first()
    execution.keep()
    assert execution.idle
    assert world.leases() == [lease_id(1)]
    assert execution.stands
    execution.take_over(more(2))
    assert not execution.idle
    assert await world.told.get() == SandboxPrepared(lease_id(2))
    assert world.leases() == [lease_id(1), lease_id(2)]
    roots = {one.roots for one in world.records.read_all().records}
    assert roots == {world.sandbox.root_pids}
    assert {Path(one.scratch).name for one in world.records.read_all().records} == {lease_id(1)}
    world.receipts.event(1).set()
    await until(lambda: world.leases() == [lease_id(2)])
    execution.take_over(more(3))
    assert await world.told.get() == SandboxPrepared(lease_id(3))
    _report, cleaning = execution.close()
    for number in (2, 3):
        world.receipts.event(number).set()
    await cleaning
    assert world.leases() == []
    assert not tree.alive(world.sandbox.root_pids[0])


async def test_an_idle_sandbox_stands_still_and_goes_on_with_its_next_lease(world: World) -> None:
    execution = await world.first()
    execution.keep()
    await until(lambda: tree.stopped(world.sandbox.root_pids[0]))
    execution.take_over(more(2))
    execution.freeze()  # before it went on: then it does not
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await world.told.get()
    assert tree.stopped(world.sandbox.root_pids[0])
    execution.thaw()
    assert await world.told.get() == SandboxPrepared(lease_id(2))
    assert not tree.stopped(world.sandbox.root_pids[0])
    execution.close()


@pytest.mark.parametrize("word", ["revoke", "pause"])
async def test_the_owners_word_that_lenderd_has_not_heard_ends_a_take_over(
    world: World, word: str
) -> None:
    execution = await world.first()
    execution.keep()
    if word == "revoke":
        write_tombstones(world.state, ("G-1",), 1.0)
    else:
        write_intent(world.state, Intent(paused=True, paused_at=1.0))
    execution.take_over(more(2))
    failed = await world.told.get()
    assert isinstance(failed, PreparationFailed)
    assert (failed.lease, failed.invalid) == (lease_id(2), False)
    execution.close()


async def test_the_next_job_brings_the_words_of_its_own_tasks(world: World) -> None:
    execution = await world.first()
    assert (world.sandbox.plan.separate, world.sandbox.plan.each) == (False, ())
    each = (("a",), ("b",))
    array = {"count": 2, "each": each, "separate": True}
    spec = SPEC.model_validate(
        SPEC.model_dump() | {"id": "job-00002", "array": array, "checkpoint": False}
    )
    execution.take_over(OpenSandbox(make_lease(spec, 2), spec, "G-1", reuse=lease_id(1)))
    assert await world.told.get() == SandboxPrepared(lease_id(2))
    assert world.sandbox.jobs == [("job-00002", 2, True, each)]
    execution.close()
    other = Execution(world.machinery, OpenSandbox(make_lease(spec, 3), spec, "G-1"))
    assert await world.told.get() == SandboxPrepared(lease_id(3))
    assert (world.sandbox.plan.separate, world.sandbox.plan.each) == (True, each)
    other.close()


def python_job(number: int, **changes: object) -> OpenSandbox:
    program = {"sha256": f"{number}" * 64, "size_bytes": 5}
    fields = {"id": f"job-0000{number}", "runtime": "python", "requires": {"python": "3.11"}}
    spec = make_spec(**{"program": program, "array": {"count": 9}} | fields | changes)
    return OpenSandbox(make_lease(spec, number), spec, "G-1", reuse=lease_id(number - 1))


async def test_the_next_job_of_an_interpreter_brings_its_program(world: World) -> None:
    first = python_job(1)
    execution = Execution(world.machinery, replace(first, reuse=None))
    assert await world.told.get() == SandboxPrepared(lease_id(1))
    inputs = {one.sha256 for one in first.spec.inputs}
    assert world.inputs.held == {"1" * 64, *inputs}
    execution.keep()
    execution.take_over(python_job(2))
    assert await world.told.get() == SandboxPrepared(lease_id(2))
    assert world.sandbox.jobs == [("job-00002", 9, Path("2" * 64))]
    assert world.inputs.held == {"2" * 64, *inputs}, "the other's is nobody's any more"
    assert not tree.stopped(world.sandbox.root_pids[0])
    again = replace(python_job(3), spec=python_job(2).spec)
    execution.take_over(again)
    assert await world.told.get() == SandboxPrepared(lease_id(3))
    assert len(world.sandbox.jobs) == 1, "more of a job has its program"
    execution.take_over(python_job(4, program={"sha256": "4" * 64, "size_bytes": 0}))
    failed = PreparationFailed(lease_id(4), True, "program", "can't be loaded")
    assert await world.told.get() == failed
    execution.close()


async def test_results_and_use_go_to_the_lease_that_they_are_of(world: World) -> None:
    execution = await world.first()
    execution.take_over(more(2))
    assert await world.told.get() == SandboxPrepared(lease_id(2))
    execution.run((2,))
    world.sandbox.outcomes.put_nowait(TaskOutcome(2, "succeeded", 0, memory_peak_bytes=7))
    ended = await world.told.get()
    assert isinstance(ended, TasksEnded)
    assert (ended.lease, ended.results[0].task) == (lease_id(2), 2)
    assert ended.used == UsageMetered(lease_id(2), 0.0, 7, 0)
    execution.close()


async def test_a_result_does_not_wait_for_a_long_task_behind_it(world: World) -> None:
    execution = await world.first()
    execution.run((1, 2))
    world.sandbox.outcomes.put_nowait(TaskOutcome(1, "succeeded", 0))
    async with asyncio.timeout(20):
        ended = await world.told.get()
    assert isinstance(ended, TasksEnded)
    assert [one.task for one in ended.results] == [1]
    world.sandbox.outcomes.put_nowait(TaskOutcome(2, "succeeded", 0))
    ended = await world.told.get()
    assert isinstance(ended, TasksEnded)
    assert [one.task for one in ended.results] == [2]
    execution.close()


async def test_no_more_results_are_told_at_once_than_a_report_takes(world: World) -> None:
    execution = await world.first()
    count = 2 * CHUNK_RESULTS_MAX + 100
    for task in range(count):
        world.sandbox.outcomes.put_nowait(TaskOutcome(task, "succeeded", 0))
    execution.run(tuple(range(count)))
    found: list[int] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            ended = await world.told.get()
            assert isinstance(ended, TasksEnded)
            assert len(ended.results) <= CHUNK_RESULTS_MAX
            found += [one.task for one in ended.results]
    assert found == list(range(count))
    execution.close()


async def test_a_log_is_of_the_lease_in_work_and_ends_with_it(world: World) -> None:
    def goes_out(now: float) -> tuple[str, bytes] | None:
        found = world.logs._queues.next(now)
        return found and (found.lease, found.piece.content)

    execution = await world.first()
    world.sandbox.on_log(1, b"one\n")
    execution.freeze()
    world.sandbox.on_log(1, b"two\n")
    assert goes_out(1.0) is None
    execution.thaw()
    assert goes_out(1.0) == (lease_id(1), b"one\n")
    execution.take_over(more(2))
    assert await world.told.get() == SandboxPrepared(lease_id(2))
    world.sandbox.on_log(2, b"three\n")
    assert goes_out(9.0) == (lease_id(2), b"three\n")
    world.sandbox.on_log(2, b"four\n")
    execution.close()
    world.sandbox.on_log(2, b"five\n")
    assert goes_out(9.0) is None


def leave(world: World, content: str) -> None:
    folder = world.sandbox.plan.scratch / "checkpoint"
    folder.mkdir()
    (folder / "n").write_text(content)


async def test_what_a_task_that_was_asked_to_end_has_left_is_saved(
    world: World, tmp_path: Path
) -> None:
    execution = await world.first()
    execution.run((1, 2))
    await world.sandbox.began.wait()
    leave(world, "17")
    execution.terminate()
    await until(lambda: not tree.alive(world.sandbox.root_pids[0]))  # SIGTERM ends a sleeper
    world.sandbox.outcomes.put_nowait(TaskOutcome(1, "failed", 3, duration_s=1.0, terminated=True))
    assert await world.told.get() == TaskTerminated(lease_id(1))
    _report, cleaning = execution.close(save=True)
    saved = await world.told.get()
    assert isinstance(saved, CheckpointSaved)
    ((task, blob),) = saved.checkpoints
    assert (task, blob.size_bytes, blob.by) == (1, len(world.store.blobs[0]), LENDER)
    world.receipts.event(1).set()
    await cleaning
    assert not world.sandbox.plan.scratch.exists()
    archive, scratch = tmp_path / "archive", tmp_path / "scratch"
    archive.write_bytes(world.store.blobs[0])
    scratch.mkdir()
    checkpoint.unpack(archive, scratch, 1 << 20)
    assert (scratch / "checkpoint" / "n").read_text() == "17"


async def test_a_task_that_never_began_leaves_nothing_of_the_one_before(world: World) -> None:
    execution = await world.first()
    execution.run((1,))
    await world.sandbox.began.wait()
    leave(world, "of another task")
    world.sandbox.outcomes.put_nowait(TaskOutcome(1, "failed", terminated=True))
    assert await world.told.get() == TaskTerminated(lease_id(1))
    execution.close(save=True)
    assert await world.told.get() == CheckpointSaved(lease_id(1), ())
    assert world.store.blobs == []


async def test_what_may_not_leave_a_sandbox_is_not_saved(world: World) -> None:
    execution = await world.first()
    execution.run((1,))
    await world.sandbox.began.wait()
    (world.sandbox.plan.scratch / "checkpoint").symlink_to("/etc")
    execution.close(save=True)
    assert await world.told.get() == CheckpointSaved(lease_id(1), ())
    assert world.store.blobs == []


async def test_an_abandoned_checkpoint_does_not_leave_and_is_not_told(world: World) -> None:
    world.store.flows.clear()
    execution = await world.first()
    execution.run((1,))
    await world.sandbox.began.wait()
    leave(world, "secret")
    _report, cleaning = execution.close(save=True)
    await asyncio.sleep(0)
    execution.abandon()
    world.store.flows.set()
    world.receipts.event(1).set()
    await cleaning
    assert world.store.blobs == []
    assert world.told.empty()
    assert not world.sandbox.plan.scratch.exists()
