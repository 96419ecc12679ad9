"""What one sandbox may get to: its job's places, and their public addresses."""

import contextlib
import socket
import time
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address
from typing import Final

from lender.protocol.reach import allows
from lender.sandbox.egress.addresses import Address, host_of, is_near, is_public
from lender.sandbox.plan import Network

ADDRESSES_MAX: Final = 4
"""Tried for one name."""

_BARRED_FOR_S = 60.0


class RefusedError(Exception):
    """It is not for this sandbox; says why."""


class UnknownError(Exception):
    """Nobody knows the name."""


Resolve = Callable[[str], list[Address]]
"""Looks a name up, which takes as long as it takes; raises OSError."""


def resolve(name: str) -> list[Address]:
    """Ask the machine's own resolver.

    Raises:
        OSError: it does not know.
    """
    # Bytes are sent as they are; text would be put through a codec that has to be imported.
    found = socket.getaddrinfo(name.encode(), None, type=socket.SOCK_STREAM)
    return [ip_address(str(place[0])) for *_, place in found]


class Policy:
    """Judges for one sandbox; `addresses` may be asked by several threads."""

    def __init__(
        self,
        network: Network,
        look_up: Resolve = resolve,
        is_ours: Callable[[Address], bool] | None = None,
    ) -> None:
        self._network = network
        self._look_up = look_up
        self._is_ours = is_ours or _is_ours
        self._barred: frozenset[Address] = frozenset()
        self._barred_until = 0.0

    def check(self, host: str, port: int) -> None:
        """Judge by the name alone: what is not asked for is not even looked up.

        Raises:
            RefusedError: it is not asked for, or not to be had.
        """
        if not allows(self._network.reach, host, port):
            raise RefusedError(f"the job did not ask for {host}:{port}")
        if host in self._network.barred:
            raise RefusedError(f"{host} is the lender's own")

    def addresses(self, host: str) -> list[Address]:
        """Return what stands for a host and may be dialled: exactly these, no name.

        Raises:
            RefusedError: it has no public address.
            UnknownError: it has none at all.
        """
        pinned = self._network.pinned.get(host)
        if pinned is not None:
            return [ip_address(pinned)]
        try:
            found = [ip_address(host)] if _is_address(host) else self._look_up(host)
        except OSError as error:
            raise UnknownError(f"{host} is not known") from error
        public = [one for one in dict.fromkeys(found) if self._may_reach(one)]
        if not public:
            raise RefusedError(f"{host} has no public address")
        return public[:ADDRESSES_MAX]

    def _may_reach(self, address: Address) -> bool:
        host = host_of(address)
        return is_public(host) and host not in self._servers() and not self._is_ours(host)

    def _servers(self) -> frozenset[Address]:
        """The addresses of what is barred: they may change, so they are looked up again."""
        now = time.monotonic()
        if now >= self._barred_until:
            found: list[Address] = []
            for host in self._network.barred:
                with contextlib.suppress(OSError):
                    found += [ip_address(host)] if _is_address(host) else self._look_up(host)
            self._barred, self._barred_until = frozenset(map(host_of, found)), now + _BARRED_FOR_S
        return self._barred


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()


def _is_ours(address: Address) -> bool:
    """Whether it is this machine's, or of its own network, by where we would come from (ip(7)).

    A datagram socket sends nothing by being connected.
    """
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return is_near(address, ip_address(probe.getsockname()[0]))
    except OSError:
        return False  # no way leads there
