"""Attacks on files: writing what is not the task's, filling what is not its own."""

import os
import stat

import pytest
from arena import Arena, in_one_loop
from attacks import Guest, tried_in
from sandboxes import LIMITS

from lender.sandbox.files import outputs
from lender.sandbox.plan import Runtime

pytestmark = in_one_loop

SMALL = LIMITS._replace(scratch_bytes=1 << 20)
OVER_MIB = 6

WRITES = """
def write(path):
    with open(path, "ab") as file:
        file.write(b"x")
home = T["home"]
for path in ("/x", "/usr/x", "/usr/bin/sh", "/etc/x", "/etc/ld.so.preload", "/dev/x", "/proc/x",
             "/var/x", "/bin/x", "/lib/x", f"{home}/notes.txt", f"/proc/1/root{home}/notes.txt",
             f"/proc/self/root{home}/notes.txt", f"/work/../..{home}/notes.txt",
             f"{T['scratch']}/x",
             f"/proc/{T['bystander']}/root{home}/notes.txt"):
    attempt(f"write {path}", write, path)
    attempt(f"folder {path}", os.mkdir, path + ".d")
for path in ("/usr/bin/sh", "/usr", "/", "/dev", "/etc/ld.so.cache", home):
    attempt(f"permissions of {path}", os.chmod, path, 0o777)
    attempt(f"owner of {path}", os.chown, path, os.getuid(), os.getgid())
    attempt(f"time of {path}", os.utime, path)
    attempt(f"name of {path}", os.rename, path, path + ".x")
attempt("a link into /usr", os.symlink, "/work", "/usr/bin/link")
attempt("a hard link", os.link, "/usr/bin/sh", "/work/sh")
"""


@tried_in("process", "python", "oci")
async def test_nothing_but_the_working_folder_can_be_written(
    arena: Arena, runtime: Runtime
) -> None:
    tried = await arena.attack(runtime, WRITES)
    assert tried.failed, tried.got
    harmless = f"attempt('it', opened, '{arena.owner.home}/notes.txt', os.O_WRONLY)"
    assert (await arena.outside(harmless)).got, "its permissions don't protect it"
    assert (
        await arena.attack(runtime, "attempt('own', opened, 'x', os.O_WRONLY | os.O_CREAT)")
    ).got


@tried_in("wasm")
async def test_a_guest_writes_below_its_folder_only(arena: Arena, runtime: Runtime) -> None:
    guest, home = Guest(), arena.owner.home
    for path in (f"{home}/notes.txt", "../../home/notes.txt", "../x", "/tmp/x", "/x", "a/../../x"):
        guest.attempt(path, guest.open(path, flags=1, rights=64))
    tried = await arena.attack(runtime, guest=guest)
    assert tried.failed, tried.got


INPUT = """
import mmap
def reopened():
    fd = os.open("in.txt", os.O_RDONLY)
    os.write(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY), b"x")
def mapped():
    with open("in.txt", "rb") as file:
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE)[0] = 0
attempt("written", lambda: open("in.txt", "ab").write(b"x"))
attempt("cut", os.truncate, "in.txt", 0)
attempt("reopened", reopened)
attempt("mapped", mapped)
def through_memory(flags):  # where the kernel writes for a debugger what can't be written
    with open("in.txt", "rb") as file:
        view = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ)
    (line,) = [l for l in read("/proc/self/maps").splitlines() if l.endswith(b"/in.txt")]
    with open("/proc/self/mem", "wb", buffering=0) as memory:
        memory.seek(int(line.split(b"-")[0], 16))
        memory.write(b"x")
    view.close()
    if read("in.txt")[:1] != b"x":
        raise OSError(errno.ENOTUNIQ, "its own copy")
attempt("shared memory", through_memory, mmap.MAP_SHARED)
attempt("private memory", through_memory, mmap.MAP_PRIVATE)
attempt("permissions", os.chmod, "in.txt", 0o777)
attempt("owner", os.chown, "in.txt", os.getuid(), os.getgid())
attempt("time", os.utime, "in.txt")
attempt("attribute", os.setxattr, "in.txt", "user.x", b"x")
attempt("removed", os.remove, "in.txt")
attempt("moved", os.rename, "in.txt", "y")
attempt("replaced", lambda: (open("z", "w").close(), os.rename("z", "in.txt")))
attempt("linked", os.link, "in.txt", "mine")
attempt("unmounted", kernel, 166, 39, b"/work/in.txt", 2)
"""


@tried_in("process", "python", "oci")
async def test_inputs_stay_as_they_were(arena: Arena, runtime: Runtime) -> None:
    blob = arena.workshop.file("blob", b"as it was")
    blob.chmod(0o666)
    before = blob.stat()
    tried = await arena.attack(runtime, INPUT, inputs={"in.txt": blob})
    assert tried.failed, tried.got
    after = blob.stat()
    assert blob.read_bytes() == b"as it was"
    assert (before.st_mtime_ns, before.st_mode) == (after.st_mtime_ns, after.st_mode)


RUNNING = """
import glob
places = ["/proc/self/exe", "/proc/1/exe", "/dev/lender-enter", "/usr/bin/python3", sys.executable]
places += glob.glob("/run/lender/*") + glob.glob("/run/lender/python/bin/*")
places += glob.glob("/run/lender/python/lib/*.so*")
def reopened(path):
    fd = os.open(path, os.O_PATH)
    try: opened(f"/proc/self/fd/{fd}", os.O_WRONLY)
    finally: os.close(fd)
for path in places:
    attempt(f"{path} written", opened, path, os.O_WRONLY)
    attempt(f"{path} reopened", reopened, path)
    attempt(f"permissions of {path}", os.chmod, path, 0o777)
    attempt(f"time of {path}", os.utime, path)
"""


@tried_in("process", "python", "oci")
async def test_what_it_is_run_by_cannot_be_written(arena: Arena, runtime: Runtime) -> None:
    """Some of it belongs to the owner, and so to the same user: it runs outside of walls next."""
    tried = await arena.attack(runtime, RUNNING)
    assert tried.failed, tried.got


@tried_in("wasm")
async def test_a_guest_changes_its_copy_of_an_input_at_most(arena: Arena, runtime: Runtime) -> None:
    blob = arena.workshop.file("blob", b"as it was")
    blob.chmod(0o666)
    before = blob.stat()
    guest = Guest()
    guest.attempt("written", guest.open("in.txt", rights=64))
    guest.do(f"(call $path_unlink (i32.const 3) {guest.text('in.txt')})")
    guest.do(guest.open("in.txt", flags=1, rights=64))
    plan = arena.plan(runtime, "", guest, inputs={"in.txt": blob})
    sandbox = await arena.prepared(plan)
    for task in (0, 1):  # what it put in the place of its copy is not there for the next task
        assert arena.read(runtime, await arena.run(sandbox, task), guest).failed
    after = blob.stat()
    assert (blob.read_bytes(), before.st_mtime_ns) == (b"as it was", after.st_mtime_ns)


@tried_in("wasm")
async def test_an_input_that_a_task_replaced_is_restored(arena: Arena, runtime: Runtime) -> None:
    """Also where something stands in its place that no guest could make."""
    source = arena.workshop.file("blob", b"as it was")
    sandbox = await arena.workshop.prepared(runtime, "copy", inputs={"in.txt": source})
    assert (await sandbox.run(0)).exit_code == 0
    placed = arena.scratch / "in.txt"
    assert stat.S_IMODE(placed.stat().st_mode) == 0o444
    placed.unlink()
    placed.symlink_to("/etc/hostname")
    assert (await sandbox.run(1)).exit_code == 0
    (collected,) = outputs.collect(arena.scratch, ["out.txt"], 100)
    with os.fdopen(collected.fd, "rb") as file:
        assert file.read() == b"as it was"


# Each fills far more than its limit, tells when it could, and stays until somebody notices.
FILLING = {
    "many small files": "for i in range(100 * OVER): open(str(i), 'wb').write(bytes(10486))",
    "one file": "open('x', 'wb').write(bytes(OVER << 20))",
    "files without a name": """
files = []
for i in range(OVER * 2):
    files.append(open(str(i), "wb"))
    os.remove(str(i))
    files[-1].write(bytes(1 << 19))
    files[-1].flush()
""",
    "a mapped file without a name": """
import mmap
maps = []
for i in range(OVER * 2):
    with open("x", "w+b") as file:
        os.remove("x")
        os.truncate(file.fileno(), 1 << 19)
        maps.append(mmap.mmap(file.fileno(), 0))
    maps[-1].write(b"x" * (1 << 19))
    maps[-1].flush()
""",
    "reserved space": """
for i in range(OVER * 2):
    with open(str(i), "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 1 << 19)
""",
    "many folders": "for i in range(250 * OVER): os.mkdir(str(i))",
    "a folder that hides": """
os.mkdir("d")
for i in range(OVER * 2): open(f"d/{i}", "wb").write(bytes(1 << 19))
os.chmod("d", 0)
""",
}


@pytest.mark.parametrize("way", FILLING)
@tried_in("process", "python", "oci")
async def test_the_disk_is_not_filled(arena: Arena, runtime: Runtime, way: str) -> None:
    code = f"OVER = {OVER_MIB}\n" + FILLING[way]
    code += "\ntime.sleep(15)\nsay('got', 'more than its limit', 0)"
    tried = await arena.attack(runtime, code, limits=SMALL)
    assert not tried.got
    assert tried.limit == "disk", tried


@tried_in("wasm")
async def test_a_guest_does_not_fill_the_disk_unseen(arena: Arena, runtime: Runtime) -> None:
    """By files that have no name any more, and stay open."""
    guest = Guest()
    for number in range(OVER_MIB * 2):
        name = f"x{number}"
        guest.do(guest.open(name, flags=1, rights=64 | 4 | 32))
        guest.do(f"(call $path_unlink (i32.const 3) {guest.text(name)})")
        for _ in range(8):
            guest.do("(call $write (i32.load (i32.const 28)) (i32.const 0) (i32.const 65536))")
    guest.then("(loop $l (br $l))")
    sandbox = await arena.prepared(
        arena.plan(runtime, "", guest, limits=SMALL._replace(time_s=15.0))
    )
    assert (await arena.run(sandbox)).limit == "disk"


@tried_in("process")
async def test_files_beyond_counting_are_too_much(arena: Arena, runtime: Runtime) -> None:
    """Names cost the file system's nodes, not its blocks."""
    code = """
for i in range(101_000):  # a file may have 65,000 names
    first = i - i % 50_000
    os.link(str(first), str(i)) if i > first else open(str(i), "w").close()
time.sleep(15)
say("got", "more than are counted", 0)
"""
    tried = await arena.attack(runtime, code)
    assert (tried.got, tried.limit) == ({}, "disk")


@tried_in("process", "python", "oci")
async def test_the_other_writable_places_are_small(arena: Arena, runtime: Runtime) -> None:
    code = """
def fill(place):
    for number in range(64):
        with open(f"{place}/x{number}", "wb") as file:
            file.write(bytes(1 << 20))
for place in ("/", "/dev", "/dev/shm", "/dev/pts", "/dev/mqueue", "/tmp", "/etc", "/usr", "/run",
              "/proc"):
    attempt(place, fill, place)
"""
    tried = await arena.attack(runtime, code, limits=LIMITS._replace(memory_bytes=32 << 20))
    assert tried.failed or (tried.got, tried.limit) == ({}, "memory")  # what they hold is memory


@tried_in("process")
async def test_a_file_that_gains_privileges_gains_none(arena: Arena, runtime: Runtime) -> None:
    code = """
import shutil, subprocess
shutil.copy("/usr/bin/id", "id")
os.chmod("id", 0o6755)
report("its file system heeds the bit", not os.statvfs(".").f_flag & os.ST_NOSUID)
report("devices", not os.statvfs(".").f_flag & os.ST_NODEV)
report("privileges", "NoNewPrivs:\\t1" not in read("/proc/self/status").decode())
said = subprocess.run(["./id"], capture_output=True).stdout
report("root by a program of the host", b"uid=0" in said)
"""
    assert (await arena.attack(runtime, code)).failed


SWAPPING = """
import threading
def swap():
    pairs = [(b"/work/d%d" % i, b"/work/l%d" % i) for i in range(16)]
    while True:
        for folder, link in pairs:
            try:
                os.mkdir(folder)
                os.symlink(T["home"], link)
            except OSError: pass
        for _ in range(50):
            for folder, link in pairs:
                libc.syscall(EXCHANGE, -100, folder, -100, link, 2)
EXCHANGE = 316 if platform.machine() == "x86_64" else 276
if threading.active_count() == 1:
    threading.Thread(target=swap, daemon=True).start()
time.sleep(0.02)
"""


@tried_in("python")
async def test_a_wipe_is_not_led_astray_by_a_thread(arena: Arena, runtime: Runtime) -> None:
    """What a function leaves running swaps folders for links while its folder is cleaned.

    The arena sees whether anything of the owner's has other permissions then.
    """
    sandbox = await arena.prepared(arena.plan(runtime, SWAPPING))
    for task in range(60):
        await arena.run(sandbox, task)


@tried_in("process")
async def test_whatever_a_task_leaves_is_wiped_and_nothing_else(
    arena: Arena, runtime: Runtime
) -> None:
    code = """
os.symlink(T["home"], "link")
os.symlink(T["home"], b"bad\\xfflink")
os.makedirs(b"bad\\xff\\nname")
open(b"bad\\xff\\nname/\\xfe", "w").close()
os.makedirs("shut/inner")
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
for name, depth in (("d", 1200), ("d" * 250, 20)):
    for _ in range(depth):
        os.mkdir(name)
        os.chdir(name)
    os.chdir("/work")
report("made", None)
for name in ("shut/inner", "shut", "."):
    os.chmod(name, 0)
"""
    roomy = LIMITS._replace(scratch_bytes=16 << 20)  # a folder takes a block
    tried = await arena.attack(runtime, code, limits=roomy)
    assert tried.refused == {"made": "None"}, tried.outcome
    # The arena sees that the working folder is empty afterwards and the owner's home is not.
