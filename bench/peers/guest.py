"""The runner's end of one peer: asked with a bound, and ended with all below it."""

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from bench.peers.known import ROOT, Known, search_path
from bench.peers.port import WITH_PARENT

_PR_SET_CHILD_SUBREAPER = 36
_CLOSE_S = 15.0
_SHARED = "/dev/shm"


class GuestError(Exception):
    """A peer did not do what it was asked, or not in time."""


class Guest:
    """One peer in a process of its own, with a folder that goes with it.

    Whatever it starts, daemons of daemons included, falls to the runner and ends with the guest.
    """

    def __init__(self, known: Known, folder: Path) -> None:
        self.known = known
        self.folder = folder
        self.folder.mkdir()
        self.folder.chmod(0o711)  # lenders are another user
        self._log = (self.folder / "host.log").open("wb")
        self._others = psutil.Process().children(recursive=True)
        self._process = subprocess.Popen(
            [
                *WITH_PARENT,
                str(known.python),
                "-m",
                "bench.peers.host",
                known.module,
                str(self.folder),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "PATH": search_path(),
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(folder),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C is the runner's
        )

    @property
    def pid(self) -> int:
        """The process that submits."""
        return self._process.pid

    def ask(self, do: str, within_s: float, **fields: object) -> dict[str, Any]:
        """Have the host do something.

        Raises:
            GuestError: it could not, or has not answered in time; it is of no use then.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise GuestError(f"{do}: the host has ended: {self._said()}") from None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(within_s):
                raise GuestError(f"{do}: no answer within {within_s:g} s")
        line = self._process.stdout.readline()
        reply: dict[str, Any] = json.loads(line) if line else {"error": self._said()}
        if "error" in reply:
            raise GuestError(f"{do}: {reply['error']}")
        return reply

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        shared = shared_memory(family([self.pid]))
        try:
            if kind is None or not issubclass(kind, GuestError | KeyboardInterrupt):
                self._process.stdin.close()
                self._process.wait(_CLOSE_S)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            pass
        finally:
            end_all(self._others)
            self._process.wait()
            assert self._process.stdout is not None
            for end in (self._process.stdin, self._process.stdout, self._log):
                with contextlib.suppress(BrokenPipeError):
                    end.close()
            unlink(shared)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _said(self) -> str:
        lines = (self.folder / "host.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def adopt() -> None:
    """Have what our children leave behind become ours (Linux), so that `end_all` finds it."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_all(spared: Collection[psutil.Process] = ()) -> None:
    """Kill every process below this one, but for these, until there is none."""
    while left := [one for one in psutil.Process().children(recursive=True) if one not in spared]:
        for one in left:
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                one.kill()
        psutil.wait_procs(left, timeout=1)
        _reap()


def shared_memory(processes: Iterable[psutil.Process]) -> set[Path]:
    """Return what they have in /dev/shm: who is killed leaves it there."""
    found = set()
    for one in processes:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{one.pid}/maps").read_text().splitlines()
            names = (line.split(maxsplit=5)[-1] for line in lines if _SHARED in line)
            found |= {Path(name) for name in names if Path(name).parent == Path(_SHARED)}
    return found


def unlink(files: Iterable[Path]) -> None:
    """Remove those that are still there."""
    for file in files:
        file.unlink(missing_ok=True)


def family(roots: Iterable[int]) -> list[psutil.Process]:
    """Return these processes and all below them that live."""
    found: dict[int, psutil.Process] = {}
    for pid in roots:
        try:
            root = psutil.Process(pid)
            found.update({one.pid: one for one in (root, *root.children(recursive=True))})
        except psutil.NoSuchProcess:
            continue
    return list(found.values())


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
