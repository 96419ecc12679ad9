"""Attacks on the kernel: its calls, its files, its other faces."""

import os
import platform

import pytest
from arena import Arena, in_one_loop
from attacks import tried_in

from lender.sandbox.plan import Runtime

pytestmark = in_one_loop

# By name: Python that makes the call; a number is that of x86_64 and that of arm64.
# Each is made in a form that comes to something, or to an error of its own, where it gets through.
NAMESPACES = {
    "user namespace": "kernel(272, 97, 0x10000000)",
    "mount namespace": "kernel(272, 97, 0x20000)",
    "cgroup namespace": "kernel(272, 97, 0x2000000)",
    "network namespace": "kernel(272, 97, 0x40000000)",
    "user namespace by clone": "forked(56, 220, 0x10000000 | 17, 0, 0, 0, 0)",
    "time namespace by clone": "forked(56, 220, 0x80 | 17, 0, 0, 0, 0)",
    "user namespace by clone3": "forked(435, 435, words(0x10000000, 0, 0, 0, 17, 0, 0, 0), 64)",
    "setns": "kernel(308, 268, os.open('/proc/1/ns/net', os.O_RDONLY), 0)",
}
MOUNTS = {
    "mount": "kernel(165, 40, b'x', b'/tmp', b'tmpfs', 0, None)",
    "mount proc": "kernel(165, 40, b'x', b'/tmp', b'proc', 0, None)",
    "mount overlay": (
        "kernel(165, 40, b'x', b'/tmp', b'overlay', 0, b'lowerdir=/usr,upperdir=/tmp,workdir=/tmp')"
    ),
    "mount binfmt_misc": "kernel(165, 40, b'x', b'/tmp', b'binfmt_misc', 0, None)",
    "remount writable": "kernel(165, 40, None, b'/usr', None, 32 | 4096, None)",
    "umount": "kernel(166, 39, b'/usr', 2)",
    "pivot_root": "kernel(155, 41, b'/work', b'/work')",
    "chroot": "os.chroot('/work')",
    "open_tree": "kernel(428, 428, -100, b'/usr', 1)",
    "move_mount": "kernel(429, 429, -100, b'/tmp', -100, b'/work', 0)",
    "fsopen": "kernel(430, 430, b'tmpfs', 0)",
    "mount_setattr": "kernel(442, 442, -100, b'/usr', 0, words(0, 1, 0, 0), 32)",
    "character device": "os.mknod('device', stat.S_IFCHR | 0o666, os.makedev(1, 1))",
    "block device": "os.mknod('device', stat.S_IFBLK | 0o666, os.makedev(8, 0))",
}
INTERFACES = {
    "ptrace": "kernel(101, 117, 0, 0, 0, 0)",
    "ptrace of init": "kernel(101, 117, 16, 1, 0, 0)",
    "process_vm_readv": "kernel(310, 270, os.getpid(), vector, 1, vector, 1, 0)",
    "process_vm_writev": "kernel(311, 271, os.getpid(), vector, 1, vector, 1, 0)",
    "kcmp": "kernel(312, 272, os.getpid(), os.getpid(), 0, 0, 0)",
    "pidfd_getfd": "kernel(438, 438, os.pidfd_open(os.getpid()), 1, 0)",
    "bpf": "kernel(321, 280, 0, words(1, 4, 8, 1, 0, 0, 0, 0, 0), 72)",
    "perf_event_open": "kernel(298, 241, perf, 0, -1, -1, 0)",
    "userfaultfd": "kernel(323, 282, 1)",
    "io_setup": "kernel(206, 0, 1, words(0))",
    "io_uring": "kernel(425, 425, 1, words(*[0] * 15))",
    "memfd_secret": "kernel(447, 447, 0)",
    "keyctl": "kernel(250, 219, 0, -3, 1)",
    "add_key": "kernel(248, 217, b'user', b'x', b'x', 1, -3)",
    "request_key": "kernel(249, 218, b'user', T['name'].encode(), None, 0)",
    "inotify": "kernel(294, 26, 0)",
    "fanotify": "kernel(300, 262, 0x200, 0)",
    "name_to_handle_at": "kernel(303, 264, -100, b'/usr', words(128, *[0] * 20), words(0), 0)",
    "open_by_handle_at": "kernel(304, 265, -100, words(128, *[0] * 20), 0)",
    "modify_ldt": "kernel(154, 9999, 0, words(*[0] * 8), 64)",
    "iopl": "kernel(172, 9999, 3)",
    "ioperm": "kernel(173, 9999, 0x60, 1, 1)",
    "vhangup": "kernel(153, 58)",
}
MACHINE = {
    "kernel log": "kernel(103, 116, 3, words(*[0] * 512), 4096)",
    "size of the kernel log": "kernel(103, 116, 10, None, 0)",
    "init_module": "kernel(175, 105, b'x', 1, b'')",
    "finit_module": "kernel(313, 273, 0, b'', 0)",
    "kexec_load": "kernel(246, 104, 0, 0, None, 0)",
    "reboot": "kernel(169, 142, 1, 2, 3, None)",  # with no magic number it can't succeed
    "set the clock": "kernel(227, 112, 0, None)",
    "adjust the clock": "kernel(305, 266, 0, words(*[0] * 26))",
    "settimeofday": "kernel(164, 170, None, None)",
    "swapon": "kernel(167, 224, b'/work/none', 0)",
    "acct": "kernel(163, 89, b'/work/none')",
    "quotactl": "kernel(179, 60, 0x80000700, b'/dev/none', 0, None)",
    "hostname": "kernel(170, 161, b'mine', 4)",
    "become root": "os.setresuid(0, 0, 0)",
    "another group": "os.setgroups([0])",
    "capabilities": "kernel(126, 91, words(0x20080522), words(1, 1, 1))",
    "lift the ban on privileges": "prctl(38, 0, 0, 0, 0)",
    "lift the filter": "prctl(22, 0, None)",
}
CALLS = {
    "namespaces": NAMESPACES,
    "mounts": MOUNTS,
    "interfaces": INTERFACES,
    "machine": MACHINE,
}
# What gets through where there is no filter, on any kernel that knows it: the filter is a wall.
WITHOUT_FILTER = {
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_getfd",
    "keyctl",
    "inotify",
}
_TOOLS = """
def words(*values):
    return (ctypes.c_uint64 * len(values))(*values)
def forked(*arguments):
    pid = kernel(*arguments)
    if pid == 0:
        os._exit(0)
    return pid
def prctl(*arguments):
    result = libc.prctl(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), "")
    return result
buffer = ctypes.create_string_buffer(8)
vector = words(ctypes.addressof(buffer), 8)
perf = words(1 | 128 << 32, 0, 0, 0, 0, 1 << 5 | 1 << 6, *[0] * 10)
"""


def attempts(calls: dict[str, str]) -> str:
    """An attack that makes these calls one after another."""
    lines = (f"attempt({name!r}, lambda: {call})" for name, call in calls.items())
    return "\n".join((_TOOLS, *lines))


@pytest.mark.parametrize("group", CALLS)
@tried_in("process", "python", "oci")
async def test_a_call_is_refused(arena: Arena, runtime: Runtime, group: str) -> None:
    tried = await arena.attack(runtime, attempts(CALLS[group]))
    assert tried.failed, tried.got
    assert tried.refused.keys() == CALLS[group].keys()


@tried_in("process")
async def test_without_its_filter_calls_would_get_through(arena: Arena, runtime: Runtime) -> None:
    assert runtime == "process"
    calls = {name: INTERFACES[name] for name in sorted(WITHOUT_FILTER) if name != "ptrace"}
    calls["ptrace"] = INTERFACES["ptrace"]  # last: from here on its parent would be asked
    free = await arena.without_filter(attempts(calls))
    assert set(free.got) == WITHOUT_FILTER, free.refused


@tried_in("process", "python", "oci")
async def test_the_calls_of_other_architectures_are_refused(arena: Arena, runtime: Runtime) -> None:
    """The filter knows numbers: those of 32 bits mean something else."""
    if platform.machine() != "x86_64":
        pytest.skip("only x86_64 speaks three call tables")
    x32 = "attempt('x32', kernel, 0x40000000 | 39, 0)"
    assert (await arena.attack(runtime, x32)).refused == {"x32": "ENOSYS"}
    i386 = """
import mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")  # getpid by int 0x80
place = ctypes.addressof(ctypes.c_char.from_buffer(code))
attempt("i386", ctypes.CFUNCTYPE(ctypes.c_int)(place))
"""
    tried = await arena.attack(runtime, i386)
    assert (tried.got, tried.ended) == ({}, False), "the first such call ends it"


KERNEL_FILES = [
    ("/proc/sys/kernel/core_pattern", "os.O_WRONLY"),
    ("/proc/sys/kernel/hostname", "os.O_WRONLY"),
    ("/proc/sys/kernel/modprobe", "os.O_WRONLY"),
    ("/proc/sys/kernel/ns_last_pid", "os.O_WRONLY"),
    ("/proc/sys/vm/drop_caches", "os.O_WRONLY"),
    ("/proc/sys/user/max_user_namespaces", "os.O_WRONLY"),
    ("/proc/sys/fs/binfmt_misc/register", "os.O_WRONLY"),
    ("/proc/sysrq-trigger", "os.O_WRONLY"),
    ("/proc/kcore", "os.O_RDONLY"),
    ("/proc/kmsg", "os.O_RDONLY"),
    ("/proc/1/mem", "os.O_RDWR"),
    ("/proc/1/environ", "os.O_RDWR"),
    ("/dev/kmsg", "os.O_RDONLY"),
    ("/dev/kmsg", "os.O_WRONLY"),
    ("/dev/mem", "os.O_RDONLY"),
    ("/dev/kvm", "os.O_RDWR"),
    ("/dev/fuse", "os.O_RDWR"),
    ("/dev/vsock", "os.O_RDONLY"),
    ("/dev/vhost-net", "os.O_RDWR"),
    ("/dev/userfaultfd", "os.O_RDWR"),
    ("/dev/cpu_dma_latency", "os.O_RDWR"),
    ("/dev/watchdog", "os.O_WRONLY"),
    ("/dev/dri/card0", "os.O_RDWR"),
    ("/dev/uinput", "os.O_WRONLY"),
    ("/dev/net/tun", "os.O_RDWR"),
    ("/dev/loop-control", "os.O_RDWR"),
    ("/dev/input/event0", "os.O_RDONLY"),
    ("/dev/snd/controlC0", "os.O_RDONLY"),
    ("/dev/video0", "os.O_RDONLY"),
    ("/dev/sda", "os.O_RDONLY"),
    ("/dev/vda", "os.O_RDONLY"),
    ("/sys/kernel/uevent_helper", "os.O_RDONLY"),
    ("/sys/fs/cgroup/cgroup.procs", "os.O_RDONLY"),
    ("/sys/class/dmi/id/product_uuid", "os.O_RDONLY"),
    ("/etc/machine-id", "os.O_RDONLY"),
]


@tried_in("process", "python", "oci")
async def test_no_file_of_the_kernels_opens(arena: Arena, runtime: Runtime) -> None:
    """They are only ever opened, also where they could be written."""
    code = "\n".join(
        f"attempt('{path} {mode}', opened, {path!r}, {mode})" for path, mode in KERNEL_FILES
    )
    tried = await arena.attack(runtime, code)
    assert tried.failed, tried.got
    assert len(tried.refused) == len(KERNEL_FILES)


@tried_in("process")
@pytest.mark.skipif(os.getuid() != 0, reason="only root could start bubblewrap as root")
async def test_bubblewrap_as_root_would_open_them(arena: Arena, runtime: Runtime) -> None:
    assert runtime == "process"
    code = "attempt('it', opened, '/proc/sys/kernel/core_pattern', os.O_WRONLY)"
    assert (await arena.without_filter(code, as_root=True)).got


@tried_in("process", "python", "oci")
async def test_its_own_standing_cannot_be_raised(arena: Arena, runtime: Runtime) -> None:
    """What a process may say about itself in /proc is not more than it had."""
    code = """
def write(path, text):
    with open(path, "r+") as file:
        file.write(text)
attempt("never be killed", write, "/proc/self/oom_score_adj", "-1000")
attempt("another user", write, "/proc/self/uid_map", "0 0 1")
attempt("another group", write, "/proc/self/gid_map", "0 0 1")
attempt("its parent's fate", write, "/proc/1/oom_score_adj", "1000")
"""
    assert (await arena.attack(runtime, code)).failed


TERMINAL = """
import fcntl
def typed(fd, request):
    for letter in b"echo typed\\n":
        fcntl.ioctl(fd, request, bytes([letter]))
for fd in (0, 1, 2):
    for name, request in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541C)):
        attempt(f"{name} {fd}", typed, fd, request)
        # The kernel looks at 32 bits of it: a filter that compares 64 would let it pass.
        attempt(f"{name} {fd} wide", kernel, 16, 29, fd, request | 1 << 32, b"x")
attempt("terminal", opened, "/dev/tty", os.O_RDWR)
attempt("console", opened, "/dev/console", os.O_RDWR)
attempt("first terminal", opened, "/dev/tty1", os.O_RDWR)
attempt("another's terminal", opened, "/dev/pts/0", os.O_RDWR)
"""


@tried_in("process", "python", "oci")
async def test_nothing_can_be_typed_into_a_terminal(arena: Arena, runtime: Runtime) -> None:
    tried = await arena.attack(runtime, TERMINAL)
    assert tried.failed, tried.got
    assert {error for name, error in tried.refused.items() if name.startswith("TIOC")} == {"EPERM"}
    own = """
import fcntl
attempt("its own", lambda: fcntl.ioctl(os.openpty()[1], 0x5412, b"x"))
"""
    assert (await arena.attack(runtime, own)).failed


@tried_in("process", "python", "oci")
async def test_no_core_is_dumped(arena: Arena, runtime: Runtime) -> None:
    """A limit of 1 stops also a handler at a pipe, which would run as root; 0 does not."""
    code = """
say("core", *resource.getrlimit(resource.RLIMIT_CORE))
for limit in ((0, 0), (0, 1), (2, 2), (1 << 20, 1 << 20), (-1, -1)):
    attempt(f"limit {limit}", resource.setrlimit, resource.RLIMIT_CORE, limit)
    attempt(f"limit {limit} by prlimit", resource.prlimit, 0, resource.RLIMIT_CORE, limit)
"""
    tried = await arena.attack(runtime, code)
    assert tried.failed, tried.got
    crashed = await arena.attack(runtime, "os.kill(os.getpid(), signal.SIGSEGV)")
    assert not crashed.ended
    assert list(arena.scratch.iterdir()) == []
