"""Attacks on what the owner knows: environment, files, keys, memory, and who else is there.

The arena looks through all that an attack gave or kept for the owner's secret.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from arena import NAME, Arena, in_one_loop
from attacks import Guest, tried_in
from sandboxes import until

from lender.sandbox.plan import Runtime
from lender.sandbox.port import SandboxGoneError

pytestmark = in_one_loop

ENVIRONMENT = """
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        words = read(f"/proc/{pid}/environ").decode(errors="replace").split("\\0")
    except OSError:
        continue
    report(f"{pid} environ", [w for w in words if w and (pid == "1" or "SECRET" in w)])
command = read("/proc/1/cmdline").split(b"\\0--\\0")[0].decode(errors="replace")
report("command line of its init", command if T["scratch"] in command else None)
ours = ("PATH", "HOME", "PWD", "LC_CTYPE", "LENDER_JOB", "LENDER_TASK", "LENDER_TASK_COUNT")
report("environment", [name for name in os.environ if name not in ours])
"""


@tried_in("process", "python", "oci")
async def test_the_daemons_environment_is_not_told(arena: Arena, runtime: Runtime) -> None:
    tried = await arena.attack(runtime, ENVIRONMENT)
    assert tried.failed, tried.got
    if runtime == "process":
        # bwrap's --clearenv clears its command's environment, not its own: it is process 1.
        careless = await arena.without_filter(ENVIRONMENT, env={"OWNERS_SECRET": "shown"})
        assert "shown" in careless.got["1 environ"]


@tried_in("process", "python", "oci")
async def test_no_descriptor_is_inherited(arena: Arena, runtime: Runtime) -> None:
    """The arena's launcher was started by a process with an inheritable one open."""
    code = """
for fd in range(1024):
    try:
        place = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        continue
    fine = place.startswith(allowed) or place in looked_at
    report(f"descriptor {fd}", None if fine else place)
"""
    own = "allowed = ('/dev/null', *map(os.readlink, ('/proc/self/fd/1', '/proc/self/fd/2')))\n"
    own += "looked_at = ()\n"
    if runtime == "python":  # by which it is asked and answers, and what it has opened itself
        own += "allowed += ('socket:', 'pipe:')\n"
        own += "looked_at = '/work', '/tmp', '/dev/shm', '/proc/sys/kernel/ns_last_pid'\n"
    tried = await arena.attack(runtime, own + code)
    assert tried.failed, tried.got
    careless = await arena.outside(own + code, inherited=arena.open_file)
    assert str(arena.owner.home) in " ".join(careless.got.values())


@tried_in("process", "python", "oci")
async def test_the_pipes_of_its_init_are_out_of_reach(arena: Arena, runtime: Runtime) -> None:
    """Whoever writes where bubblewrap tells of the sandbox would name a stranger's process."""
    code = """
mine = set()
for fd in range(64):
    try: mine.add(os.fstat(fd).st_ino)
    except OSError: pass
def forged(fd):
    path = f"/proc/1/fd/{fd}"
    if os.stat(path).st_ino in mine:
        raise OSError(errno.EEXIST, "its own output")
    os.write(os.open(path, os.O_WRONLY | os.O_NONBLOCK), b'{"child-pid": 1, "exit-code": 0}\\n')
for fd in range(64):
    attempt(f"{fd}", forged, fd)
"""
    assert (await arena.attack(runtime, code)).failed


FILES = """
home, name = T["home"], os.path.basename(T["home"])
known = ["notes.txt", "id_ed25519", "identity.nk"]
ways = [home, f"/proc/1/root{home}", f"/proc/self/root{home}", f"/proc/1/cwd/..{home}",
        f"/work/../../../..{home}", f"/proc/{T['bystander']}/cwd",
        f"/proc/{T['bystander']}/root{home}",
        f"/proc/{T['launcher']}/root{home}", f"/proc/{T['daemon']}/root{home}",
        f"{T['scratch']}/../../home", f"/oldroot{home}", f"/newroot{home}"]
for way in ways:
    for file in known:
        attempt(f"{way}/{file}", read, f"{way}/{file}")
for path in ("/etc/passwd", "/etc/shadow", "/root", "/home", "/run/user", "/var/lib",
             "/tmp/.X11-unix",
             *(f"/proc/{T[name]}/environ" for name in ("bystander", "daemon") if stranger(T[name])),
             f"/dev/shm/{T['name']}", "/etc/hostname", "/etc/ssh", "/boot", "/mnt", "/srv", "/opt"):
    attempt(path, lambda: os.listdir(path) if os.path.isdir(path) else read(path))
report("more in /etc", sorted(set(os.listdir("/etc")) - {"alternatives", "ld.so.cache"}))
os.symlink(home, "link")
attempt("by a link", read, "link/notes.txt")
attempt("by a folder of its own", lambda: os.link(f"{home}/notes.txt", "mine"))
attempt("renamed", lambda: os.rename(f"{home}/notes.txt", "mine"))
"""


@tried_in("process", "python", "oci")
async def test_the_owners_files_are_out_of_reach(arena: Arena, runtime: Runtime) -> None:
    tried = await arena.attack(runtime, FILES)
    assert tried.failed, tried.got
    free = await arena.outside(f'attempt("it", read, "{arena.owner.home}/notes.txt")')
    assert free.got, "its permissions don't protect it"


@tried_in("wasm")
async def test_no_path_leads_out_of_the_folder(arena: Arena, runtime: Runtime) -> None:
    guest, home = Guest(), str(arena.owner.home)
    for path in (
        "/etc/hostname",
        "../../home/notes.txt",
        "a/../../../home/notes.txt",
        "../../../../../../../../../../../../etc/hostname",
        f"{home}/notes.txt",
        f"/proc/self/root{home}/notes.txt",
        "/dev/fd/3",
        "..",
        "/",
    ):
        guest.attempt(path, guest.open(path))
    guest.attempt("a folder above", f"(call $path_mkdir (i32.const 3) {guest.text('../made')})")
    guest.attempt(
        "look above",
        f"(call $path_stat (i32.const 3) (i32.const 1) {guest.text('../..')} (i32.const 8192))",
    )
    guest.attempt(
        "delete above", f"(call $path_unlink (i32.const 3) {guest.text('../../home/notes.txt')})"
    )
    guest.attempt(
        "take from above",
        "(call $path_rename (i32.const 3) "
        f"{guest.text('../../home/notes.txt')} (i32.const 3) {guest.text('mine')})",
    )
    guest.attempt(
        "link from above",
        "(call $path_link (i32.const 3) (i32.const 1) "
        f"{guest.text('../../home/notes.txt')} (i32.const 3) {guest.text('mine')})",
    )
    tried = await arena.attack(runtime, guest=guest)
    assert tried.failed, tried.got


@tried_in("wasm")
async def test_a_link_of_its_own_leads_nowhere(arena: Arena, runtime: Runtime) -> None:
    guest = Guest()
    for target in (f"{arena.owner.home}/notes.txt", "../../home/notes.txt", "..", "/"):
        name = f"link{len(guest.names)}"
        guest.do(f"(call $path_symlink {guest.text(target)} (i32.const 3) {guest.text(name)})")
        guest.attempt(f"{target} read", guest.open(name))
        guest.attempt(f"{target} below", guest.open(f"{name}/notes.txt"))
        guest.attempt(f"{target} written", guest.open(name, flags=8, rights=64))
        # LOOKUP_SYMLINK_FOLLOW on the way to a hard link.
        guest.attempt(
            f"{target} linked",
            f"(call $path_link (i32.const 3) (i32.const 1) {guest.text(f'{name}/notes.txt')}"
            f" (i32.const 3) {guest.text(f'mine{name}')})",
        )
    tried = await arena.attack(runtime, guest=guest)
    assert tried.failed, tried.got


@tried_in("wasm")
async def test_a_guest_has_no_other_descriptors(arena: Arena, runtime: Runtime) -> None:
    guest = Guest()
    for fd in (*range(5, 80), 1000, -1):
        place = f"(i32.const {fd})"
        guest.attempt(f"{fd} looked at", f"(call $fd_stat {place} (i32.const 8192))")
        guest.attempt(
            f"{fd} sent to",
            f"(call $sock_send {place} (i32.const 16) (i32.const 1)"
            " (i32.const 0) (i32.const 8192))",
        )
        guest.attempt(f"{fd} renumbered", f"(call $fd_renumber {place} (i32.const 1))")
    for fd in range(5):
        guest.attempt(
            f"{fd} accepted", f"(call $sock_accept (i32.const {fd}) (i32.const 0) (i32.const 8192))"
        )
        guest.attempt(
            f"{fd} received",
            f"(call $sock_recv (i32.const {fd}) (i32.const 16)"
            " (i32.const 1) (i32.const 0) (i32.const 8192) (i32.const 8196))",
        )
    tried = await arena.attack(runtime, guest=guest)
    assert tried.failed, tried.got


KEYRING = """
KEYCTL, SEARCH, READ = (250, 219), 10, 11
def key():
    number = kernel(*KEYCTL, SEARCH, -3, b"user", T["name"].encode(), 0)
    buffer = ctypes.create_string_buffer(100)
    return kernel(*KEYCTL, READ, number, buffer, 100)
attempt("key", key)
attempt("asked for", kernel, 249, 218, b"user", T["name"].encode(), None, 0)
"""


@tried_in("process", "python", "oci")
async def test_the_keys_of_the_session_are_out_of_reach(arena: Arena, runtime: Runtime) -> None:
    assert (await arena.attack(runtime, KEYRING)).failed
    assert (await arena.attack(runtime, LISTED_KEYS)).failed
    free = await arena.outside(KEYRING)
    if not free.got:
        pytest.skip("this kernel gives processes no keyrings")


# What they are called is the owner's as well: services, machines, accounts.
LISTED_KEYS = """
try:
    listed = read("/proc/keys")
except OSError:
    listed = b""
report("names of keys", [line for line in listed.splitlines() if T["name"].encode() in line])
"""


SHARED = """
libc.shmat.restype = ctypes.c_void_p
def attached(number):
    if number < 0:
        raise OSError(ctypes.get_errno(), "")
    place = libc.shmat(number, None, 0o10000)
    if place == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "")
    return ctypes.string_at(place, 5)
attempt("segment", lambda: attached(libc.shmget(T["places"]["key"], 0, 0)))
attempt("its number", lambda: attached(T["places"]["segment"]))
attempt("file", read, f"/dev/shm/{T['name']}")
"""


@tried_in("process", "python", "oci")
async def test_shared_memory_is_not_shared(arena: Arena, runtime: Runtime) -> None:
    with _shared_file(Path(f"/dev/shm/{NAME}")):
        assert (await arena.attack(runtime, SHARED)).failed
        assert set((await arena.outside(SHARED)).got) == {"segment", "its number", "file"}


@contextlib.contextmanager
def _shared_file(path: Path) -> Iterator[None]:
    path.write_text("open to everybody")
    path.chmod(0o666)
    try:
        yield
    finally:
        path.unlink()


@tried_in("process", "python", "oci")
async def test_no_other_process_is_in_sight(arena: Arena, runtime: Runtime) -> None:
    code = """
for name in ("bystander", "launcher", "daemon"):
    report(f"{name} is there", None)
    if not stranger(T[name]): continue
    attempt(f"{name} seen", os.stat, f"/proc/{T[name]}")
    attempt(f"{name} asked", os.kill, T[name], 0)
    attempt(f"{name} by handle", os.pidfd_open, T[name])
    attempt(f"{name} counted", os.sched_getaffinity, T[name])
"""
    tried = await arena.attack(runtime, code)
    assert tried.failed, tried.got
    assert "bystander seen" in (await arena.outside(code)).got
    count = "report('more', [n for n in os.listdir('/proc') if n.isdigit()][6:])"
    assert (await arena.attack(runtime, count)).failed


@tried_in("process", "python", "oci")
async def test_the_machine_is_not_told_by_name(arena: Arena, runtime: Runtime) -> None:
    code = f"""
report("name", os.uname().nodename == {os.uname().nodename!r})
report("interfaces", [name for _, name in socket.if_nameindex() if name != "lo"])
attempt("accounts", read, "/etc/passwd")
attempt("machine id", read, "/etc/machine-id")
"""
    assert (await arena.attack(runtime, code)).failed
    assert "name" in (await arena.outside(code)).got


LOOK = """
print("mounted", sum("cgroup" in line for line in open("/proc/self/mountinfo")))
print("sys", os.path.exists("/sys/fs/cgroup"))
os.mkdir("cg")
for kind in (b"cgroup2", b"cgroup"):
    print("mount", libc.mount(b"none", b"cg", kind, 0, None))
for flags in (0x02000000, 0x10000000):  # CLONE_NEWCGROUP, CLONE_NEWUSER
    print("unshare", libc.unshare(flags))
for path in ("/proc/1/root/sys/fs/cgroup", "/proc/self/root/sys", "/proc/1/cwd/../sys/fs/cgroup"):
    print("reached", os.path.exists(path))
with open("/proc/self/cgroup") as lines:
    print("names", any("lender-" in line and line.startswith("0::") for line in lines))
"""


@tried_in("process")
async def test_no_cgroup_is_in_reach(arena: Arena, runtime: Runtime) -> None:
    """A task neither sees nor writes the cgroups that stop it."""
    tried = await arena.attack(runtime, LOOK)
    assert tried.outcome is not None
    assert tried.outcome.value.decode().splitlines()[:-1] == [
        "mounted 0",
        "sys False",
        *["mount -1"] * 2,
        *["unshare -1"] * 2,
        *["reached False"] * 3,
        "names False",
    ], tried.outcome.stderr_tail


@tried_in("process", "python", "oci", "wasm")
async def test_a_task_finds_nothing_of_the_one_before(arena: Arena, runtime: Runtime) -> None:
    """Of the same job: its files and its processes are gone."""
    code = """
for place in ("/work", "/tmp", "/dev/shm"):
    report(f"files in {place}", os.listdir(place))
    open(f"{place}/left", "w").close()
pids = [n for n in os.listdir("/proc") if n.isdigit()]
report("processes", [n for n in pids if read(f"/proc/{n}/cmdline").startswith(b"sleep\\0")])
import subprocess
subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=subprocess.DEVNULL)
"""
    guest = Guest()
    guest.attempt("files", guest.open("left"))
    guest.do(guest.open("left", flags=1, rights=64))
    sandbox = await arena.prepared(arena.plan(runtime, code, guest))
    for task in (0, 1):
        tried = arena.read(runtime, await arena.run(sandbox, task), guest)
        assert tried.failed, (task, tried.got)


# Folders that a sandbox has, too, and the file systems that the machine's are on.
MACHINES = {name: Path(name).stat().st_dev for name in ("/tmp", "/dev/shm")}


@tried_in("process", "python", "oci", "wasm")
async def test_the_supervising_process_holds_nothing_of_the_daemons(
    arena: Arena, runtime: Runtime
) -> None:
    """What a way out of a sandbox would lead into."""
    wasm = runtime == "wasm"
    plan = arena.workshop.plan(runtime, "sleep") if wasm else arena.plan(runtime, "time.sleep(60)")
    sandbox = await arena.prepared(plan)
    (root,) = sandbox.root_pids
    process = Path(f"/proc/{root.pid}")
    idle = len(list((process / "fd").iterdir()))
    running = asyncio.create_task(sandbox.run(0))
    if runtime != "python":  # whose interpreter is there already
        await until(lambda: len(list((process / "fd").iterdir())) > idle, "the task runs")
    assert (process / "environ").read_bytes().strip(b"\0") == b""
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    assert "0" not in status["Uid"].split()
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert "Max core file size        1                    1" in (process / "limits").read_text()
    for fd in (process / "fd").iterdir():
        target = str(fd.readlink())
        own = target.startswith(("socket:", "pipe:", "anon_inode:", "/memfd:", str(arena.scratch)))
        counters = target.startswith("/proc")  # of the sandbox's processes, to measure them
        # A folder of the sandbox's own, by whatever name the machine has one, too.
        inside = target in MACHINES and fd.stat().st_dev != MACHINES[target]
        assert own or counters or inside or target == "/dev/null", target
    await sandbox.close()
    with pytest.raises(SandboxGoneError):
        await running
