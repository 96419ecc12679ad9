"""Thousands of tasks over many leases, with faults among them: nothing is left of any.

LENDER_SOAK_TASKS says how many tasks, 300 by default; `make soak-sandbox` runs 10,000: five minutes
on two cores that nobody else wants, and far more where somebody does, as sandboxes run on what is
left.
"""

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from attacks import function
from sandboxes import LIMITS, USER, Workshop, mounts, needs_bubblewrap, open_folder, until

from lender.sandbox.files import outputs
from lender.sandbox.launcher import Launcher
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import Limits, Runtime, TaskOutcome
from lender.sandbox.port import PrepareFailedError, SandboxGoneError
from lender.sandbox.processes import subtree
from lender.sandbox.processes.subtree import Subtree

__all__ = ["open_folder"]  # fixtures

TASKS = int(os.environ.get("LENDER_SOAK_TASKS", "300"))
SEED = int(os.environ.get("LENDER_SOAK_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
_FAULTY = 0.25
_LOOK_EVERY_LEASES = 50
_INPUT = b"content of the input"


class Kind(NamedTuple):
    """One kind of task.

    Attributes:
        program: one of `sandboxes.PROGRAMS`, a script for a process, or Python.
        weight: how often it is drawn.
        tasks_max: tasks of a lease at most.
        ends: state, exit code and limit that it must end with.
        limits: what it may use.
    """

    program: str
    weight: int
    tasks_max: int
    ends: tuple[str, int | None, str | None]
    limits: Limits = LIMITS


SHORT, CUT = LIMITS._replace(time_s=0.1), LIMITS._replace(output_bytes=1000)
BOTH = (
    Kind("hello", 6, 40, ("succeeded", 0, None)),
    Kind("fail", 2, 10, ("failed", 3, None)),
    Kind("copy", 4, 20, ("succeeded", 0, None)),
    Kind("flood", 1, 3, ("failed", None, "output"), CUT),
    Kind("fill", 1, 2, ("failed", None, "disk")),
    Kind("spin", 1, 2, ("failed", None, "time"), SHORT),
    Kind("sleep", 1, 2, ("failed", None, "time"), SHORT),
)
KINDS: dict[Runtime, tuple[Kind, ...]] = {
    "wasm": BOTH,
    "process": (
        *BOTH,
        Kind("(setsid sleep 60 &) ; sleep 60 & printf x", 2, 10, ("succeeded", 0, None)),
        Kind(
            "mkdir -p a/b; ln -s / d; chmod 555 a; kill -9 -1; true", 2, 5, ("succeeded", 0, None)
        ),
        Kind("kill -9 0", 1, 2, ("failed", None, None)),
    ),
    "oci": BOTH,
    "python": (
        Kind("print('hello')", 6, 40, ("succeeded", 0, None)),
        Kind("raise ValueError", 2, 10, ("failed", None, None)),
        Kind("import os; os._exit(1)", 1, 3, ("failed", None, None)),
        Kind("print('x' * 2000)", 1, 3, ("failed", None, "output"), CUT),
        Kind("open('x', 'wb').write(bytes(8 << 20))", 1, 3, ("failed", None, "disk")),
        Kind("while True: pass", 1, 2, ("failed", None, "time"), SHORT),
        Kind("import subprocess as s; s.Popen(['sleep', '60'])", 2, 10, ("succeeded", 0, None)),
    ),
}
# How often each is drawn; a container takes ten times as long as any other.
WEIGHTS = {"wasm": 4, "process": 4, "python": 4, "oci": 1}
if shutil.which("crun") is None:
    del KINDS["oci"]


class Left(NamedTuple):
    """What sandboxes could leave behind."""

    processes: int
    cgroups: int
    mounts: tuple[int, int]
    descriptors: tuple[int, int]
    folders: int


class Soak:
    """The machine under load: a launcher, replaced when it dies, and whatever it left."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self.chance = chance
        self.counts: Counter[str] = Counter()
        self.workshop: Workshop | None = None
        self._cgroups: Subtree | None = None
        self._sessions: set[int] = set()

    async def start(self) -> None:
        """Start a launcher, as lenderd does at its own start."""
        launcher = await Launcher.start(drop_to=USER)
        self._sessions.add(launcher.pid)
        self._cgroups = subtree.claim(self.folder / "state", launcher.pid, USER)
        if self.workshop is None:
            self.workshop = Workshop(self.folder, launcher, self._cgroups)
            self.workshop.scratch.rmdir()
        self.workshop.launcher, self.workshop.cgroups = launcher, self._cgroups

    async def stop(self) -> None:
        """End the launcher and what hangs on it."""
        assert self.workshop is not None
        await self.workshop.launcher.close()
        if self._cgroups is not None:
            self._cgroups.close()

    def left(self) -> Left:
        """As of now."""
        assert self.workshop is not None
        pids = (os.getpid(), self.workshop.launcher.pid)
        jobs = None if self._cgroups is None else self._cgroups.path / "jobs"
        descriptors = [len(_descriptors(pid)) for pid in pids]
        return Left(
            processes=_of_sessions(self._sessions) - 1,  # the launcher itself
            cgroups=0 if jobs is None else sum(one.is_dir() for one in jobs.iterdir()),
            mounts=(mounts(pids[0], self.folder), mounts(pids[1], self.folder)),
            descriptors=(descriptors[0], descriptors[1]),
            folders=len(list(self.folder.glob("lease-*"))),
        )

    @contextlib.asynccontextmanager
    async def lease(self, runtime: Runtime, kind: Kind) -> AsyncIterator[LeaseSandbox]:
        """A sandbox with its working folder, which both go at the end."""
        assert self.workshop is not None
        self.counts["leases"] += 1
        scratch = self.workshop.private(f"lease-{self.counts['leases']}")
        self.workshop.scratch = scratch
        inputs = {"in.txt": self.workshop.file("blob", _INPUT)} if kind.program == "copy" else {}
        plan = self.workshop.plan(runtime, kind.program, inputs=inputs, limits=kind.limits)
        if runtime == "python":
            program = self.workshop.file("function", function(kind.program))
            plan = plan._replace(program=program, argv=())
        sandbox = self.workshop.sandbox(plan._replace(lease=scratch.name))
        self.workshop.sandboxes.clear()
        try:
            yield sandbox
        finally:
            await sandbox.close()
            scratch.rmdir()  # fails if anything is left in it

    async def run(self, sandbox: LeaseSandbox, task: int, kind: Kind, ahead: range) -> TaskOutcome:
        """Run a task of a sandbox to which nothing happens; it must end as its kind does."""
        # As lenderd: what is to be taken out must still lie there.
        outcome = await sandbox.run(task, () if kind.program == "copy" else ahead)
        assert outcome.task == task
        self.counts[f"{sandbox._plan.runtime} {outcome.limit or outcome.state}"] += 1
        self.counts["tasks"] += 1
        state, exit_code, limit = kind.ends
        assert (outcome.state, outcome.limit) == (state, limit), (kind, outcome)
        if state == "succeeded" or (limit is None and exit_code is not None):
            assert outcome.exit_code == exit_code, (kind, outcome)
        if kind.program == "copy":
            (collected,) = outputs.collect(sandbox._plan.scratch, ["out.txt"], 1000)
            with os.fdopen(collected.fd, "rb") as file:
                assert file.read() == _INPUT
        return outcome

    async def undisturbed(self, runtime: Runtime, kind: Kind) -> None:
        """One lease in which all goes well."""
        async with self.lease(runtime, kind) as sandbox:
            await sandbox.prepare()
            tasks = range(self.chance.randint(1, kind.tasks_max))
            for task in tasks:
                await self.run(sandbox, task, kind, tasks[task + 1 :])

    async def disturbed(self, runtime: Runtime, kind: Kind) -> None:
        """One lease in which something goes wrong."""
        faults = [
            self._no_process,
            self._no_descriptor,
            self._killed_child,
            self._killed_launcher,
            self._closed,
            self._cancelled,
        ]
        if os.getuid() == 0:
            faults.append(self._full_disk)
        fault = self.chance.choice(faults)
        self.counts[fault.__name__.strip("_")] += 1
        await fault(runtime, kind)

    async def _no_process(self, runtime: Runtime, kind: Kind) -> None:
        async with self.lease(runtime, kind) as sandbox:
            with self._limited("nproc", 0), pytest.raises(PrepareFailedError):
                await sandbox.prepare()

    async def _no_descriptor(self, runtime: Runtime, kind: Kind) -> None:
        """Too few to begin with, or one too few in the middle."""
        assert self.workshop is not None
        pid = self.workshop.launcher.pid
        highest = max(_descriptors(pid))
        more = self.chance.randint(0, 4)
        async with self.lease(runtime, kind) as sandbox:
            with (
                self._limited("nofile", highest + 1 + more),
                contextlib.suppress(PrepareFailedError, SandboxGoneError),
            ):
                await sandbox.prepare()

    async def _killed_child(self, runtime: Runtime, kind: Kind) -> None:
        async with self.lease(runtime, kind) as sandbox:
            await sandbox.prepare()
            (root,) = sandbox.root_pids
            running = asyncio.create_task(sandbox.run(0))
            await asyncio.sleep(self.chance.random() * 0.03)
            with contextlib.suppress(ProcessLookupError):
                os.kill(root.pid, 9)
            await self._ended(running)

    async def _killed_launcher(self, runtime: Runtime, kind: Kind) -> None:
        assert self.workshop is not None
        async with self.lease(runtime, kind) as sandbox:
            await sandbox.prepare()
            running = asyncio.create_task(sandbox.run(0))
            await asyncio.sleep(self.chance.random() * 0.03)
            os.kill(self.workshop.launcher.pid, 9)
            await self._ended(running)
        await self.stop()
        await self.start()

    async def _closed(self, runtime: Runtime, kind: Kind) -> None:
        async with self.lease(runtime, kind) as sandbox:
            await sandbox.prepare()
            running = asyncio.create_task(sandbox.run(0))
            await asyncio.sleep(self.chance.random() * 0.03)
            await sandbox.close()
            await self._ended(running)

    async def _cancelled(self, runtime: Runtime, kind: Kind) -> None:
        """At any moment from before its first process to after its first task."""
        async with self.lease(runtime, kind) as sandbox:

            async def all_of_it() -> TaskOutcome:
                await sandbox.prepare()
                return await sandbox.run(0)

            running = asyncio.create_task(all_of_it())
            await asyncio.sleep(self.chance.random() * 0.03)
            running.cancel()
            await self._ended(running)

    async def _full_disk(self, runtime: Runtime, kind: Kind) -> None:
        async with self.lease(runtime, kind) as sandbox:
            with _tiny_disk(sandbox._plan.scratch):
                with contextlib.suppress(PrepareFailedError):
                    await sandbox.prepare()
                    await self._ended(asyncio.create_task(sandbox.run(0)))
                await sandbox.close()

    async def _ended(self, running: "asyncio.Task[TaskOutcome]") -> None:
        """However a disturbed task ends, it does so soon."""
        self.counts["tasks"] += 1
        done, _ = await asyncio.wait([running], timeout=20)
        assert done, "it hangs"
        self.counts["disturbed tasks"] += 1
        if not running.cancelled() and running.exception() is not None:
            assert isinstance(running.exception(), SandboxGoneError), running.exception()
            self.counts["gone"] += 1

    @contextlib.contextmanager
    def _limited(self, name: str, soft: int) -> Iterator[None]:
        """The launcher may have no more than this of something, by prlimit(1)'s name."""
        assert self.workshop is not None
        pid = self.workshop.launcher.pid
        before = _prlimit(pid, "--raw", "--noheadings", "--output=SOFT", f"--{name}").strip()
        _prlimit(pid, f"--{name}={soft}:")
        try:
            yield
        finally:
            _prlimit(pid, f"--{name}={before}:")


def _descriptors(pid: int) -> list[int]:
    return [int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()]


def _prlimit(pid: int, *words: str) -> str:
    """As the launcher's own user: root need not be allowed to."""
    user, group = USER or (None, None)
    return subprocess.run(
        ["/usr/bin/prlimit", f"--pid={pid}", *words],
        user=user,
        group=group,
        extra_groups=None if user is None else [],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@contextlib.contextmanager
def _tiny_disk(folder: Path) -> Iterator[None]:
    uid, gid = USER or (0, 0)
    about = f"size=64k,nr_inodes=8,mode=0700,uid={uid},gid={gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", about, "lender-soak", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def _of_sessions(sessions: set[int]) -> int:
    """The living processes of these sessions; nobody gets out of one in a sandbox."""
    count = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry.name}/stat").read_text().rsplit(")", 1)[1].split()
                count += int(fields[3]) in sessions and fields[0] not in "ZX"
    return count


@needs_bubblewrap
@pytest.mark.timeout(240 if TASKS <= 300 else 4 * 3600)
async def test_nothing_is_left_of_thousands_of_tasks(open_folder: Path) -> None:
    soak = Soak(open_folder, random.Random(SEED))
    await soak.start()
    before, started = soak.left(), time.monotonic()
    looked_at = 0
    while soak.counts["tasks"] < TASKS:
        (runtime,) = soak.chance.choices(list(KINDS), [WEIGHTS[one] for one in KINDS])
        kinds = KINDS[runtime]
        (kind,) = soak.chance.choices(kinds, [one.weight for one in kinds])
        is_faulty = soak.chance.random() < _FAULTY
        await (soak.disturbed if is_faulty else soak.undisturbed)(runtime, kind)
        if soak.counts["leases"] >= looked_at + _LOOK_EVERY_LEASES:
            looked_at = soak.counts["leases"]
            await until(lambda: soak.left() == before, f"seed {SEED}: {before}, {soak.left()}", 60)
            sys.stdout.write(f"{soak.counts['tasks']} tasks, {time.monotonic() - started:.0f} s\n")
            sys.stdout.flush()
    with contextlib.suppress(AssertionError):
        await until(lambda: soak.left() == before, "nothing is left", 10)
    after = soak.left()
    sys.stdout.write(f"seed {SEED}, {time.monotonic() - started:.1f} s, {dict(soak.counts)}\n")
    sys.stdout.write(f"before {before}\nafter  {after}\n")
    assert after == before, f"seed {SEED}"
    await soak.stop()
    assert _of_sessions(soak._sessions) == 0
