"""Looks for holes in the walls from inside on macOS: the self-test's python task.

Its text goes into the sandbox and nothing of the lender's does, so it imports the standard library
alone, and runs on whatever version of Python is found in there. Not yet run on a Mac.
"""

import contextlib
import json
import os
import resource
import socket
import stat
from collections.abc import Callable, Iterator
from typing import Any

FOLDERS = ("/", "/usr", "/etc", "/dev", "/tmp", "/var/tmp", "/Users", "/Library", "/Applications")  # noqa: S108 - to be refused
FILES = ("/etc/passwd", "/etc/hosts")
_NOT_TO_LIST = ("/Users", "/home", "/tmp", "/Library", "/Applications", "/Volumes", "/etc")  # noqa: S108 - to be refused


def probe(host: dict[str, Any]) -> Callable[[int], bytes]:
    """A task that returns what it found, as JSON: `walls` that do not stand, and `entered`.

    Args:
        host: what it must not reach: a `port` on the loopback, a `unix` socket, `files`, a process
            by its `pid`; what it may see: the names of its `environment`; whether it `forks`.
    """

    def look(_task: int) -> bytes:
        walls = [*_files(host), *_privileges(host), *_sockets(host), *_processes(host)]
        return json.dumps({"walls": walls, "entered": False}).encode()

    return look


def _files(host: dict[str, Any]) -> Iterator[str]:
    for folder in FOLDERS:
        with contextlib.suppress(OSError):
            os.close(os.open(f"{folder}/lender-selftest", os.O_WRONLY | os.O_CREAT))
            yield f"can write below {folder}"
    for file in host["files"]:
        with contextlib.suppress(OSError):
            os.close(os.open(file, os.O_RDONLY))
            yield f"can read {file}"
    for folder in _NOT_TO_LIST:
        with contextlib.suppress(OSError):
            os.listdir(folder)  # noqa: PTH208
            yield f"can list {folder}"
    try:
        with open("here", "wb"):  # noqa: PTH123
            pass
    except OSError:
        yield "can't write its working folder"
    lock = getattr(os, "chflags", None)
    with contextlib.suppress(OSError):
        if lock is not None:
            lock("here", stat.UF_IMMUTABLE)
            lock("here", 0)
            yield "can lock its own files"


def _privileges(host: dict[str, Any]) -> Iterator[str]:
    for name in sorted(set(os.environ) - set(host["environment"])):
        yield f"shows {name} of an environment"
    if 0 in (os.getuid(), os.geteuid()):
        yield "runs as root"
    if max(resource.getrlimit(resource.RLIMIT_CORE)) > 0:
        yield "dumps cores"


def _sockets(host: dict[str, Any]) -> Iterator[str]:
    outside = {
        "the host's loopback": (socket.AF_INET, ("127.0.0.1", host["port"])),
        "a socket of the host": (socket.AF_UNIX, host["unix"]),
    }
    for what, (family, place) in outside.items():
        with contextlib.suppress(OSError), socket.socket(family) as reached:
            reached.settimeout(1)
            reached.connect(place)
            yield f"reaches {what}"


def _processes(host: dict[str, Any]) -> Iterator[str]:
    with contextlib.suppress(OSError):
        os.kill(host["pid"], 0)
        yield "can signal lenderd"
    if host["forks"]:
        return
    with contextlib.suppress(OSError):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        yield "can start processes"
