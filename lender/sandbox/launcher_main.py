"""The launcher: a small process that forks every sandbox and takes them with it when it dies.

It starts with an empty environment, in its own session, with no descriptor but its socket. Being
single-threaded and small it forks fast and safely, which the daemon can't. Each child is held
before it does anything until the daemon has recorded it: what it waits for is its plan.

A spare is one such child that is nobody's yet, forked once the last one is on its way, so that no
launch waits for a fork, nor for its way into a cgroup where the daemon has named that ahead. It
knows of no job, has no descriptor but its socket, and ends with us.

Requests: `configure` {drop_to, preload, spare, enclosed}, `spawn` {id, runtime, cgroup}, `ahead`
{cgroup, walls}: the last one has done its first task, now is the time for the next spare. Once it
stands where it is to stand it is told `walls` {place, memory_bytes, kept_s} or nothing, see
`walls_ahead`.
Reports: `ready`, `spawned` {id, pid, start_time} with the sandbox's socket, `failed` {id, error},
`exited` {id, status, cpu_s, memory_peak_bytes}, `broken` {error}.
"""

import contextlib
import functools
import gc
import importlib
import math
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from lender.sandbox import frames
from lender.sandbox.frames import Frame
from lender.sandbox.meters.peak import peak_bytes
from lender.sandbox.plan import Runtime, SandboxPlan
from lender.sandbox.processes import autogroup, tree
from lender.sandbox.processes import cgroup as cgroups
from lender.sandbox.processes.account import Account
from lender.sandbox.runtimes import choice, runner
from lender.sandbox.runtimes.runner import Reporter, Runner
from lender.sandbox.walls import confine

if TYPE_CHECKING:
    from lender.sandbox.runtimes.walls_ahead import WallsAhead

_REQUEST_BODY_BYTES_MAX = 0
# A pause or a revoke on a busy machine raises our session's weight for a moment (autogroup): it
# is lowered once nothing has happened for so long, and not while the dead are being reaped.
_YIELD_AGAIN_S = 1.0
# A launch, and mostly its first task, has the processors for itself.
_SPARE_AFTER_S = 0.05
_WALLS_AFTER_S = 0.01
_LOOKS_MAX = 10


class _Held(NamedTuple):
    """A process that waits for its plan on the other end of our socket, in a cgroup or in ours.

    A spare waits for a word of ours before: `told`, whether it has `walls` since.
    """

    root: tree.Root
    channel: socket.socket
    cgroup: Path | None = None
    told: bool = True
    has_walls: bool = False

    def tell(self, walls: dict[str, Any] | None) -> "_Held":
        """The same, once told."""
        if not self.told:
            frames.send(self.channel, Frame({"walls": walls}))
        return self._replace(told=True, has_walls=self.has_walls or walls is not None)


class _Child(NamedTuple):
    id: int
    root: tree.Root
    cgroup: Path | None


class _Launcher:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._decoder = frames.Decoder(_REQUEST_BODY_BYTES_MAX)
        self._children: dict[int, _Child] = {}
        self._spare: _Held | None = None
        self._leaf_ahead: Path | None = None
        self._walls_ahead: dict[str, Any] | None = None
        self._keeps_spare = False
        self._spare_at = math.inf
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
                ready = dict(poll.poll(self._pause_ms()))
                if not ready:
                    self._while_idle()
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
                self._configure(number, drop_to, preload, enclosed=request["enclosed"])
                self._keeps_spare = request["spare"]
            case {"do": "spawn", "id": number, "runtime": runtime, "cgroup": cgroup}:
                self._spawn(number, runtime, cgroup)
            case {"do": "ahead", "cgroup": cgroup, "walls": walls}:
                self._leaf_ahead = None if cgroup is None else Path(cgroup)
                self._walls_ahead = walls
                if self._keeps_spare:
                    self._spare_at = time.monotonic()

    def _configure(
        self, number: int, drop_to: list[int] | None, preload: list[Runtime], *, enclosed: bool
    ) -> None:
        for runtime in preload:
            # One that is not installed here fails when it is asked for.
            with contextlib.suppress(ImportError, OSError):
                _module(runtime).preload()
        # Not before the imports: from here on a busy owner leaves this session very little.
        self._configured = True
        self._yield()
        if drop_to is not None:
            confine.become(*drop_to)
        if enclosed:
            both = tree.identify(os.getppid()), tree.identify(os.getpid())
            tree.enclose(Account(os.getuid(), both))
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

    def _spawn(self, number: int, runtime: Runtime, cgroup: str | None) -> None:
        self._yield()
        if confine.holds_root():
            self._report("failed", id=number, error="a sandbox is never started as root")
            return
        leaf = None if cgroup is None else Path(cgroup)
        try:
            held = self._hold(runtime, leaf)
        except (ImportError, OSError) as error:
            self._report("failed", id=number, error=str(error))
            return
        pid = held.root.pid
        self._children[pid] = _Child(number, held.root, leaf)
        with held.channel as ours:
            if held.cgroup != leaf and (fault := _join(leaf, pid)) is not None:
                os.kill(pid, signal.SIGKILL)
                self._report("failed", id=number, error=fault)
                return
            self._report("spawned", (ours.fileno(),), id=number, **held.root._asdict())
        self._leaf_ahead = self._walls_ahead = None
        if self._keeps_spare:
            self._spare_at = time.monotonic() + _SPARE_AFTER_S

    def _pause_ms(self) -> float | None:
        """How long to wait for a word."""
        if self._spare_at < math.inf:
            return max(0.0, self._spare_at - time.monotonic()) * 1000
        return _YIELD_AGAIN_S * 1000 if self._children else None

    def _while_idle(self) -> None:
        if self._spare_at == math.inf:
            self._yield()
            return
        self._spare_at = math.inf
        # Where there is no room for one, the next launch says so.
        with contextlib.suppress(OSError):
            spare = self._spare = self._spare or _fork_held(ahead=True)
            leaf = self._leaf_ahead
            if spare.cgroup is None and _join(leaf, spare.root.pid) is None:
                spare = self._spare = spare._replace(cgroup=leaf)
            # What it starts stays where it stands by now.
            if self._walls_ahead is not None and spare.cgroup == leaf:
                self._spare = spare.tell(self._walls_ahead)

    def _hold(self, runtime: Runtime, leaf: Path | None) -> _Held:
        """A held process that has all loaded that it needs.

        Raises:
            ImportError: the runtime is not installed, or not to be had on this system.
            OSError: there is no room for it.
        """
        is_known = choice.MODULES.get(runtime) in sys.modules
        # Loaded here once, it costs the forks nothing.
        _module(runtime).preload()
        spare, self._spare = self._spare, None
        # One that has walls can't be moved any more.
        if spare is not None and is_known and (spare.cgroup == leaf or not spare.has_walls):
            with contextlib.suppress(OSError):
                return spare.tell(None)
        if spare is not None:
            spare.channel.close()
        return _fork_held()

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._spare is not None and pid == self._spare.root.pid:
                self._spare.channel.close()
                spare, self._spare = self._spare, None
                self._kill_orphans(_Child(0, spare.root, spare.cgroup))
            child = self._children.pop(pid, None)
            if child is not None:
                self._kill_orphans(child)
                self._report(
                    "exited",
                    id=child.id,
                    status=os.waitstatus_to_exitcode(status),
                    cpu_s=usage.ru_utime + usage.ru_stime,
                    memory_peak_bytes=peak_bytes(usage),
                )

    def _kill_orphans(self, dead: _Child) -> None:
        """What a dead sandbox left behind has become our child."""
        # A sweep over hundreds that die already would only hold up their end.
        if dead.cgroup is not None and cgroups.order(dead.cgroup, "cgroup.kill", "1"):
            return
        ours = {child.root for child in self._children.values()}
        if self._spare is not None:
            ours.add(self._spare.root)
        tree.kill(tree.children(os.getpid()) - ours)

    def _kill_all(self) -> None:
        # Who lost its parent just then has become our child.
        for _ in range(_LOOKS_MAX):
            if not (left := set(filter(tree.alive, tree.children(os.getpid())))):
                return
            tree.kill(left)

    def _report(self, event: str, fds: tuple[int, ...] = (), **fields: object) -> None:
        frames.send(self._control, Frame({"event": event, **fields}, fds=fds))


def _fork_held(*, ahead: bool = False) -> _Held:
    """Fork a child that waits.

    Args:
        ahead: nobody waits for it yet.

    Raises:
        OSError: there is no room for it; nothing is left of it then.
    """
    parent = os.getpid()
    with contextlib.ExitStack() as undo:
        ours, theirs = frames.pair()
        undo.enter_context(ours)
        with theirs:
            pid = os.fork()
            if pid == 0:
                _be_held(theirs.detach(), parent, ahead=ahead)
        # Without its plan it ends by itself, should we not even find out who it is.
        root = tree.identify(pid)
        undo.pop_all()
    return _Held(root, ours, told=not ahead)


def _join(leaf: Path | None, pid: int) -> str | None:
    """Put a held child into its cgroup, where all that it forks stays; return what failed."""
    if leaf is None:
        return None
    try:
        (leaf / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        return f"can't join its cgroup: {error}"
    return None


def _be_held(channel: int, parent: int, *, ahead: bool) -> NoReturn:
    """The child: wait for the daemon's word, then be the sandbox. Never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)
        confine.die_with_parent(parent, signal.SIGKILL)
        confine.keep_only((0, 1, 2, channel))
        confine.go_first()
        with socket.socket(fileno=channel) as sock:
            start = _get_ready(sock) if ahead else _start
            # Nothing comes once nobody has the other end any more.
            if sock.recv(1, socket.MSG_PEEK):
                runner.serve(sock, start)
                status = 0
    finally:
        os._exit(status)


def _get_ready(sock: socket.socket) -> Callable[[SandboxPlan, Reporter], Runner]:
    """Do what can be done before there is a plan; what it is to be started by then."""
    _rehearse()
    word = frames.receive_one(sock)
    wanted = None if word is None else word.header["walls"]
    makes = getattr(sys.modules.get(choice.MODULES["process"]), "stand_ahead", None)
    # Who comes at once has more use for the processors than for walls half made.
    if wanted is None or makes is None or select.select([sock], [], [], _WALLS_AFTER_S)[0]:
        return _start
    walls = makes(Path(wanted["place"]), wanted["memory_bytes"])
    if walls is None:
        return _start
    if not select.select([sock], [], [], wanted["kept_s"])[0] or not sock.recv(1, socket.MSG_PEEK):
        walls.let_go()
        return _start
    return functools.partial(_start, walls=walls)


def _rehearse() -> None:
    """See `rehearsal`, for the runtimes that have one and are loaded."""
    for name in choice.MODULES.values():
        rehearse = getattr(sys.modules.get(name), "rehearse", None)
        if rehearse is not None:
            rehearse()


def _start(plan: SandboxPlan, reporter: Reporter, walls: "WallsAhead | None" = None) -> Runner:
    """Become the runtime that the plan asks for; see `runner.serve`."""
    module = _module(plan.runtime)
    if walls is not None and plan.runtime != "process":
        walls.let_go()
        walls = None
    runtime: Runner = (
        module.start(plan, reporter) if walls is None else module.start(plan, reporter, walls)
    )
    return runtime


def _module(runtime: Runtime) -> ModuleType:
    """The module of a runtime.

    Raises:
        ImportError: what it needs is not installed, or there is none on this system.
    """
    name = choice.MODULES.get(runtime)
    if name is None:
        raise ImportError(f"{runtime} is not to be had on this system")
    return importlib.import_module(name)


def main() -> None:
    """Serve the daemon on the descriptor that its command line names."""
    fd = int(sys.argv[1])
    confine.keep_only((0, 1, 2, fd))
    _Launcher(socket.socket(fileno=fd)).serve()


if __name__ == "__main__":
    main()
