"""The system call filter, judged by the kernel: what it refuses, and what still works."""

import json
import shutil
import subprocess
import sys

import pytest
from sandboxes import Workshop, needs_bubblewrap, open_folder, workshop

from lender.sandbox.walls import seccomp

__all__ = ["open_folder", "workshop"]  # fixtures
pytestmark = [
    needs_bubblewrap,
    pytest.mark.skipif(seccomp.program() is None, reason="no filter for this processor"),
    pytest.mark.skipif(
        shutil.which("python3", path="/usr/bin") is None, reason="no python3 in /usr/bin"
    ),
]

_PRELUDE = """
import ctypes, errno, fcntl, json, os, platform, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
def kernel(x86, arm, *arguments):
    words = [ctypes.c_long(a) for a in (x86 if platform.machine() == "x86_64" else arm, *arguments)]
    if (result := libc.syscall(*words)) < 0:
        raise OSError(ctypes.get_errno(), "")
    return result
def new():
    return os.open("reserved", os.O_RDWR | os.O_CREAT, 0o600)
def reserve(request):
    fcntl.ioctl(new(), request, struct.pack("=hh4xqqiI16x", 0, 0, 0, 1 << 20, 0, 0))
def enlarge(kind, option):
    with socket.socket(socket.AF_UNIX, kind) as one:
        before = one.getsockopt(socket.SOL_SOCKET, option)
        one.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
        if one.getsockopt(socket.SOL_SOCKET, option) != before:
            raise OSError(errno.E2BIG, "")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        if not one.getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED):
            raise OSError(errno.EINVAL, "")
LONG_TURNS = (ctypes.c_uint32 * 12)(48, 0, 0, 0, 0, 0, 10**8, 0, 0, 0, 0, 0)
told = {}
def attempt(name, call, *arguments):
    try:
        call(*arguments)
        told[name] = "done"
    except OSError as error:
        told[name] = errno.errorcode[error.errno]
"""
_REFUSED = {
    "AF_ALG": ("socket.socket(38, 5, 0)", "EAFNOSUPPORT"),
    "AF_VSOCK": ("socket.socket(40, 1, 0)", "EAFNOSUPPORT"),
    "AF_PACKET": ("socket.socket(17, 3, 0)", "EAFNOSUPPORT"),
    "AF_TIPC by pair": ("socket.socketpair(30, 1, 0)", "EAFNOSUPPORT"),
    "TCP by pair": ("socket.socketpair(2, 1, 0)", "EAFNOSUPPORT"),
    "AF_ALG by pair": ("socket.socketpair(38, 5, 0)", "EAFNOSUPPORT"),
    "SCTP": ("socket.socket(2, 1, 132)", "EPROTONOSUPPORT"),
    "SCTP over IPv6": ("socket.socket(10, 1, 132)", "EPROTONOSUPPORT"),
    "MPTCP": ("socket.socket(2, 1, 262)", "EPROTONOSUPPORT"),
    "UDP-Lite": ("socket.socket(2, 2, 136)", "EPROTONOSUPPORT"),
    "SCTP by kind": ("socket.socket(2, 5, 0)", "ESOCKTNOSUPPORT"),
    "DCCP by kind": ("socket.socket(2, 6 | 0o4000, 0)", "ESOCKTNOSUPPORT"),
    "netlink of the packet filter": ("socket.socket(16, 3, 12)", "EPROTONOSUPPORT"),
    "netlink of socket diagnosis": ("socket.socket(16, 3, 4)", "EPROTONOSUPPORT"),
    "netlink of cryptography": ("socket.socket(16, 3, 21)", "EPROTONOSUPPORT"),
    "netlink, generic": ("socket.socket(16, 3, 16)", "EPROTONOSUPPORT"),
    "memory file": ("os.memfd_create('x')", "ENOSYS"),
    "System V memory": ("kernel(29, 194, 0, 1 << 20, 0o1600)", "ENOSYS"),
    "System V messages": ("kernel(68, 186, 0, 0o1600)", "ENOSYS"),
    "System V semaphores": ("kernel(64, 190, 0, 1, 0o1600)", "ENOSYS"),
    "clone3": ("kernel(435, 435, 0, 0)", "ENOSYS"),
    "reserved space": ("kernel(285, 47, new(), 0, 0, 1 << 20)", "ENOTSUP"),
    "reserved space by ioctl": ("reserve(0x40305828)", "ENOTSUP"),
    "reserved space by a wide ioctl": ("reserve(0x4030582A)", "ENOTSUP"),
    "space of XFS's own by ioctl": ("reserve(0x4030580A)", "ENOTSUP"),
    "space of XFS's own by a wide ioctl": ("reserve(0x40305824)", "ENOTSUP"),
    "files that grow by gigabytes": (
        "fcntl.ioctl(new(), 0x401C5820, struct.pack('=IIIII8x', 1 << 11, 1 << 30, 0, 0, 0))",
        "ENOTSUP",
    ),
    "a range of zeros by ioctl": ("reserve(0x40305839)", "ENOTSUP"),
    "a better place at the disk": ("kernel(251, 30, 1, 0, 2 << 13)", "EPERM"),
    "long turns": ("kernel(314, 274, 0, ctypes.addressof(LONG_TURNS), 0)", "EPERM"),
    "open_tree_attr": ("kernel(467, 467, -100, 0, 1, 0, 0)", "EPERM"),
    "real time": (
        "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
        "EPERM",
    ),
}
_ALLOWED = {
    "unix": "socket.socket(1, 1)",
    "unix, ordered packets": "socket.socket(1, 5)",
    "a pair": "socket.socketpair()",
    "TCP": "socket.socket(2, 1)",
    "TCP by name": "socket.socket(2, 1, 6)",
    "UDP without waiting": "socket.socket(10, 2 | 0o4000, 17)",
    "its addresses": "socket.if_nameindex()",
    "shared memory": "open('/dev/shm/x', 'w').truncate(4096)",
    "space by writing": "os.posix_fallocate(new(), 0, 1 << 20)",
    "a larger buffer, in vain": "enlarge(socket.SOCK_STREAM, socket.SO_SNDBUF)",
    "a larger buffer to read from, in vain": "enlarge(socket.SOCK_DGRAM, socket.SO_RCVBUF)",
    "sync": "os.sync()",
    "sync of a file system": "kernel(306, 267, os.open('.', os.O_RDONLY))",
}


async def told(workshop: Workshop, calls: dict[str, str]) -> dict[str, str]:
    lines = [f"attempt({name!r}, lambda: {call})" for name, call in calls.items()]
    code = "\n".join([_PRELUDE, *lines, "print(json.dumps(told))"])
    sandbox = await workshop.prepared(
        "process", 'exec /usr/bin/python3 -I -S -c "$CODE"', env={"CODE": code}
    )
    outcome = await sandbox.run(0)
    assert outcome.state == "succeeded", outcome.stderr_tail.decode()
    found: dict[str, str] = json.loads(outcome.value)
    return found


async def test_what_it_refuses(workshop: Workshop) -> None:
    found = await told(workshop, {name: call for name, (call, _) in _REFUSED.items()})
    assert found == {name: error for name, (_, error) in _REFUSED.items()}


async def test_what_an_ordinary_program_needs_goes_through(workshop: Workshop) -> None:
    assert await told(workshop, _ALLOWED) == dict.fromkeys(_ALLOWED, "done")


async def test_shared_memory_counts_as_memory(workshop: Workshop) -> None:
    """An anonymous mapping that is shared is no process's own, and yet it is taken."""
    code = (
        "import mmap, os, time\n"
        "for _ in range(12):\n"
        "  if os.fork() == 0: m = mmap.mmap(-1, 16 << 20); m.write(bytes(16 << 20)); break\n"
        "else: print('forked', flush=True)\n"
        "time.sleep(3600)"
    )
    sandbox = await workshop.prepared(
        "process", 'exec /usr/bin/python3 -I -S -c "$CODE"', env={"CODE": code}
    )
    assert (await sandbox.run(0)).limit == "memory"


def test_a_proxy_bounds_what_the_kernel_takes_in_for_it() -> None:
    """And gets no larger room for what it sends."""
    code = (
        "import socket\n"
        "from lender.sandbox.walls import confine, seccomp\n"
        "confine.filter_calls(seccomp.program(proxies=True))\n"
        "one = socket.socket()\n"
        "before = one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)\n"
        "for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):\n"
        "    one.setsockopt(socket.SOL_SOCKET, option, 100_000)\n"
        "print(one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))\n"
        "print(one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - before)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.stdout.split() == ["200000", "0"], said.stdout + said.stderr
