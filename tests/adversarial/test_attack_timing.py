"""Attacks by timing: while a sandbox starts, between two steps of its start, while it is emptied.

And by not ending: whatever a task does, its time is bounded, and the owner's word comes first.
"""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
from arena import Arena, in_one_loop
from attacks import Guest, tried_in
from sandboxes import LIMITS, until

from lender.sandbox.files import outputs
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import Runtime
from lender.sandbox.port import PrepareFailedError, RefusedError, SandboxGoneError
from lender.sandbox.processes import cgroup, stopping, tree
from lender.sandbox.processes.stopping import Standing

pytestmark = in_one_loop


def _sleep(nanoseconds: int) -> str:
    """A guest's call that waits so long for its clock."""
    return (
        "(i64.store (i32.const 1024) (i64.const 0)) (i32.store (i32.const 1032) (i32.const 0))"
        " (i32.store (i32.const 1040) (i32.const 1))"
        f" (i64.store (i32.const 1048) (i64.const {nanoseconds}))"
        " (drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1)"
        " (i32.const 3072)))"
    )


_CALL = "(drop (call $open (i32.const 256) (i32.const 1) (i32.const 0) (i64.const 2)))"
_STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(0.001)"
# Python, and the text of a guest.
NEVER = {
    "spins": ("while True: pass", "(loop $l (br $l))"),
    "sleeps": ("while True: time.sleep(60)", _sleep(3_600_000_000_000)),
    "sleeps again and again": (_STUBBORN, f"(loop $l {_sleep(1_000_000)} (br $l))"),
    # A guest can't make a pipe: it calls out of the engine without end.
    "opens a pipe that nobody writes": ("os.mkfifo('x'); open('x')", f"(loop $l {_CALL} (br $l))"),
    "stops itself": ("os.kill(os.getpid(), signal.SIGSTOP)", "(loop $l (br $l))"),
}


@pytest.mark.parametrize("way", NEVER)
@tried_in("process", "python", "oci", "wasm")
async def test_what_never_ends_is_ended(arena: Arena, runtime: Runtime, way: str) -> None:
    code, text = NEVER[way]
    guest = Guest()
    guest.then(text)
    limits = LIMITS._replace(time_s=0.2)
    sandbox = await arena.prepared(arena.plan(runtime, code, guest, limits=limits))
    for task in (0, 1):  # the sandbox goes on
        outcome = await arena.run(sandbox, task)
        assert outcome.limit == "time"
        assert outcome.duration_s < 5


@pytest.mark.parametrize("way", NEVER)
@tried_in("process", "python", "oci", "wasm")
async def test_what_never_ends_is_frozen_and_killed_like_any(
    arena: Arena, runtime: Runtime, way: str
) -> None:
    code, text = NEVER[way]
    guest = Guest()
    guest.then(text)
    sandbox = await arena.prepared(arena.plan(runtime, code, guest))
    running = asyncio.create_task(sandbox.run(0))
    target = Standing(sandbox.root_pids, sandbox.cgroup)
    assert (await asyncio.to_thread(stopping.freeze, [target])).verified
    met = tree.members(target.roots)
    await sandbox.close()
    with pytest.raises(SandboxGoneError):
        await running
    assert not any(map(tree.alive, met))


@tried_in("process", "python", "oci", "wasm")
async def test_a_start_of_a_module_cannot_hang(arena: Arena, runtime: Runtime) -> None:
    """What a program does before its first instruction is its time as well."""
    import wasmtime  # noqa: PLC0415 - only for the module

    limits = LIMITS._replace(time_s=0.2)
    if runtime == "wasm":
        text = (
            '(module (memory (export "memory") 1) (func $f (loop $l (br $l))) (start $f)'
            ' (func (export "_start")))'
        )
        module = bytes(wasmtime.wat2wasm(text))
        plan = arena.workshop.plan(runtime, module, limits=limits)
    else:
        plan = arena.plan(runtime, "while True: pass", limits=limits)
    assert (await arena.run(await arena.prepared(plan))).limit == "time"


def _target(sandbox: LeaseSandbox) -> Standing:
    return Standing(sandbox.root_pids, sandbox.cgroup)


@tried_in("process", "python", "oci", "wasm")
async def test_a_pause_at_any_moment_of_a_launch_holds(arena: Arena, runtime: Runtime) -> None:
    """Wherever the start is when it comes, nothing of it runs on, and afterwards all of it does."""
    guest = Guest()
    guest.attempt("done", guest.open("done", flags=1, rights=64))
    code = "open('done', 'w').close()"
    for step in range(8):
        plan = arena.plan(runtime, code, guest)
        sandbox = arena.workshop.sandbox(plan)
        launch = asyncio.create_task(_launched(sandbox))
        await _until_it_has_a_process(sandbox, launch)
        await asyncio.sleep(0.002 * step)
        target = _target(sandbox)
        assert (await asyncio.to_thread(stopping.freeze, [target], 5)).verified, step
        met = tree.members(target.roots)
        before = [_cpu_ticks(one.pid) for one in met]
        was_there = (plan.scratch / "done").exists()
        await asyncio.sleep(0.03)  # whatever ran on would come further
        assert (plan.scratch / "done").exists() == was_there
        assert [_cpu_ticks(one.pid) for one in met] == before
        assert set(tree.members(target.roots)) == set(met)
        assert (await asyncio.to_thread(stopping.thaw, [target], 5)).verified
        assert await asyncio.wait_for(launch, 20) == "succeeded"
        assert (plan.scratch / "done").exists()
        await sandbox.close()


async def _until_it_has_a_process(sandbox: LeaseSandbox, launch: "asyncio.Task[str]") -> None:
    while not sandbox.root_pids and not launch.done():  # noqa: ASYNC110 - not a moment later
        await asyncio.sleep(0)


async def _launched(sandbox: LeaseSandbox) -> str:
    await sandbox.prepare()
    return (await sandbox.run(0)).state


@tried_in("process", "python", "oci")
async def test_who_waits_for_a_child_goes_on_after_a_pause(arena: Arena, runtime: Runtime) -> None:
    """In vfork it sleeps where no signal wakes it: what it was told then comes true afterwards."""
    code = """
os.setpgid(0, 0)  # where no signal to another's group reaches it
os.mkfifo("fifo")
action = [(os.POSIX_SPAWN_OPEN, 5, "fifo", os.O_RDONLY, 0)]
os.waitpid(os.posix_spawn("/bin/true", ["true"], {}, file_actions=action, setpgroup=0), 0)
"""
    sandbox = await arena.prepared(arena.plan(runtime, code))
    running = asyncio.create_task(arena.run(sandbox))
    fifo = arena.scratch / "fifo"
    await until(lambda: fifo.exists() and "D" in _states(sandbox), "it waits for its child")
    for _ in range(2):
        assert (await asyncio.to_thread(tree.freeze, sandbox.root_pids, 10)).verified
        assert (await asyncio.to_thread(tree.thaw, sandbox.root_pids, 10)).verified
    await until(lambda: _opens(fifo), "its child waits for us")
    assert (await asyncio.wait_for(running, 10)).state == "succeeded"


def _opens(fifo: Path) -> bool:
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def _states(sandbox: LeaseSandbox) -> str:
    """The letters of its processes (proc_pid_stat(5))."""
    found = ""
    for pid, _ in tree.members(sandbox.root_pids):
        with contextlib.suppress(OSError):
            found += Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return found


@tried_in("process", "python", "oci", "wasm")
async def test_a_revoke_at_any_moment_of_a_launch_leaves_nothing(
    arena: Arena, runtime: Runtime
) -> None:
    guest = Guest()
    guest.then("(loop $l (br $l))")
    for step in range(8):
        tombstone = arena.workshop.folder / f"tombstone-{step}"
        sandbox = arena.workshop.sandbox(
            arena.plan(runtime, "while True: pass", guest), abort_if_exists=(tombstone,)
        )
        launch = asyncio.create_task(_launched(sandbox))
        await _until_it_has_a_process(sandbox, launch)
        await asyncio.sleep(0.002 * step)
        tombstone.touch()
        target = _target(sandbox)
        met = tree.members(target.roots)
        assert (await asyncio.to_thread(stopping.kill, [target], 5)).verified, step
        assert not any(map(tree.alive, met))
        with pytest.raises((SandboxGoneError, RefusedError, PrepareFailedError)):
            await asyncio.wait_for(launch, 20)
        await sandbox.close()
        assert list(sandbox._plan.scratch.iterdir()) == []


@tried_in("process", "python", "oci", "wasm")
async def test_a_pause_before_the_first_process_joins_its_cgroup_holds_it(
    arena: Arena, runtime: Runtime
) -> None:
    """Between the fork and the cgroup: who joins a frozen one stands still."""
    cgroups = arena.workshop.cgroups
    if cgroups is None:
        pytest.skip("no cgroup v2 subtree is ours here: not root, and none delegated")
    guest = Guest()
    guest.attempt("done", guest.open("done", flags=1, rights=64))
    plan = arena.plan(runtime, "open('done', 'w').close()", guest)
    sandbox = arena.workshop.sandbox(plan)
    leaf = cgroups.leaf(plan.lease)
    cgroups.make(leaf, plan.limits)
    assert cgroup.order(leaf, "cgroup.freeze", "1")
    launch = asyncio.create_task(_launched(sandbox))
    await until(lambda: bool(cgroup.pids(leaf)), "it joins")
    assert stopping.freeze([_target(sandbox)]).verified
    await asyncio.sleep(0.1)  # it was let go, and would run
    assert not launch.done()
    assert not (plan.scratch / "done").exists()
    assert (await asyncio.to_thread(stopping.thaw, [_target(sandbox)])).verified
    assert await launch == "succeeded"


@tried_in("process", "python", "oci", "wasm")
async def test_a_revoke_before_the_first_process_joins_its_cgroup_refuses_it(
    arena: Arena, runtime: Runtime
) -> None:
    """Killed while empty, the cgroup would let a later process live: the tombstone does not."""
    tombstone = arena.workshop.folder / "tombstone"
    cgroups = arena.workshop.cgroups
    if cgroups is None:
        pytest.skip("no cgroup v2 subtree is ours here: not root, and none delegated")
    guest = Guest()
    guest.then("(loop $l (br $l))")
    plan = arena.plan(runtime, "while True: pass", guest)
    sandbox = arena.workshop.sandbox(plan, abort_if_exists=(tombstone,))
    cgroups.make(cgroups.leaf(plan.lease), plan.limits)
    tombstone.touch()
    assert cgroup.order(cgroups.leaf(plan.lease), "cgroup.kill", "1")
    with pytest.raises(RefusedError):
        await sandbox.prepare()
    root = arena.workshop.roots[-1]
    await until(lambda: not tree.alive(root), "the held process is dead")
    assert list(plan.scratch.iterdir()) == []


@tried_in("process", "python", "oci", "wasm")
async def test_a_process_killed_while_held_never_runs(arena: Arena, runtime: Runtime) -> None:
    guest = Guest()
    guest.attempt("done", guest.open("done", flags=1, rights=64))
    plan = arena.plan(runtime, "open('done', 'w').close()", guest)
    sandbox = arena.workshop.sandbox(plan, lambda root: os.kill(root.pid, signal.SIGKILL))
    with pytest.raises(SandboxGoneError):
        await sandbox.prepare()
    assert list(plan.scratch.iterdir()) == []


@tried_in("process", "python", "oci", "wasm")
async def test_a_pause_while_outputs_are_taken_changes_nothing(
    arena: Arena, runtime: Runtime
) -> None:
    """And a revoke in the midst of it leaves what was opened whole, and nothing in the folder."""
    guest = Guest()
    guest.do(guest.open("out", flags=1, rights=64))
    guest.do("(call $write (i32.load (i32.const 28)) (i32.const 0) (i32.const 65536))")
    code = "open('out', 'wb').write(bytes(65536))"
    sandbox = await arena.prepared(arena.plan(runtime, code, guest))
    assert (await arena.run(sandbox)).state == "succeeded"
    collected = outputs.collect(arena.scratch, ["out"], 1 << 20)
    with contextlib.closing(os.fdopen(collected[0].fd, "rb")) as file:
        first = file.read(1000)
        assert (await asyncio.to_thread(stopping.freeze, [_target(sandbox)])).verified
        second = file.read(1000)
        assert (await asyncio.to_thread(stopping.thaw, [_target(sandbox)])).verified
        await sandbox.close()
        assert list(arena.scratch.iterdir()) == []
        assert len(first + second + file.read()) == collected[0].size_bytes == 65536


@tried_in("process")
async def test_nothing_of_a_task_writes_while_its_outputs_are_taken(
    arena: Arena, runtime: Runtime
) -> None:
    """A process that outlived its task would change a file between the look and the reading."""
    code = """
if os.fork() == 0:
    os.setsid()
    while True:
        with open("new", "wb") as file: file.write(os.urandom(1000))
        os.rename("new", "out")
while not os.path.exists("out"): time.sleep(0.01)
"""
    await arena.attack(runtime, code)
    (root,) = arena.workshop.sandboxes[-1].root_pids
    assert tree.members([root]) == (root,)
    (collected,) = outputs.collect(arena.scratch, ["out"], 10_000)
    with os.fdopen(collected.fd, "rb") as file:
        content = file.read()
    await asyncio.sleep(0.05)  # another one would be there by then
    assert (arena.scratch / "out").read_bytes() == content


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])
