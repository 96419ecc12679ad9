"""Attacks on memory: by one process and by many, and by memory that belongs to nobody.

None takes more than a few times its limit, which is far less than what any machine has.
"""

import textwrap

import pytest
from arena import Arena, in_one_loop
from attacks import tried_in
from sandboxes import LIMITS

from lender.sandbox.plan import Runtime

pytestmark = in_one_loop

SMALL = LIMITS._replace(memory_bytes=32 << 20)
TIMES = 4

# Each takes TIMES its limit in its own way and holds it until somebody notices.
HOARDS = {
    "one process": "held = [bytearray(os.urandom(1 << 20)) for _ in range(TOTAL)]",
    "many processes": """
for _ in range(TOTAL // 8):
    if os.fork() == 0:
        held = [bytearray(os.urandom(1 << 20)) for _ in range(8)]
        time.sleep(60)
""",
    "forks of one": """
held = [bytearray(os.urandom(1 << 20)) for _ in range(TOTAL // 8)]
for _ in range(7):
    if os.fork() == 0:
        for block in held:
            block[::4096] = os.urandom(256)
        time.sleep(60)
""",
    "shared anonymous memory": """
import mmap
held = [mmap.mmap(-1, 8 << 20) for _ in range(TOTAL // 8)]
for block in held:
    for at in range(0, len(block), 4096): block[at] = 1
""",
    "shared memory that another one touched": """
import mmap
held = [mmap.mmap(-1, 8 << 20) for _ in range(TOTAL // 8)]
for block in held:
    if os.fork() == 0:
        for at in range(0, len(block), 4096): block[at] = 1
        os._exit(0)
    os.wait()
""",
    "memory files": """
held = []
for _ in range(TOTAL):
    fd = os.memfd_create("x")
    os.write(fd, bytes(1 << 20))
    held.append(fd)
""",
    "segments": """
libc.shmat.restype = ctypes.c_void_p
for _ in range(TOTAL // 8):
    number = libc.shmget(0, 8 << 20, 0o1600)
    if number < 0: raise OSError(ctypes.get_errno(), "")
    place = libc.shmat(number, None, 0)
    ctypes.memset(ctypes.c_void_p(place), 1, 8 << 20)
    libc.shmdt(ctypes.c_void_p(place))
""",
    "memory file systems": """
for place in ("/tmp", "/dev/shm"):
    for number in range(TOTAL // 4 - 2):  # each within its own size
        with open(f"{place}/{number}", "wb") as file: file.write(bytes(1 << 20))
""",
    "names in memory": """
for number in range(TOTAL * 1000):
    os.close(os.open(f"/tmp/{number}", os.O_CREAT))
""",
}


_HOARD = """
TOTAL = @TOTAL@
try:
@HOARD@
except (OSError, MemoryError) as error:
    say("refused", "memory", str(error))
else:
    time.sleep(15)
    say("got", "memory", TOTAL)
"""


@pytest.mark.parametrize("way", HOARDS)
@tried_in("process", "python", "oci")
async def test_memory_is_not_hoarded(arena: Arena, runtime: Runtime, way: str) -> None:
    """Whether the kernel keeps the limit, or a watcher sees it: it holds in one way or another."""
    code = _HOARD.replace("@TOTAL@", str(SMALL.memory_bytes * TIMES >> 20))
    code = code.replace("@HOARD@", textwrap.indent(HOARDS[way].strip(), "    "))
    tried = await arena.attack(runtime, code, limits=SMALL)
    assert not tried.got
    assert tried.refused or tried.limit == "memory", tried
