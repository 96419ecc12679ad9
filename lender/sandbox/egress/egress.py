"""A sandbox's proxy as its supervisor has it: started beside it, opened once, ended with it.

It is a child of the supervisor, in the same process tree and cgroup: whatever freezes or kills the
sandbox does it to the proxy, too, lenderd dead or alive. It has no privileges, no files but those
that name servers are found by, no system calls that `seccomp` takes away, and never runs anything.
"""

import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import NoReturn

from lender.sandbox.egress import door
from lender.sandbox.egress.counters import Counters
from lender.sandbox.egress.policy import Policy
from lender.sandbox.egress.proxy import Proxy
from lender.sandbox.plan import Network
from lender.sandbox.walls import confine, landlock, seccomp

# What the C library looks names up by, wherever systems keep it.
_READ = tuple(
    map(Path, ("/etc", "/lib", "/lib64", "/usr", "/nix/store", "/run/systemd/resolve",
               "/run/resolvconf", "/run/NetworkManager"))
)  # fmt: skip
# It ends by itself or opens; lent work waits long for a processor where the owner needs it.
_OPENING_S = 60.0


class Egress:
    """One sandbox's proxy. Make it before the sandbox: the two come up side by side.

    Args:
        network: what it lets through.
        counters: told of it.

    Attributes:
        pid: of its process, a child to be waited for.

    Raises:
        OSError: no process, or no descriptor.
    """

    def __init__(self, network: Network, counters: Counters) -> None:
        parent = os.getpid()
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.enter_context(ours)
            with theirs:
                self.pid = os.fork()
                if self.pid == 0:
                    _be_proxy(theirs, network, counters, parent)
            undo.pop_all()
        self._control = ours
        self._control.settimeout(_OPENING_S)

    def open(self, init: int) -> None:
        """Have it listen inside, before anything of a stranger's runs there.

        Args:
            init: a process in the sandbox's network namespace.

        Raises:
            OSError: it can't; says why.
        """
        self._control.send(init.to_bytes(4, "big"))
        said = self._control.recv(200)
        if said != b"1":
            raise OSError(said.decode(errors="replace") or "its proxy ended")

    def kill(self) -> None:
        """End it; its process is the caller's to wait for."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def abandon(self) -> None:
        """End it where there is no sandbox for it."""
        self.kill()
        os.waitpid(self.pid, 0)
        self.close()

    def close(self) -> None:
        """Let go of it once it is dead."""
        self._control.close()


def _be_proxy(
    control: socket.socket, network: Network, counters: Counters, parent: int
) -> NoReturn:
    """The forked child. Never returns."""
    try:
        signal.set_wakeup_fd(-1)
        confine.default_signals()
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        confine.die_with_parent(parent, signal.SIGKILL)
        confine.keep_only((0, 1, 2, control.fileno(), counters.fileno()))
        inner, outer = socket.socketpair()
        opener = os.fork()
        if opener == 0:
            confine.die_with_parent(os.getppid(), signal.SIGKILL)
            init = control.recv(4)
            door.send(outer, int.from_bytes(init, "big")) if init else os._exit(0)
        outer.close()
        landlock.keep_to(_READ, (), tcp=True)
        if filter_ := seccomp.program(proxies=True):
            confine.filter_calls(filter_)
        try:
            listening = door.receive(inner)
            os.waitpid(opener, 0)
        except OSError as error:
            control.send(str(error).encode()[:200])
            os._exit(1)
        listening.setblocking(False)
        proxy = Proxy(listening, Policy(network), counters)
        control.send(b"1")
        control.close()
        inner.close()
        proxy.serve()
    finally:
        os._exit(1)
