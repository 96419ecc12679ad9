"""How crun is started: it is heard out, and no name of its making is seen outside."""

import contextlib
import ctypes
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sandboxes import LIMITS, Workshop, open_folder, workshop

from lender.sandbox.plan import TaskOutcome
from lender.sandbox.runtimes import contained
from lender.sandbox.walls import container

__all__ = ["open_folder", "workshop"]  # fixtures
needs_crun = pytest.mark.skipif(
    shutil.which("crun", path=contained._SEARCH) is None, reason="crun is not installed"
)
_IN_CREATE = 0x100
_EVENT = struct.Struct("=iIII")  # struct inotify_event, without its name


async def ran(workshop: Workshop, *argv: str) -> TaskOutcome:
    """A task without an image, as the self-test runs them."""
    plan = workshop.plan("process", "")._replace(runtime="oci", program=None, argv=argv)
    sandbox = workshop.sandbox(plan)
    await sandbox.prepare()
    return await sandbox.run(0)


@needs_crun
async def test_no_name_is_made_where_a_kill_would_leave_it(workshop: Workshop) -> None:
    """crun makes one for its own program; in its private folder it goes with that."""
    for _ in range(5):  # somebody else on this machine may start containers meanwhile
        with names_made_in(Path("/tmp")) as made:  # where crun would
            outcome = await ran(workshop, "true")
            assert outcome.exit_code == 0, outcome
            if not any(name.startswith("crun") for name in made()):
                return
    pytest.fail("each start made one")


@contextlib.contextmanager
def names_made_in(folder: Path) -> Iterator[Callable[[], list[str]]]:
    """Tell every name that anybody makes in a folder, from now on (inotify(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    try:
        assert libc.inotify_add_watch(fd, os.fsencode(folder), _IN_CREATE) >= 0
        yield lambda: list(_names(fd))
    finally:
        os.close(fd)


def _names(fd: int) -> Iterator[str]:
    while True:
        try:
            events = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        at = 0
        while at < len(events):
            _watch, _mask, _cookie, size = _EVENT.unpack_from(events, at)
            at += _EVENT.size
            yield os.fsdecode(events[at : at + size].rstrip(b"\0"))
            at += size


def test_its_hook_hears_it_out() -> None:
    """However late crun speaks: it gives a container up whose hook has ended by then."""
    told, tells = os.pipe()
    held, holds = os.pipe()
    try:
        os.write(holds, b"\n")  # nothing else holds it up
        path, words = _hook(tells, held)
        with subprocess.Popen(
            words, executable=path, stdin=subprocess.PIPE, pass_fds=(tells, held)
        ) as hook:
            assert os.read(told, 1) == b"\n"
            while (state := _state(hook.pid)) not in "SZ":
                pass
            assert state == "S", "it has ended and nobody hears what it is about"
            hook.communicate(b'{"status": "created"}', timeout=10)
        assert hook.returncode == 0
    finally:
        for fd in (told, tells, held, holds):
            os.close(fd)


def _hook(tells: int, held: int) -> tuple[str, list[str]]:
    """The hook's program and words, with our descriptors in place of crun's."""
    made: dict[str, Any] = container.configuration(
        "root", "/scratch", ["sh"], {}, "/work", {}, LIMITS, None
    )
    (hook,) = made["hooks"]["createRuntime"]
    *words, script = hook["args"]
    for theirs, ours in ((container.STATUS_FD, tells), (container.HOLD_FD, held)):
        place = f"/proc/1/fd/{theirs}"
        assert place in script
        script = script.replace(place, f"/proc/{os.getpid()}/fd/{ours}")
    return hook["path"], [*words, script]


def _state(pid: int) -> str:
    """Its letter (proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
