"""Where attacks are tried: an owner to rob, neighbours to harm, and a look at both afterwards.

`arena.attack` makes an attempt inside a sandbox; `arena.outside` makes the same one without any
walls and `arena.without_filter` without the system call filter, to show that the attempt is real.
After each test the arena itself asserts that nothing of the owner's was read, changed, reached or
stopped, that the neighbours go on, and that no process, cgroup, mount or descriptor is left.
"""

import asyncio
import contextlib
import ctypes
import functools
import gc
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from attacks import (
    NEEDS,
    PROGRAMS,
    PYTHON,
    Guest,
    Tried,
    interpreter,
    read_numbers,
    read_value,
    read_words,
    source,
    told,
)
from sandboxes import LIMITS, USER, Workshop, module, mounts, until

from lender.sandbox.launcher import Launcher
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import Limits, Runtime, SandboxPlan, TaskOutcome
from lender.sandbox.processes import subtree, tree
from lender.sandbox.processes.subtree import Subtree
from lender.sandbox.walls import bubblewrap

SECRET = f"owners-secret-{os.urandom(8).hex()}"
NAME = f"lender-attack-{os.urandom(4).hex()}"
_DESKTOP = ("DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "WAYLAND_DISPLAY", "DISPLAY")
_BYSTANDER = Path(__file__).with_name("bystander.py")
_SHOWN_BYTES_MAX = 1 << 16
_FILES_MAX, _DEPTH_MAX = 2000, 10
_CONTROL_S = 30.0
# The loop of a module's tests is the loop of its arena.
in_one_loop = pytest.mark.asyncio(loop_scope="module")

_NEIGHBOURS: dict[Runtime, str | bytes] = {
    "process": "mkfifo stop; cat stop; cat in.txt",
    # Sleeps 10 ms (a clock subscription) until the file is there, then copies its input out.
    "wasm": module(
        "(loop $l"
        " (i64.store (i32.const 1024) (i64.const 0)) (i32.store8 (i32.const 1032) (i32.const 0))"
        " (i32.store (i32.const 1040) (i32.const 1))"
        " (i64.store (i32.const 1048) (i64.const 10000000))"
        " (drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1)"
        "   (i32.const 3072)))"
        " (br_if $l (call $open (i32.const 256) (i32.const 4) (i32.const 0) (i64.const 2))))"
        "(drop (call $open (i32.const 260) (i32.const 6) (i32.const 0) (i64.const 2)))"
        "(i32.store (i32.const 16) (i32.const 4096)) (i32.store (i32.const 20) (i32.const 4096))"
        "(drop (call $fd_read (i32.load (i32.const 28)) (i32.const 16) (i32.const 1)"
        "  (i32.const 32)))"
        "(drop (call $write (i32.const 1) (i32.const 4096) (i32.load (i32.const 32))))",
        "stopin.txt",
    ),
}


class Owner:
    """Somebody's home, and a process of theirs that must neither be reached nor die."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        for name, mode in (("notes.txt", 0o666), ("id_ed25519", 0o600), ("identity.nk", 0o600)):
            (self.home / name).write_text(f"{SECRET}\n")
            (self.home / name).chmod(mode)
        for path in (self.home, *self.home.iterdir()):
            if USER is not None:
                os.chown(path, *USER)
        arguments = (str(self.home), NAME, SECRET)
        self.process = start_as_user(
            [*interpreter(_BYSTANDER.read_text()), *arguments],
            env={"OWNERS_SECRET": SECRET},
            cwd=self.home,
        )
        assert self.process.stdout is not None
        self.places: dict[str, object] = json.loads(self.process.stdout.readline())

    def belongings(self) -> dict[str, tuple[object, ...]]:
        """Everything that an attack could have changed."""
        found: dict[str, tuple[object, ...]] = {}
        for path in (self.home, *sorted(self.home.rglob("*"))):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            about = (status.st_mode, status.st_uid, status.st_nlink, status.st_mtime_ns)
            found[str(path)] = (*about, content)
        return found

    def visitors(self) -> list[str]:
        """Which of its services were reached since the last look; it must still be alive."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.poll() is None, "the owner's own process was killed"
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        met = []
        while (line := self.process.stdout.readline().strip()) != ".":
            assert line, "the owner's own process died"
            met.append(line)
        return met

    def close(self) -> None:
        """End the process; its shared memory goes with it."""
        self.process.communicate(timeout=_CONTROL_S)


class Surroundings(NamedTuple):
    """What the tests of one module share."""

    folder: Path
    launcher: Launcher
    owner: Owner
    cgroups: Subtree | None
    open_file: int
    compiled: Path


class Arena:
    """One test's place.

    Attributes:
        owner: who is to be robbed.
        open_file: a descriptor of the daemon's that its children could inherit.
        workshop: makes the sandboxes.
    """

    def __init__(self, around: Surroundings) -> None:
        self.owner, self.open_file = around.owner, around.open_file
        folder = around.folder / os.urandom(4).hex()
        folder.mkdir(mode=0o711)
        self.workshop = Workshop(folder, around.launcher, around.cgroups)
        self._compiled = around.compiled
        self._outcomes: list[TaskOutcome] = []
        self._tried: list[Tried] = []
        self._neighbours: list[tuple[Path, asyncio.Task[TaskOutcome]]] = []

    @property
    def scratch(self) -> Path:
        """The working folder of the sandbox that was made last."""
        return self.workshop.scratch

    def source(self, code: str) -> str:
        """A whole attack in Python, that knows all of the owner but the secret itself."""
        strangers = {
            "bystander": self.owner.process.pid,
            "launcher": self.workshop.launcher.pid,
            "daemon": os.getpid(),
        }
        targets: dict[str, object] = {
            **strangers,
            "begun": {pid: tree.identify(pid).start_time for pid in strangers.values()},
            "home": str(self.owner.home),
            "name": NAME,
            "scratch": str(self.scratch),
            "places": self.owner.places,
        }
        return source(code, targets)

    def plan(
        self,
        runtime: Runtime,
        code: str = "",
        guest: Guest | None = None,
        *,
        limits: Limits = LIMITS,
        inputs: dict[str, Path] | None = None,
    ) -> SandboxPlan:
        """A plan for an attack, with a working folder of its own."""
        self._new_scratch("scratch")
        if runtime == "wasm":
            assert guest is not None, "an attack on wasm is a guest"
            return self.workshop.plan(runtime, guest.module(), limits=limits, inputs=inputs)
        fields = PROGRAMS[runtime](self.source(code))
        program = fields.get("program")
        if isinstance(program, bytes):
            fields["program"] = self.workshop.file("program", program)
        plan = self.workshop.plan(runtime, b"", limits=limits, inputs=inputs)
        return plan._replace(**fields)

    async def prepared(self, plan: SandboxPlan) -> LeaseSandbox:
        """A sandbox that is ready to run."""
        made = self.workshop.sandbox(plan)
        await made.prepare()
        return made

    async def run(self, sandbox: LeaseSandbox, task: int = 0) -> TaskOutcome:
        """Run a task; what it gave is looked through for the owner's secrets."""
        outcome = await sandbox.run(task)
        self._outcomes.append(outcome)
        return outcome

    async def attack(
        self,
        runtime: Runtime,
        code: str = "",
        guest: Guest | None = None,
        *,
        limits: Limits = LIMITS,
        inputs: dict[str, Path] | None = None,
    ) -> Tried:
        """Try it as the only task of a sandbox, which stays open behind it."""
        plan = self.plan(runtime, code, guest, limits=limits, inputs=inputs)
        return self.read(runtime, await self.run(await self.prepared(plan)), guest)

    def read(self, runtime: Runtime, outcome: TaskOutcome, guest: Guest | None = None) -> Tried:
        """What an attack came to."""
        if guest is not None and runtime == "wasm":
            tried = read_numbers(guest, outcome)
        elif runtime == "python":
            tried = read_words(read_value(outcome), outcome)
        else:
            tried = read_words(outcome.value.decode(errors="replace"), outcome)
        self._tried.append(tried)
        return tried

    def told(self) -> str:
        """What came of all that was tried here, for who wonders why a test failed."""
        read = [tried.outcome for tried in self._tried]
        others = [told(outcome) for outcome in self._outcomes if outcome not in read]
        return "\n\n".join([*(tried.told for tried in self._tried), *others])

    async def shell(self, script: str, limits: Limits = LIMITS) -> TaskOutcome:
        """Run a shell script as the only task of a process sandbox."""
        self._new_scratch("scratch")
        sandbox = await self.workshop.prepared("process", script, limits=limits)
        return await self.run(sandbox)

    async def outside(self, code: str, *, inherited: int | None = None) -> Tried:
        """The same attempt by the sandboxes' user without any walls: harmless ones only."""
        return await self._control([*interpreter(self.source(code))], inherited=inherited)

    async def without_filter(
        self, code: str, *, as_root: bool = False, env: dict[str, str] | None = None
    ) -> Tried:
        """The same attempt behind all walls but the system call filter: harmless ones only.

        Args:
            code: the attack.
            as_root: bubblewrap is started as root, as it must never be, and /proc can be written.
            env: bubblewrap's own environment, empty in a sandbox.
        """
        self._new_scratch("control")
        if as_root:
            os.chown(self.scratch, 0, 0)
        words = bubblewrap.options(str(self.scratch), {}, {}, LIMITS, {}).decode()
        if as_root:
            words = words.replace("--remount-ro\0/proc\0", "")
        command = ["bwrap", *words.split("\0")[:-1], "--", *interpreter(self.source(code))]
        return await self._control(command, as_root=as_root, env=env)

    async def open(self) -> None:
        """Settle the neighbours in: each runs a task that ends with a look at its own input."""
        for runtime, program in _NEIGHBOURS.items():
            if any(mark.args[0] for mark in NEEDS[runtime]):
                continue
            self._new_scratch("neighbour")
            plan = self.workshop.plan(
                runtime,
                program,
                inputs={"in.txt": self.workshop.file("in.txt", SECRET.encode())},
                limits=LIMITS._replace(time_s=120.0),
            )
            sandbox = await self.prepared(plan._replace(module_cache=self._compiled))
            self._neighbours.append((plan.scratch, asyncio.create_task(sandbox.run(0))))
        self._new_scratch("scratch")

    async def close(self) -> None:
        """Assert that no secret was told and no neighbour harmed; close the sandboxes."""
        secret, folders = SECRET.encode(), self.workshop.folder
        for outcome in self._outcomes:
            assert secret not in outcome.value + outcome.stderr_tail, "it told a secret"
            assert SECRET not in (outcome.error or ""), "it told a secret"
        for scratch in folders.glob("scratch*"):
            assert not any(secret in content for content in _contents(scratch)), "it kept a secret"
        for scratch, running in self._neighbours:
            assert not running.done(), f"a neighbour was ended: {running}"
            stop = scratch / "stop"
            await until(functools.partial(_stop, stop, running), "a neighbour hears us")
            outcome = await running
            assert outcome.value == secret, f"a neighbour was harmed: {outcome}"
        for sandbox in self.workshop.sandboxes:
            await sandbox.close()
        for scratch in folders.glob("scratch*"):
            assert list(scratch.iterdir()) == [], "its working folder was not wiped"

    async def clear(self) -> None:
        """Close what is still open, whatever went wrong."""
        for sandbox in self.workshop.sandboxes:
            await sandbox.close()
        await asyncio.gather(*(running for _, running in self._neighbours), return_exceptions=True)

    def _new_scratch(self, name: str) -> None:
        self.workshop.scratch = self.workshop.private(f"{name}-{os.urandom(4).hex()}")

    async def _control(
        self,
        command: list[str],
        *,
        as_root: bool = False,
        env: dict[str, str] | None = None,
        inherited: int | None = None,
    ) -> Tried:
        process = start_as_user(
            command, env=env or {}, cwd=self.owner.home, as_root=as_root, inherited=inherited
        )
        try:
            said, _ = await asyncio.to_thread(process.communicate, timeout=_CONTROL_S)
        finally:
            process.kill()
            process.wait()
        tried = read_words(said)
        self._tried.append(tried)
        return tried


def _stop(path: Path, running: "asyncio.Task[TaskOutcome]") -> bool:
    """Make the file that a guest looks for, or open the pipe that a command waits at.

    Again and again until it has ended: the start of a task empties its folder of what comes early.
    """
    with contextlib.suppress(OSError):  # nobody is at the pipe yet, or any more
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK))
    return running.done()


def start_as_user(
    command: list[str],
    *,
    env: dict[str, str],
    cwd: Path,
    as_root: bool = False,
    inherited: int | None = None,
) -> subprocess.Popen[str]:
    """Start a program as the sandboxes' user, in a session of its own."""
    user, group = (None, None) if USER is None or as_root else USER
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", **env},
        cwd=cwd,
        user=user,
        group=group,
        extra_groups=None if user is None else [],
        pass_fds=() if inherited is None else (inherited,),
        start_new_session=True,
        text=True,
    )


def remains(folder: Path, launcher: Launcher, cgroups: Subtree | None) -> dict[str, object]:
    """What sandboxes could leave behind: the same before and after."""
    known = tree.identify(launcher.pid)
    jobs = None if cgroups is None else cgroups.path / "jobs"
    pids = (os.getpid(), launcher.pid)
    return {
        "processes": len(tree.members([known])) - 1,
        "cgroups": 0 if jobs is None else sum(one.is_dir() for one in jobs.iterdir()),
        "mounts": [mounts(pid, folder) for pid in pids],
        "descriptors": [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids],
    }


def _contents(folder: Path) -> Iterator[bytes]:
    """The beginnings of the plain files below, as far as they can be seen.

    By descriptors: who still swaps folders for links leads nobody to the owner's own files.
    """
    left, top = _FILES_MAX, len(folder.parts)
    if not os.access(folder, os.R_OK | os.X_OK):
        folder.chmod(0o700)  # a task has locked it
    for where, folders, names, at in os.fwalk(folder):
        if len(Path(where).parts) - top > _DEPTH_MAX:
            folders.clear()
        for name in names[:left]:
            left -= 1
            with contextlib.suppress(OSError, ValueError):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
                try:
                    yield os.read(fd, _SHOWN_BYTES_MAX)
                finally:
                    os.close(fd)


def _join_session_keyring() -> None:
    """Give this process a session keyring with a secret of the owner's, where the kernel has any.

    Everything that is started from here on possesses it, whatever its user (keyrings(7)).
    """
    numbers = {"x86_64": (250, 248), "aarch64": (219, 217)}.get(platform.machine())
    if numbers is None:
        return
    libc, (keyctl, add_key) = ctypes.CDLL(None), numbers
    join, set_permissions, session, everything = 1, 5, ctypes.c_int(-3), 0x3F3F3F3F
    libc.syscall(keyctl, join, None)
    secret = SECRET.encode()
    key = libc.syscall(add_key, b"user", NAME.encode(), secret, len(secret), session)
    libc.syscall(keyctl, set_permissions, key, everything)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _open_folder() -> Path:
    """A temporary folder that another user can look through, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="lender-attack-"))
    made.chmod(0o711)
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def surroundings() -> AsyncIterator[Surroundings]:
    """A launcher and an owner for all tests of a module, with all that a careless start hands down.

    That is: an environment with addresses and secrets, an open file, a session keyring.
    """
    if PYTHON is None:
        pytest.skip("no python3 in /usr/bin")
    async with contextlib.AsyncExitStack() as stack:
        folder = _open_folder()
        stack.callback(shutil.rmtree, folder)
        _join_session_keyring()
        owner = Owner(folder)
        stack.callback(owner.close)
        notes = os.open(owner.home / "notes.txt", os.O_RDONLY)
        stack.callback(os.close, notes)
        os.set_inheritable(notes, True)
        with _environment(OWNERS_SECRET=SECRET, **dict.fromkeys(_DESKTOP, f"unix:path={SECRET}")):
            launcher = await Launcher.start(drop_to=USER)
        cgroups = subtree.claim(folder / "state", launcher.pid, USER)
        if cgroups is not None:
            stack.callback(cgroups.close)
        stack.push_async_callback(launcher.close)
        compiled = Workshop(folder, launcher).cache
        yield Surroundings(folder, launcher, owner, cgroups, notes, compiled)


@pytest_asyncio.fixture(loop_scope="module")
async def arena(surroundings: Surroundings) -> AsyncIterator[Arena]:
    """A place for one test; asserts afterwards that the attack did no harm."""
    folder, launcher, owner, cgroups, *_ = surroundings
    belongings = owner.belongings()
    gc.collect()  # what another test has dropped is not to be counted, and then be gone
    before = remains(folder, launcher, cgroups)
    made = Arena(surroundings)
    await made.open()
    yield made
    try:
        await made.close()
    finally:
        await made.clear()
    assert owner.belongings() == belongings, "the owner's files were touched"
    met = owner.visitors()
    assert not met, f"the owner's services were reached: {met}"
    with contextlib.suppress(AssertionError):
        await until(lambda: remains(folder, launcher, cgroups) == before, "nothing is left", 20)
    left = remains(folder, launcher, cgroups)
    assert left == before, f"{before} before, {left} afterwards"
