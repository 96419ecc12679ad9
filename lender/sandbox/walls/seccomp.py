"""A system call filter for process sandboxes, as classic BPF (seccomp(2)). Pure.

It takes away what an ordinary program never needs and a hostile one looks at first: the kernel's
newest and largest interfaces, other namespaces, keys that belong to the owner's session, sockets
that a network namespace does not contain or that would load a module into the kernel, what is
counted per user of the host, memory that no process is seen to hold, a better place at the disk,
turns on the processor of up to 100 ms, whose end the owner's programs would wait for as they wake
up (sched_setattr(2)), and another limit for core dumps: it is 1 already, and a program that the
host's core_pattern pipes dumps into would be run as root at 0 (core(5)).

Space on the disk is not reserved in there: a working folder is watched, and nobody writes as fast
as whole files are allocated. Programs that would reserve some do without, as on file systems that
can't (fallocate(2), EOPNOTSUPP). Nor is it set how much a file takes with its next byte (XFS's
extent size hints, ioctl_xfs_fsgetxattr(2)).

Some calls succeed without effect: setsid(), since a session of its own would get a full share of
the processor beside the owner's (sched(7), autogroup); sync(), which would have the owner's disks
written too; and larger buffers for sockets, whose content is memory of no process (socket(7),
SO_SNDBUF: up to 8 MiB each where wmem_max is 4).
"""

import errno
import platform
import struct
from collections.abc import Iterator, Sequence

_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
# Offsets in struct seccomp_data; the low halves of 64-bit arguments, little-endian.
_NUMBER, _ARCHITECTURE, _ARGUMENT_0, _ARGUMENT_1, _ARGUMENT_2 = 0, 4, 16, 24, 32
_HIGH = 4  # from there to the argument's other half
_X32 = 0x40000000
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW* of clone(2), time namespaces too
_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_SPACE = (
    *(0x40305828, 0x4030582A),  # FS_IOC_RESVSP, FS_IOC_RESVSP64
    *(0x4030580A, 0x40305824),  # XFS_IOC_ALLOCSP, XFS_IOC_ALLOCSP64: before Linux 5.17
    0x40305839,  # FS_IOC_ZERO_RANGE
    0x401C5820,  # FS_IOC_FSSETXATTR
)
_UNIX, _IPV4, _NETLINK, _IPV6 = 1, 2, 16, 10  # address families that the namespaces contain
_SOCKET_KIND, _SEQPACKET_OR_STRANGER = 0xF, 4  # of socket(2)'s type; less are stream, datagram, raw
_IP_PROTOCOLS = (0, 1, 6, 17, 58)  # the kind's own, ICMP, TCP, UDP, ICMPv6: others are modules
_CORE = 4  # RLIMIT_CORE
_SOL_SOCKET, _BUFFER_SIZES = 1, (7, 8, 32, 33)  # SO_SNDBUF, SO_RCVBUF and their FORCE
_RECEIVING = 8  # SO_RCVBUF
_NETLINK_PROTOCOLS = (0,)  # NETLINK_ROUTE: which addresses there are

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# System call numbers: (x86_64, aarch64); None where there is none.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioprio_set": (251, 30),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "memfd_secret": (447, 447),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "sched_setattr": (314, 274),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
# Said to be missing, so that programs go another way: what is behind `clone3` lies in memory that
# the filter can't read, and the others hold memory which counts for no process. Files in /dev/shm
# do what they do, and have a limit. Of what `io_setup` takes the whole machine has so much
# (fs.aio-max-nr), and one process could take it all.
_MISSING: dict[str, tuple[int, int]] = {
    "clone3": (435, 435),
    "io_setup": (206, 0),
    "memfd_create": (319, 279),
    "msgget": (68, 186),
    "semget": (64, 190),
    "shmget": (29, 194),
}
_WITHOUT_EFFECT: dict[str, tuple[int, int]] = {
    "setsid": (112, 157),
    "sync": (162, 81),
    "syncfs": (306, 267),
}
_RESERVES: dict[str, tuple[int, int]] = {"fallocate": (285, 47)}
# What a process needs no more that only works on what it has.
_STARTS_OR_REACHES: dict[str, tuple[int | None, int | None]] = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "socket": (41, 198),
    "socketpair": (53, 199),
}
# An engine maps a large module's memory from one. Its size is bounded as a file's is.
_OF_ENGINES = frozenset({"memfd_create"})
_CLONE_THREAD = 0x00010000
_CLONE, _IOCTL, _SOCKET, _SOCKETPAIR = (56, 220), (16, 29), (41, 198), (53, 199)
_SETSOCKOPT = (54, 208)
_SETRLIMIT, _PRLIMIT = (160, 164), (302, 261)


def program(
    machine: str | None = None, *, seals: bool = False, proxies: bool = False
) -> bytes | None:
    """The filter for a machine (`uname -m`; this one by default), None where we have none.

    Args:
        machine: whose numbers it knows.
        seals: for a process that runs a stranger's work by an engine: it starts no other and makes
            no socket, threads are all that it may add.
        proxies: for a sandbox's proxy, which bounds by SO_RCVBUF what the kernel takes in for it.
    """
    machine = machine or platform.machine()
    if machine not in _AUDIT:
        return None
    column = list(_AUDIT).index(machine)
    return b"".join(_instructions(machine, column, seals=seals, proxies=proxies))


def _instructions(machine: str, column: int, *, seals: bool, proxies: bool) -> Iterator[bytes]:
    yield _code(_LOAD, _ARCHITECTURE)
    yield _code(_EQUAL, _AUDIT[machine], 1, 0)
    yield _code(_RETURN, _KILL)
    yield _code(_LOAD, _NUMBER)
    if machine == "x86_64":
        yield from _answer(_AT_LEAST, _X32, errno.ENOSYS)
    for numbers in _DENIED.values():
        number = numbers[column]
        if number is not None:
            yield from _answer(_EQUAL, number, errno.EPERM)
    if seals:
        yield from _seal(column)
    for name, either in _MISSING.items():
        if not (seals and name in _OF_ENGINES):
            yield from _answer(_EQUAL, either[column], errno.ENOSYS)
    for either in _RESERVES.values():
        yield from _answer(_EQUAL, either[column], errno.EOPNOTSUPP)
    for either in _WITHOUT_EFFECT.values():
        yield from _answer(_EQUAL, either[column], 0)
    yield from _with_argument(
        _CLONE[column], _ARGUMENT_0, [*_answer(_ANY_BIT, _NEW_NAMESPACES, errno.EPERM)]
    )
    requests = [i for request in _TERMINAL_INPUT for i in _answer(_EQUAL, request, errno.EPERM)]
    requests += [i for request in _SPACE for i in _answer(_EQUAL, request, errno.EOPNOTSUPP)]
    yield from _with_argument(_IOCTL[column], _ARGUMENT_1, requests)
    yield from _core_limit(column)
    yield from _sockets(column)
    yield from _buffers(column, proxies=proxies)
    yield _code(_RETURN, _ALLOW)


def _seal(column: int) -> Iterator[bytes]:
    for numbers in _STARTS_OR_REACHES.values():
        number = numbers[column]
        if number is not None:
            yield from _answer(_EQUAL, number, errno.EPERM)
    process = [_code(_ANY_BIT, _CLONE_THREAD, 1, 0), _code(_RETURN, _ERRNO | errno.EPERM)]
    yield from _with_argument(_CLONE[column], _ARGUMENT_0, process)


def _core_limit(column: int) -> Iterator[bytes]:
    """Nobody sets it; with prlimit(2), whose new limit may be NULL, it can be asked for."""
    setting = [*_answer(_EQUAL, _CORE, errno.EPERM)]
    yield from _with_argument(_SETRLIMIT[column], _ARGUMENT_0, setting)
    new = [
        _code(_LOAD, _ARGUMENT_2),
        *_one_of((0,), errno.EPERM),
        _code(_LOAD, _ARGUMENT_2 + _HIGH),
        *_one_of((0,), errno.EPERM),
    ]
    of_core = [_code(_EQUAL, _CORE, 0, len(new)), *new]
    yield from _with_argument(_PRLIMIT[column], _ARGUMENT_1, of_core)


def _sockets(column: int) -> Iterator[bytes]:
    number = _SOCKET[column]
    families = _one_of((_UNIX, _IPV4, _IPV6, _NETLINK), errno.EAFNOSUPPORT)
    yield from _with_argument(number, _ARGUMENT_0, families)
    pairs = _one_of((_UNIX,), errno.EAFNOSUPPORT)
    yield from _with_argument(_SOCKETPAIR[column], _ARGUMENT_0, pairs)
    ip = [
        _code(_LOAD, _ARGUMENT_1),
        _code(_AND, _SOCKET_KIND),
        *_answer(_AT_LEAST, _SEQPACKET_OR_STRANGER, errno.ESOCKTNOSUPPORT),
        _code(_LOAD, _ARGUMENT_2),
        *_one_of(_IP_PROTOCOLS, errno.EPROTONOSUPPORT),
    ]
    netlink = [
        _code(_LOAD, _ARGUMENT_2),
        *_one_of(_NETLINK_PROTOCOLS, errno.EPROTONOSUPPORT),
    ]
    for family, tests in ((_IPV4, ip), (_IPV6, ip), (_NETLINK, netlink)):
        of_family = [_code(_EQUAL, family, 0, len(tests)), *tests]
        yield from _with_argument(number, _ARGUMENT_0, of_family)


def _buffers(column: int, *, proxies: bool) -> Iterator[bytes]:
    options = [option for option in _BUFFER_SIZES if not (proxies and option == _RECEIVING)]
    sizes = [i for option in options for i in _answer(_EQUAL, option, 0)]
    option = [_code(_LOAD, _ARGUMENT_2), *sizes]
    level = [_code(_EQUAL, _SOL_SOCKET, 0, len(option)), *option]
    yield from _with_argument(_SETSOCKOPT[column], _ARGUMENT_1, level)


def _one_of(values: Sequence[int], error: int) -> list[bytes]:
    """Refuse anything else, go on behind where it is one of these."""
    left = len(values)
    tests = [_code(_EQUAL, value, left - place, 0) for place, value in enumerate(values)]
    return [*tests, _code(_RETURN, _ERRNO | error)]


def _answer(test: int, value: int, error: int) -> Iterator[bytes]:
    """Refuse where the test holds, go on behind where it does not."""
    yield _code(test, value, 0, 1)
    yield _code(_RETURN, _ERRNO | error)


def _with_argument(number: int, argument: int, tests: list[bytes]) -> Iterator[bytes]:
    """Tests on one argument of one system call; the next test sees the number again."""
    yield _code(_EQUAL, number, 0, len(tests) + 2)
    yield _code(_LOAD, argument)
    yield from tests
    yield _code(_LOAD, _NUMBER)


def _code(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, if_true, if_false, value)
