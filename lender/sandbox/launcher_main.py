"""The launcher: a small process that forks every sandbox and takes them with it when it dies.

It starts with an empty environment, in its own session, with no descriptor but its socket. Being
single-threaded and small it forks fast and safely, which the daemon can't. Each child is held
before it does anything until the daemon has recorded it and says go.

Requests: `configure` {drop_to, preload}, `spawn` {id, runtime, cgroup}, `go` {id, abort_if_exists}.
Reports: `ready`, `spawned` {id, pid, start_time} with the sandbox's socket, `started`, `refused`
{id, path}, `failed` {id, error}, `exited` {id, status, cpu_s, memory_peak_bytes},
`broken` {error}.
"""

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from lender.sandbox import frames
from lender.sandbox.frames import Frame
from lender.sandbox.processes import autogroup, tree
from lender.sandbox.processes import cgroup as cgroups
from lender.sandbox.walls import confine

_RUNNERS = {
    "wasm": "lender.sandbox.runtimes.wasm",
    "process": "lender.sandbox.runtimes.process",
    "python": "lender.sandbox.runtimes.python",
    "oci": "lender.sandbox.runtimes.oci",
}
_GO = b"g"
_REQUEST_BODY_BYTES_MAX = 0
# A pause or a revoke on a busy machine raises our session's weight for a moment (autogroup): it
# is lowered once nothing has happened for so long, and not while the dead are being reaped.
_YIELD_AGAIN_S = 1.0


class _Child(NamedTuple):
    id: int
    root: tree.Root
    go: int
    cgroup: Path | None


class _Launcher:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._decoder = frames.Decoder(_REQUEST_BODY_BYTES_MAX)
        self._children: dict[int, _Child] = {}
        self._configured = False
        self._wake, wake = os.pipe()
        os.set_blocking(wake, False)
        # The handlers do nothing: the signal's number in the pipe ends the poll.
        signal.set_wakeup_fd(wake)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: None)

    def serve(self) -> None:
        """Until the daemon closes its end or dies; then nothing of ours is left."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        try:
            while True:
                ready = dict(poll.poll(_YIELD_AGAIN_S * 1000 if self._children else None))
                if not ready:
                    self._yield()
                if self._wake in ready:
                    if signal.SIGTERM in os.read(self._wake, 512):
                        return
                    self._reap()
                if self._control.fileno() in ready:
                    data, fds = frames.receive(self._control)
                    if not data:
                        return
                    for frame in self._decoder.feed(data, fds):
                        self._handle(frame.header)
        except Exception as error:
            # Nobody reads our standard error; say it where the daemon can log it.
            with contextlib.suppress(OSError):
                self._report("broken", error="".join(traceback.format_exception(error)))
            raise
        finally:
            self._kill_all()

    def _handle(self, request: dict[str, Any]) -> None:
        match request:
            case {"do": "configure", "id": number, "drop_to": drop_to, "preload": preload}:
                self._configure(number, drop_to, preload)
            case {"do": "spawn", "id": number, "runtime": runtime, "cgroup": cgroup}:
                self._spawn(number, _RUNNERS[runtime], cgroup)
            case {"do": "go", "id": number, "abort_if_exists": paths}:
                self._go(number, paths)

    def _configure(self, number: int, drop_to: list[int] | None, preload: list[str]) -> None:
        for runtime in preload:
            # One that is not installed here fails when it is asked for.
            with contextlib.suppress(ImportError):
                importlib.import_module(_RUNNERS[runtime]).preload()
        # Not before the imports: from here on a busy owner leaves this session very little.
        self._configured = True
        self._yield()
        if drop_to is not None:
            confine.become(*drop_to)
        confine.never_gain_privileges()
        confine.limit_core_dumps()
        confine.adopt_orphans()
        confine.die_with_parent(os.getppid(), signal.SIGTERM)
        # What is allocated by now stays shared with every fork.
        gc.collect()
        gc.freeze()
        self._report("ready", id=number)

    def _yield(self) -> None:
        if self._configured and not autogroup.yields():
            confine.yield_session_to_owner()

    def _spawn(self, number: int, runner: str, cgroup: str | None) -> None:
        self._yield()
        if 0 in os.getresuid():
            self._report("failed", id=number, error="a sandbox is never started as root")
            return
        try:
            module = importlib.import_module(runner)
            # Loaded here once, it costs the forks nothing.
            module.preload()
            ours, root, go = _fork_held(module.main)
        except (ImportError, OSError) as error:
            self._report("failed", id=number, error=str(error))
            return
        pid, leaf = root.pid, None if cgroup is None else Path(cgroup)
        self._children[pid] = _Child(number, root, go, leaf)
        with ours:
            if (fault := _join(leaf, pid)) is not None:
                os.kill(pid, signal.SIGKILL)
                self._report("failed", id=number, error=fault)
                return
            self._report(
                "spawned", (ours.fileno(),), id=number, **self._children[pid].root._asdict()
            )

    def _go(self, number: int, abort_if_exists: list[str]) -> None:
        child = next((c for c in self._children.values() if c.id == number), None)
        if child is None:
            return  # it died while it was held; `exited` says so
        for path in abort_if_exists:
            if os.path.lexists(path):
                os.kill(child.root.pid, signal.SIGKILL)
                self._report("refused", id=number, path=path)
                return
        with contextlib.suppress(BrokenPipeError):
            os.write(child.go, _GO)
        self._report("started", id=number)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None:
                os.close(child.go)
                self._kill_orphans(child)
                self._report(
                    "exited",
                    id=child.id,
                    status=os.waitstatus_to_exitcode(status),
                    cpu_s=usage.ru_utime + usage.ru_stime,
                    memory_peak_bytes=usage.ru_maxrss * 1024,
                )

    def _kill_orphans(self, dead: _Child) -> None:
        """What a dead sandbox left behind has become our child."""
        # A sweep over hundreds that die already would only hold up their end.
        if dead.cgroup is not None and cgroups.order(dead.cgroup, "cgroup.kill", "1"):
            return
        ours = {child.root for child in self._children.values()}
        tree.kill(tree.children(os.getpid()) - ours)

    def _kill_all(self) -> None:
        tree.kill(tree.children(os.getpid()))

    def _report(self, event: str, fds: tuple[int, ...] = (), **fields: object) -> None:
        frames.send(self._control, Frame({"event": event, **fields}, fds=fds))


def _fork_held(main: Any) -> tuple[socket.socket, tree.Root, int]:  # noqa: ANN401 - a module's function
    """Fork a child that waits; our end of its socket, who it is, and where to say go.

    Raises:
        OSError: there is no room for it; nothing is left of it then.
    """
    parent = os.getpid()
    with contextlib.ExitStack() as undo, contextlib.ExitStack() as theirs:
        held, go = os.pipe()
        theirs.callback(os.close, held)
        undo.callback(os.close, go)
        ours, channel = socket.socketpair()
        theirs.enter_context(channel)
        undo.enter_context(ours)
        pid = os.fork()
        if pid == 0:
            _be_held(main, channel.detach(), held, parent)
        # Without its word it ends by itself, should we not even find out who it is.
        root = tree.identify(pid)
        undo.pop_all()
    return ours, root, go


def _join(leaf: Path | None, pid: int) -> str | None:
    """Put a held child into its cgroup, where all that it forks stays; return what failed."""
    if leaf is None:
        return None
    try:
        (leaf / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        return f"can't join its cgroup: {error}"
    return None


def _be_held(main: Any, channel: int, held: int, parent: int) -> NoReturn:  # noqa: ANN401 - a module's function
    """The child: wait for the daemon's word, then be the sandbox. Never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)
        confine.die_with_parent(parent, signal.SIGKILL)
        confine.keep_only((0, 1, 2, channel, held))
        if _is_let_go(held, channel):
            os.close(held)
            with socket.socket(fileno=channel) as sock:
                main(sock)
            status = 0
    finally:
        os._exit(status)


def _is_let_go(held: int, channel: int) -> bool:
    """Wait for the daemon's word; False once nobody has the other end of one of them any more."""
    poll = select.poll()
    poll.register(held, select.POLLIN)
    poll.register(channel, 0)  # a hang-up is told unasked
    return held in dict(poll.poll()) and os.read(held, 1) == _GO


def main() -> None:
    """Serve the daemon on the descriptor that its command line names."""
    fd = int(sys.argv[1])
    confine.keep_only((0, 1, 2, fd))
    _Launcher(socket.socket(fileno=fd)).serve()


if __name__ == "__main__":
    main()
