"""Looks for holes in the walls from inside on Linux: the self-test's python task.

Its text goes into the sandbox and nothing of the lender's does, so it imports the standard library
alone, and runs on whatever version of Python is found in there.
"""

import contextlib
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from typing import Any

_READ_ONLY = ("/", "/usr", "/etc", "/dev", "/proc", "/sys")
_NOT_TO_WRITE = ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/dev/kmsg")
_NOT_TO_SEE = ("/home", "/root", "/var", "/run/user", "/sys/class/net")
_NO_PRIVILEGES = {"CapPrm": "0" * 16, "CapEff": "0" * 16, "NoNewPrivs": "1"}
_FILTERED = "2"
# Families whose sockets no network namespace contains.
_SOCKETS = {"AF_ALG": (38, 5), "AF_PACKET": (17, 3), "AF_VSOCK": (40, 1)}
_NEW_USER_NAMESPACE = 0x10000000
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_GET_KEYRING, _SESSION_KEYRING = 0, -3


def probe(host: dict[str, Any]) -> Callable[[int], bytes]:
    """A task that returns what it found, as JSON: `walls` that do not stand, and `entered`.

    Args:
        host: what it must not reach: a `port` on the loopback, an `abstract` unix socket, and the
            `namespaces`; what it may see: the names of its `environment`; whether system calls are
            `filtered`; and `enter`, the file that shows that the rules for files are set; where it
            has a network the port of its `proxy`.
    """

    def look(_task: int) -> bytes:
        walls = [*_files(), *_privileges(host), *_sockets(host), *_system_calls(host)]
        walls += _proxied(host) if "proxy" in host else ()
        return json.dumps({"walls": walls, "entered": os.path.exists(host["enter"])}).encode()  # noqa: PTH110 - one import less

    return look


def _files() -> Iterator[str]:
    for folder in _READ_ONLY:
        with contextlib.suppress(OSError):
            os.close(os.open(f"{folder}/lender-selftest", os.O_WRONLY | os.O_CREAT))
            yield f"can write below {folder}"
    for file in _NOT_TO_WRITE:
        with contextlib.suppress(OSError):
            os.close(os.open(file, os.O_WRONLY | os.O_APPEND))
            yield f"can write {file}"
    yield from (f"sees {place}" for place in _NOT_TO_SEE if os.path.exists(place))  # noqa: PTH110
    for name in os.listdir("/dev"):  # noqa: PTH208
        with contextlib.suppress(OSError):
            if stat.S_ISBLK(os.stat(f"/dev/{name}").st_mode):  # noqa: PTH116
                yield f"sees the disk {name}"
    try:
        with open("here", "wb"):  # noqa: PTH123
            pass
    except OSError:
        yield "can't write its working folder"


def _privileges(host: dict[str, Any]) -> Iterator[str]:
    import resource  # noqa: PLC0415 - only in here

    with contextlib.suppress(OSError), open("/proc/1/environ", "rb") as file:  # noqa: PTH123
        if file.read().strip(b"\0"):
            yield "the environment of process 1 shows"
    for name in sorted(set(os.environ) - set(host["environment"])):
        yield f"shows {name} of an environment"
    if max(resource.getrlimit(resource.RLIMIT_CORE)) != 1:
        yield "dumps cores"
    for kind, outside in host["namespaces"].items():
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/self/ns/{kind}") == outside:  # noqa: PTH115
                yield f"shares the {kind} namespace"
    with open("/proc/self/status") as lines:  # noqa: PTH123
        status = dict(line.split(":\t", 1) for line in lines.read().splitlines() if ":\t" in line)
    if "0" in status.get("Uid", "0").split():
        yield "runs as root"
    wanted = _NO_PRIVILEGES | ({"Seccomp": _FILTERED} if host["filtered"] else {})
    yield from (
        f"has {name} {status.get(name)}" for name in wanted if status.get(name) != wanted[name]
    )


def _sockets(host: dict[str, Any]) -> Iterator[str]:
    outside = {
        "the host's loopback": (socket.AF_INET, ("127.0.0.1", host["port"])),
        "an abstract socket of the host": (socket.AF_UNIX, host["abstract"]),
    }
    for what, (family, place) in outside.items():
        with contextlib.suppress(OSError), socket.socket(family) as reached:
            reached.settimeout(1)
            reached.connect(place)
            yield f"reaches {what}"
    for name, (number, kind) in _SOCKETS.items() if host["filtered"] else ():
        with contextlib.suppress(OSError):
            socket.socket(number, kind).close()
            yield f"can make sockets of {name}"


def not_to_reach(port: int) -> tuple[str, ...]:
    """What a proxy has to refuse: the machine itself, its network, the metadata of clouds."""
    return (
        f"127.0.0.1:{port}",
        "127.0.0.1:80",
        "10.0.0.1:443",
        "100.64.0.1:80",
        "169.254.169.254:80",
        "[::1]:80",
        "[fd00::1]:443",
        "[::ffff:127.0.0.1]:80",
    )


def _proxied(host: dict[str, Any]) -> Iterator[str]:
    for place in not_to_reach(host["port"]):
        try:
            with socket.create_connection(("127.0.0.1", host["proxy"]), 5) as asked:
                asked.sendall(f"CONNECT {place} HTTP/1.1\r\n\r\n".encode())
                answer = asked.recv(100)
        except OSError:
            yield "its proxy can't be reached"
            return
        if b" 403 " not in answer:
            yield f"gets to {place} by its proxy: {answer!r}"


def _system_calls(host: dict[str, Any]) -> Iterator[str]:
    try:
        import ctypes  # noqa: PLC0415 - not everywhere
    except ImportError:
        return  # the status has told of the filter, and it is the same for all
    libc = ctypes.CDLL(None)
    keyctl = _KEYCTL.get(os.uname().machine)
    keys = keyctl is None or libc.syscall(keyctl, _GET_KEYRING, _SESSION_KEYRING, 0)
    if host["filtered"] and keyctl is not None and keys != -1:
        yield "reaches the session's keys"
    if libc.unshare(_NEW_USER_NAMESPACE) == 0:
        yield "can make a user namespace"
