"""What a lease fetched stays until its sandbox is closed; a full cache is no fault of the job."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from core_world import make_lease, make_spec

from lender.core.effects import OpenSandbox
from lender.core.events import Event, PreparationFailed, SandboxPrepared
from lender.daemon.execution import Execution
from lender.daemon.inputs import InputCache, InputError
from lender.daemon.machinery import Machinery
from lender.daemon.seals import Seals
from lender.daemon.task_logs import TaskLogs
from lender.link.blobs import BlobMissingError, Reference
from lender.protocol.job import BlobRef
from lender.protocol.signature import Signer, seed_from_entropy
from lender.sandbox.plan import SandboxPlan
from lender.state.folder import StateFolder

SIZE = 64 * 1024
CONTENTS = {hashlib.sha256(one).hexdigest(): one for one in (b"a" * SIZE, b"b" * SIZE)}
PROGRAM, OTHER = CONTENTS


class Store:
    """Has `CONTENTS`; while `flows` is not set a transfer comes to nothing."""

    def __init__(self) -> None:
        self.flows = asyncio.Event()
        self.flows.set()
        self.begun = asyncio.Event()
        self.broken_off = asyncio.Event()

    async def get_to(self, submitter: str, blob: Reference, path: Path) -> None:
        assert submitter in path.parts
        if blob.sha256 not in CONTENTS:
            raise BlobMissingError(blob.sha256, "the bucket does not hold it")
        self.begun.set()
        try:
            await self.flows.wait()
        except asyncio.CancelledError:
            self.broken_off.set()
            raise
        path.write_bytes(CONTENTS[blob.sha256][: blob.size_bytes])  # noqa: ASYNC240 - 64 KiB


class Sandbox:
    """Stands until `may_end` is set; a close that fails is no excuse to keep anything."""

    cgroup = None
    root_pids = ()

    def __init__(self) -> None:
        self.plans: list[SandboxPlan] = []
        self.closing = asyncio.Event()
        self.may_end = asyncio.Event()

    def open(self, plan: SandboxPlan, *_: object) -> Any:  # noqa: ANN401 - part of a sandbox
        self.plans.append(plan)
        return self

    async def prepare(self) -> None:
        pass

    async def close(self) -> None:
        self.closing.set()
        await self.may_end.wait()
        raise OSError(5, "Input/output error")


class World:
    """An execution's surroundings: a cache of `blobs_max` blobs, and what it tells."""

    def __init__(self, state: StateFolder, store: Store, cache: InputCache) -> None:
        self.store = store
        self.cache = cache
        self.sandbox = Sandbox()
        self.told: asyncio.Queue[Event] = asyncio.Queue()
        logs = TaskLogs("U" + "L" * 55)
        parts: dict[str, Any] = {"records": None, "results": None, "receipts": None, "logs": logs}
        self.machinery = Machinery(
            open_sandbox=self.sandbox.open,
            state=state,
            inputs=cache,
            seals=Seals(Signer(seed_from_entropy(bytes(32))), state.scratch),
            post=self.told.put_nowait,
            reread_consent=lambda: None,
            **parts,
        )

    def execution(self, sha256: str, size_bytes: int = SIZE) -> Execution:
        program = {"sha256": sha256, "size_bytes": size_bytes}
        spec = make_spec(program=program, inputs=())
        return Execution(self.machinery, OpenSandbox(make_lease(spec), spec, "G-1"))


@pytest.fixture
async def world(tmp_path: Path) -> World:
    state = StateFolder(tmp_path / "state")
    state.create()
    store = Store()
    blobs: Any = store
    return World(state, store, await InputCache.open(state, blobs, SIZE))


async def use(cache: InputCache, sha256: str) -> Path:
    lease = cache.for_lease("U" + "B" * 55)
    try:
        return await lease.fetch(BlobRef(sha256=sha256, size_bytes=SIZE))
    finally:
        lease.release()


async def test_what_a_lease_reads_stays_until_its_sandbox_is_closed(world: World) -> None:
    execution = world.execution(PROGRAM)
    assert isinstance(await world.told.get(), SandboxPrepared)
    (plan,) = world.sandbox.plans
    assert plan.program is not None
    assert plan.program.read_bytes() == CONTENTS[PROGRAM]
    _report, cleaning = execution.close()
    await world.sandbox.closing.wait()
    with pytest.raises(InputError, match="for running work"):
        await use(world.cache, OTHER)
    world.sandbox.may_end.set()
    with pytest.raises(OSError, match="Input/output"):
        await cleaning
    assert await use(world.cache, OTHER)
    assert not plan.program.exists()


async def test_what_stands_still_fetches_nothing(world: World) -> None:
    world.store.flows.clear()
    execution = world.execution(PROGRAM)
    await world.store.begun.wait()
    execution.freeze()
    await world.store.broken_off.wait()
    world.store.flows.set()
    world.store.begun.clear()
    execution.thaw()
    assert isinstance(await world.told.get(), SandboxPrepared)
    assert world.store.begun.is_set()


async def test_what_is_ended_while_it_fetches_begins_nothing_again(world: World) -> None:
    world.store.flows.clear()
    execution = world.execution(PROGRAM)
    await world.store.begun.wait()
    execution.freeze()
    world.store.begun.clear()
    _report, cleaning = execution.close()
    execution.thaw()
    await asyncio.wait([cleaning])
    assert cleaning.exception() is None
    assert world.store.broken_off.is_set()
    assert not world.store.begun.is_set()
    assert world.told.empty()


@pytest.mark.parametrize(
    ("sha256", "size_bytes", "invalid"),
    [("0" * 64, SIZE, True), (PROGRAM, SIZE + 1, False)],
)
async def test_only_what_no_machine_could_have_is_the_jobs_fault(
    world: World,
    sha256: str,
    size_bytes: int,
    invalid: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    world.execution(sha256, size_bytes)
    failed = await world.told.get()
    assert isinstance(failed, PreparationFailed)
    assert failed.invalid == invalid
    assert sha256 in failed.reason


async def test_ending_an_execution_breaks_off_a_transfer_that_hangs(world: World) -> None:
    world.store.flows.clear()
    execution = world.execution(PROGRAM)
    await world.store.begun.wait()
    _report, cleaning = execution.close()
    await asyncio.wait([cleaning])
    assert cleaning.exception() is None
    assert world.store.broken_off.is_set()
    assert world.told.empty()
