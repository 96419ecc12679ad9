"""The daemon's side of the launcher: start it, ask it for held processes, hear how they end."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lender.sandbox import frames
from lender.sandbox.frames import Frame
from lender.sandbox.plan import RUNTIMES, Runtime
from lender.sandbox.port import PrepareFailedError, RefusedError, SandboxGoneError
from lender.sandbox.processes.tree import Root

_CLOSE_TIMEOUT_S = 5.0
# They are two processes and some mounts, and show what of the machine was mounted when they came.
_WALLS_KEPT_S = 60.0


class LauncherGoneError(Exception):
    """The launcher is dead, and all sandboxes with it. Start another one."""


class Exit(NamedTuple):
    """How a process ended.

    Attributes:
        status: exit code, or the negative number of the signal that killed it.
        cpu_s: user and system time of it and of all that it waited for.
        memory_peak_bytes: largest resident size of one of them.
    """

    status: int
    cpu_s: float
    memory_peak_bytes: int


class WallsWanted(NamedTuple):
    """What walls ahead are made for; see `walls_ahead`.

    Attributes:
        place: the folder of all working folders.
        memory_bytes: of the next task, as far as that is known.
        kept_s: how long they wait for it.
    """

    place: Path
    memory_bytes: int
    kept_s: float = _WALLS_KEPT_S


class Child(NamedTuple):
    """A held process.

    Attributes:
        id: what the launcher calls it.
        root: its identity, to be recorded before it is sent its plan.
        channel: its socket, non-blocking; the caller's to close.
        ended: done when it was reaped.
    """

    id: int
    root: Root
    channel: socket.socket
    ended: asyncio.Future[Exit]


class Launcher:
    """One launcher process. Start it from the main thread: it dies with the thread that did.

    Attributes:
        drop_to: uid and gid of the sandboxes, where they are not ours.
        looks_ahead: it keeps a process ahead.
        gone: is set once it is dead, as far as is known.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        drop_to: tuple[int, int] | None,
        *,
        looks_ahead: bool = False,
    ) -> None:
        self.drop_to = drop_to
        self.looks_ahead = looks_ahead
        self._process = process
        self._control = control
        self._decoder = frames.Decoder(body_bytes_max=0)
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()
        self._telling: set[asyncio.Task[None]] = set()
        self._answers: dict[int, asyncio.Future[Frame]] = {}
        self._ended: dict[int, asyncio.Future[Exit]] = {}
        self._last_id = 0
        self._why_gone = "the launcher was killed"
        self.gone = asyncio.Event()
        self._loop.add_reader(control, self._on_readable)

    @classmethod
    async def start(
        cls,
        *,
        drop_to: tuple[int, int] | None = None,
        preload: Sequence[Runtime] = (),
        spare: bool = False,
        enclosed: bool = False,
    ) -> "Launcher":
        """Start the launcher process.

        Args:
            drop_to: uid and gid to switch to; needed when this process is root.
            preload: runtimes to load at once rather than when first used. With `drop_to` it is
                all of them, since their files may be out of that user's reach: of some also those
                that another runtime loads late, such as archives for checkpoints.
            spare: from the first process on, keep one ahead, which no launch has to wait for.
            enclosed: nothing else runs as that user, see `processes.account`.

        Raises:
            LauncherGoneError: it died at once.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220 - a few milliseconds, once
                [sys.executable, "-I", "-m", "lender.sandbox.launcher_main", str(theirs.fileno())],
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        launcher = cls(process, ours, drop_to, looks_ahead=spare)
        wanted = list(preload if drop_to is None else RUNTIMES)
        try:
            options = {"drop_to": drop_to, "preload": wanted, "spare": spare, "enclosed": enclosed}
            await launcher._ask(0, {"do": "configure", **options})
        except (LauncherGoneError, asyncio.CancelledError):
            await launcher.close()
            raise
        return launcher

    @property
    def pid(self) -> int:
        """Process id of the launcher."""
        return self._process.pid

    async def spawn(self, runtime: Runtime, cgroup: Path | None = None) -> Child:
        """Fork a process that waits for its plan, the first word on its channel.

        Args:
            runtime: what it is to run.
            cgroup: an existing leaf to put it into before anything of it runs.

        Raises:
            PrepareFailedError: no process could be made, or the runtime is not installed.
            LauncherGoneError: the launcher is dead.
        """
        self._last_id += 1
        number = self._last_id
        ended = self._ended[number] = self._loop.create_future()
        leaf = None if cgroup is None else os.fspath(cgroup)
        request = {"do": "spawn", "runtime": runtime, "cgroup": leaf}
        header, _, fds = await self._ask(number, request)
        if header["event"] == "failed":
            self._ended.pop(number, None)  # its end may have been told in the same breath
            raise PrepareFailedError(f"no {runtime} sandbox: {header['error']}")
        channel = socket.socket(fileno=fds[0])
        channel.setblocking(False)
        root = Root(header["pid"], header["start_time"])
        return Child(header["id"], root, channel, ended)

    def look_ahead(self, cgroup: Path | None, walls: WallsWanted | None = None) -> None:
        """Let it make the process ahead now, where it `looks_ahead`.

        Args:
            cgroup: an existing leaf to put it into; the next `spawn` is to name the same.
            walls: those of a process sandbox that are to stand ahead, too; None for none.
        """
        leaf = None if cgroup is None else os.fspath(cgroup)
        wanted = None
        if walls is not None:
            wanted = {**walls._asdict(), "place": os.fspath(walls.place)}
        request = {"do": "ahead", "cgroup": leaf, "walls": wanted}
        task = self._loop.create_task(self._tell(request))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def go(self, child: Child, abort_if_exists: Sequence[Path] = ()) -> None:
        """Look for the last time before a held process is sent its plan, at once behind this.

        Raises:
            RefusedError: one of the paths exists; the caller is to end the process.
            SandboxGoneError: it was killed while it was held.
        """
        if child.ended.done():
            raise SandboxGoneError("killed before it started")
        for path in abort_if_exists:
            if os.path.lexists(path):  # noqa: ASYNC240 - nothing may come in between
                raise RefusedError(os.fspath(path))

    async def close(self) -> None:
        """End it, and with it every sandbox; returns when it is gone. Idempotent."""
        self._on_gone()
        try:
            await asyncio.to_thread(self._process.wait, _CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    async def _ask(self, number: int, request: dict[str, Any]) -> Frame:
        """Send a request and wait for its answer; one at a time for each id."""
        if self.gone.is_set():
            raise LauncherGoneError(self._why_gone)
        answer: asyncio.Future[Frame] = self._loop.create_future()
        self._answers[number] = answer
        try:
            await self._send({**request, "id": number})
            return await answer
        except OSError as error:
            raise LauncherGoneError(self._why_gone) from error
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                _drop(answer.result())
            raise
        finally:
            self._answers.pop(number, None)

    async def _tell(self, request: dict[str, Any]) -> None:
        """Say what has no answer; a launcher that is gone needs no word."""
        if not self.gone.is_set():
            with contextlib.suppress(OSError):
                await self._send(request)

    async def _send(self, request: dict[str, Any]) -> None:
        async with self._sending:
            await self._loop.sock_sendall(self._control, frames.encode(Frame(request)))

    def _on_readable(self) -> None:
        try:
            data, fds = frames.receive(self._control)
            received = self._decoder.feed(data, fds)
        except BlockingIOError:
            return
        except (OSError, frames.FrameError):
            self._on_gone()
            return
        for frame in received:
            self._on_report(frame)
        if not data:
            self._on_gone()

    def _on_report(self, frame: Frame) -> None:
        header = frame.header
        if header["event"] == "broken":
            self._why_gone = header["error"]
        if header["event"] == "exited" and header["id"] in self._ended:
            end = Exit(header["status"], header["cpu_s"], header["memory_peak_bytes"])
            self._ended.pop(header["id"]).set_result(end)
        answer = self._answers.get(header.get("id", -1))
        if answer is not None and not answer.done():
            answer.set_result(frame)
        else:
            _drop(frame)

    def _on_gone(self) -> None:
        if self.gone.is_set():
            return
        self.gone.set()
        self._loop.remove_reader(self._control)
        self._control.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(LauncherGoneError(self._why_gone))
        for ended in self._ended.values():
            ended.set_result(Exit(-9, 0.0, 0))


def _drop(frame: Frame) -> None:
    """Nobody waits for it any more; a held child ends when its socket is closed."""
    for fd in frame.fds:
        os.close(fd)
