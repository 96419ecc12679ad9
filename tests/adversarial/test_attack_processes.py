"""Attacks by processes: too many of them, too long-lived, too important, too hard to stop."""

import asyncio
from pathlib import Path

import pytest
from arena import Arena, in_one_loop
from attacks import tried_in
from sandboxes import LIMITS, until

from lender.sandbox.plan import Runtime
from lender.sandbox.port import SandboxGoneError
from lender.sandbox.processes import autogroup, stopping, tree
from lender.sandbox.processes.stopping import Standing

pytestmark = in_one_loop

BOMBS = {
    "plain": """
while True:
    try: os.fork()
    except OSError: pass
""",
    "with new sessions": """
while True:
    try:
        if os.fork() == 0:
            os.setsid()
            if os.fork(): os._exit(0)
    except OSError: pass
""",
    "that ignores signals": """
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True:
    try: os.fork()
    except OSError: pass
""",
    "that wakes each other": """
for _ in range(12):
    if os.fork() == 0: break
while True:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try: os.kill(int(pid), signal.SIGCONT)
        except OSError: pass
""",
    "that pass for dead": """
for _ in range(12):
    if os.fork() == 0: break
libc.prctl(15, b") Z 1 (", 0, 0, 0)  # as its line in /proc would end
while True: pass
""",
    "of threads": """
import threading
def spin():
    while True: pass
while True:
    try: threading.Thread(target=spin).start()
    except RuntimeError: pass
""",
    "in vfork": """
os.mkfifo("fifo")
action = [(os.POSIX_SPAWN_OPEN, 5, "fifo", os.O_RDONLY, 0)]
for _ in range(10):
    if os.fork() == 0:
        # Its child waits in open() for a writer, and it for its child, where no signal wakes it.
        os.posix_spawn("/bin/true", ["true"], {}, file_actions=action)
time.sleep(60)
""",
}


@pytest.mark.parametrize("way", BOMBS)
@tried_in("process", "python", "oci")
async def test_a_bomb_is_bounded_stands_still_and_ends(
    arena: Arena, runtime: Runtime, way: str
) -> None:
    roomy = LIMITS._replace(memory_bytes=1 << 30)  # each thread reserves address space
    sandbox = await arena.prepared(arena.plan(runtime, BOMBS[way], limits=roomy))
    (root,) = sandbox.root_pids
    idle = _threads(root)
    running = asyncio.create_task(sandbox.run(0))
    await until(lambda: _threads(root) > idle + 9, "it goes off")
    assert _threads(root) <= LIMITS.processes + 8  # supervisors and bubblewrap
    target = Standing((root,), sandbox.cgroup)
    assert (await asyncio.to_thread(stopping.freeze, [target], 20)).verified
    met = tree.members([root])
    before = [_cpu_ticks(one.pid) for one in met]
    await asyncio.sleep(0.1)  # whoever runs would use it
    assert [_cpu_ticks(one.pid) for one in met] == before
    assert (await asyncio.to_thread(stopping.thaw, [target], 20)).verified
    assert (await asyncio.to_thread(tree.freeze, [root], 20)).verified, "by sweeps alone too"
    met = tree.members([root])
    assert (await asyncio.to_thread(stopping.kill, [target], 20)).verified
    assert not any(map(tree.alive, met))
    with pytest.raises(SandboxGoneError):
        await running


def _threads(root: tree.Root) -> int:
    count = 0
    for pid, _ in tree.members([root]):
        try:
            count += len(list(Path(f"/proc/{pid}/task").iterdir()))
        except OSError:
            continue
    return count


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


@tried_in("process", "python", "oci")
async def test_a_bomb_ends_at_the_limit_of_its_time(arena: Arena, runtime: Runtime) -> None:
    limits = LIMITS._replace(time_s=0.5)
    tried = await arena.attack(runtime, BOMBS["that ignores signals"], limits=limits)
    assert tried.limit == "time"


@tried_in("process")
async def test_a_daemonized_process_dies_with_its_task(arena: Arena, runtime: Runtime) -> None:
    code = """
import subprocess
for name in ("one", "two"):
    if os.fork() == 0:
        os.setsid()
        if os.fork(): os._exit(0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if name == "one":  # the other one holds on to the task's own output
            for fd in (0, 1, 2): os.close(fd)
        time.sleep(60)
"""
    tried = await arena.attack(runtime, code)
    assert tried.ended
    assert tried.outcome is not None
    assert tried.outcome.duration_s < 10
    root = arena.workshop.roots[-1]
    assert tree.members([root]) == (root,), "the supervisor alone"


SIGNALS = """
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
    for pid in (T["bystander"], T["launcher"], T["daemon"], -T["launcher"], os.getppid() or 99999):
        if abs(pid) > 1 and stranger(pid):
            attempt(f"{number} to {pid}", os.kill, pid, number)
"""


@tried_in("process", "python", "oci")
async def test_no_stranger_can_be_signalled(arena: Arena, runtime: Runtime) -> None:
    tried = await arena.attack(runtime, SIGNALS)
    assert tried.failed, tried.got
    free = "attempt('it', os.kill, T['bystander'], 0)"
    assert (await arena.outside(free)).got


MURDERS = {
    "everything in sight": "os.kill(-1, signal.SIGKILL)",
    "its own group": "os.killpg(0, signal.SIGKILL)",
    "its own group softly": "os.killpg(0, signal.SIGTERM)",
    "its init": "os.kill(1, signal.SIGKILL); os.kill(1, signal.SIGTERM)",
    "itself": "os.kill(os.getpid(), signal.SIGKILL)",
    "stop everything": "os.kill(-1, signal.SIGSTOP)",
    "stop its group": "os.killpg(0, signal.SIGSTOP)",
    "stop itself": "os.kill(os.getpid(), signal.SIGSTOP)",
}


@pytest.mark.parametrize("way", MURDERS)
@tried_in("process")
async def test_the_next_task_is_not_harmed_by_the_one_before(
    arena: Arena, runtime: Runtime, way: str
) -> None:
    """Groups reach beyond process namespaces: bubblewrap itself is in the task's."""
    code = f"""
if os.environ["LENDER_TASK"] == "0":
    os.chmod("/work", 0)
    {MURDERS[way]}
    while True: time.sleep(60)
report("here", os.listdir("/work"))
"""
    limits = LIMITS._replace(time_s=4.0)  # for the second task, too
    sandbox = await arena.prepared(arena.plan(runtime, code, limits=limits))
    assert (await arena.run(sandbox, 0)).state == "failed"
    assert arena.read(runtime, await arena.run(sandbox, 1)).failed


STANDING = """
def rank():
    return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
had = rank()
attempt("fifo", os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))
attempt("round robin", os.sched_setscheduler, 0, os.SCHED_RR, os.sched_param(1))
attempt("nice", os.nice, -1)
attempt("nice of all", os.setpriority, os.PRIO_USER, 0, -1)
deadline = (ctypes.c_uint32 * 12)(48, 6, 0, 0, 0, 0, 10**7, 0, 10**8, 0, 10**8, 0)
attempt("deadline", kernel, 314, 274, 0, deadline, 0)
turns = (ctypes.c_uint32 * 12)(48, 0, 0, 0, 0, 0, 10**8, 0, 0, 0, 0, 0)
attempt("long turns", kernel, 314, 274, 0, turns, 0)
attempt("disk first", kernel, 251, 30, 1, 0, 1 << 13)
for name in ("RLIMIT_RTPRIO", "RLIMIT_NICE", "RLIMIT_MEMLOCK", "RLIMIT_NPROC", "RLIMIT_NOFILE",
             "RLIMIT_FSIZE", "RLIMIT_AS", "RLIMIT_MSGQUEUE", "RLIMIT_SIGPENDING"):
    kind = getattr(resource, name)
    soft, hard = resource.getrlimit(kind)
    report(f"{name} is open", hard == -1)
    attempt(name, resource.setrlimit, kind, (soft, hard + 1))
try: os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
except OSError: pass
report("rank", rank() if rank() != had else None)
"""


@tried_in("process", "python", "oci")
async def test_priority_is_not_taken_back(arena: Arena, runtime: Runtime) -> None:
    tried = await arena.attack(runtime, STANDING)
    assert tried.failed, tried.got


@tried_in("process", "python", "oci")
async def test_a_session_takes_no_share_of_its_own(arena: Arena, runtime: Runtime) -> None:
    """Neither a new one, which would weigh as much as the owner's desktop, nor its own."""
    launcher = arena.workshop.launcher.pid
    if not _session(launcher):
        pytest.skip("this kernel has no autogroups")
    await until(lambda: _session(launcher)[-1] == "19", "the launcher yields")
    before = _session(launcher)
    # Where sessions have no weight it is each process that yields.
    code = f"alone, session = {not autogroup.weighs()}, {before[0]!r}\n{WEIGH}"
    tried = await arena.attack(runtime, code)
    assert tried.failed, tried.got
    assert _session(launcher) == before


WEIGH = """
os.setsid()
name, _, nice = read("/proc/self/autogroup").decode().split()
report("another session", name != session)
report("another weight", nice != "19")
report("another class", (os.sched_getscheduler(0) == os.SCHED_IDLE) != alone)
def weigh(pid, nice):
    with open(f"/proc/{pid}/autogroup", "r+") as file:
        file.write(nice)
for pid in ("self", "1"):
    for nice in ("0", "-20", "10"):
        attempt(f"{nice} for {pid}", weigh, pid, nice)
"""


def _session(pid: int) -> list[str]:
    """Name and nice value of a process's session (sched(7)); empty where sessions have none."""
    group = Path(f"/proc/{pid}/autogroup")
    return group.read_text().split() if group.exists() else []


@tried_in("process", "python", "oci")
async def test_what_is_counted_by_user_is_left_to_the_owner(arena: Arena, runtime: Runtime) -> None:
    """Where the daemon is the owner's own, a task has the owner's user id for the kernel.

    And what is counted for the machine as a whole: requests for asynchronous reads.
    """
    code = """
held = []
def exhaust(make):
    for _ in range(4096):
        held.append(make())
def terminal():
    return os.openpty()
attempt("inotify", exhaust, lambda: kernel(294, 26, 0))
attempt("terminals", exhaust, terminal)
for pair in held: os.close(pair[0]), os.close(pair[1])
attempt("queues", exhaust, lambda: kernel(240, 180, b"x%d" % len(held), 66, 0o600, None))
attempt("asynchronous reads", exhaust, lambda: kernel(206, 0, 256, (ctypes.c_ulong * 1)()))
attempt("timers", exhaust, lambda: kernel(222, 107, 0, None, (ctypes.c_int * 1)()))
block = ctypes.create_string_buffer(1 << 20)
attempt("locked memory", lambda: libc.mlock(block, 1 << 20) and opened(""))
open("holds", "w").close()
time.sleep(60)
"""
    sandbox = await arena.prepared(arena.plan(runtime, code))
    running = asyncio.create_task(sandbox.run(0))
    # The bystander's user is the tasks' own: it still gets its own.
    needs = """
attempt("inotify", kernel, 294, 26, 0)
attempt("terminal", os.openpty)
attempt("queue", kernel, 240, 180, T["name"].encode(), 66, 0o600, None)
attempt("unlinked", kernel, 241, 181, T["name"].encode())
attempt("asynchronous reads", kernel, 206, 0, 1, (ctypes.c_ulong * 1)())
attempt("process", lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0))
"""
    await until((arena.scratch / "holds").exists, "it holds what it could get")
    free = await arena.outside(needs)
    assert not free.refused
    assert free.ended
    await sandbox.close()
    with pytest.raises(SandboxGoneError):
        await running
