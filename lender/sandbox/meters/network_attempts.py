"""How often the processes of a sandbox tried to reach a network that it does not have.

A process sandbox has a network namespace of its own with nothing but a loopback, and the kernel
counts what fails in it (/proc/<pid>/net/snmp and snmp6, proc(5)). An open descriptor keeps the
counters readable after the last process has died. Measured on Linux 6.18: each connect or send to
an address elsewhere counts once as OutNoRoutes, TCP and UDP, IPv4, IPv6, multicast and link-local,
blocking or not. Who asks for a service on the machine itself, such as a name server, meets the
sandbox's empty loopback: AttemptFails for TCP, NoPorts for UDP; talk within the sandbox counts
nothing. Raw, packet and ICMP sockets can't even be made in there and are not counted.
"""

import contextlib
import os
from pathlib import Path

_READ_BYTES_MAX = 1 << 16
_FILES = ("snmp", "snmp6")
_COUNTED = frozenset(
    {
        ("Ip", "OutNoRoutes"),
        ("Tcp", "AttemptFails"),  # of IPv4 and IPv6
        ("Udp", "NoPorts"),
        ("Ip6", "OutNoRoutes"),
        ("Udp6", "NoPorts"),
    }
)
_COUNTED_NAMES = frozenset(protocol + name for protocol, name in _COUNTED)


class NetworkCounters:
    """The counters of the network namespace that a process is in; `close` it.

    Args:
        pid: to be asked while it lives and before it runs a byte of a stranger's.
    """

    def __init__(self, pid: int) -> None:
        self._handles: list[int] = []
        if _same_namespace(pid):
            return
        for name in _FILES:
            # Without IPv6 there is no snmp6: then there is nothing to count either.
            with contextlib.suppress(OSError):
                path = f"/proc/{pid}/net/{name}"
                self._handles.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def attempts_blocked(self) -> int | None:
        """Tries so far; None where the kernel does not tell."""
        if not self._handles:
            return None
        try:
            texts = [os.pread(one, _READ_BYTES_MAX, 0).decode() for one in self._handles]
        except OSError:
            return None
        return sum(map(count, texts))

    def close(self) -> None:
        """Let the namespace go."""
        for handle in self._handles:
            os.close(handle)
        self._handles = []


def count(text: str) -> int:
    """Add up what counts in a file's text.

    snmp has pairs of lines, `Ip: InReceives OutNoRoutes` and `Ip: 5 2`; snmp6 has a line for each
    counter, `Ip6OutNoRoutes 2`.
    """
    total = 0
    names: list[str] = []
    for line in text.splitlines():
        first, *rest = line.split()
        if first.endswith(":"):
            if names and names[0] == first:
                pairs = zip(names[1:], rest, strict=False)
                total += sum(int(n) for name, n in pairs if (first[:-1], name) in _COUNTED)
                names = []
            else:
                names = [first, *rest]
        elif first in _COUNTED_NAMES:
            total += int(rest[0])
    return total


def _same_namespace(pid: int) -> bool:
    """Whether it is (still) in our own: those counters are the owner's."""
    try:
        return Path(f"/proc/{pid}/ns/net").samefile("/proc/self/ns/net")
    except OSError:
        return True
