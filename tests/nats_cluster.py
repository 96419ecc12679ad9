"""Real nats-servers on the loopback that keep their streams together, as one JetStream cluster."""

import asyncio
import os
import random
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lender.link.api import JetStream
from lender.link.connection import connect
from lender.link.embedded import EmbeddedServer
from lender.link.errors import LinkError

SIZE = 3
START_S = 30.0
WHOLE_S = 60.0
_LOOK_AGAIN_S = 0.1
_ANSWER_S = 3.0
_PROBE = {"name": "PROBE", "subjects": ["probe"], "storage": "memory", "num_replicas": SIZE}


class NatsCluster:
    """`nodes` by their names: each is killed by `kill`, and comes back by `await start_node`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        ports = free_ports(2 * SIZE)
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports[:SIZE])
        self.nodes: dict[str, EmbeddedServer] = {}
        for number, (route, port) in enumerate(zip(ports[:SIZE], ports[SIZE:], strict=True), 1):
            name = f"node-{number}"
            # Clients are not told of the other nodes: they know those that they were given.
            extra = (
                f'cluster {{ name: lender, listen: "127.0.0.1:{route}", no_advertise: true, '
                f"routes: [{routes}] }}"
            )
            self.nodes[name] = EmbeddedServer(
                folder / name, port=port, name=name, extra_config=extra
            )

    @property
    def url(self) -> str:
        """Every node's address, separated by commas."""
        return ",".join(node.url for node in self.nodes.values())

    @property
    def ports(self) -> list[int]:
        """Where clients of each node connect to."""
        return [node.port for node in self.nodes.values() if node.port is not None]

    async def start(self) -> None:
        """Start every node, and return once they take replicated streams."""
        await asyncio.gather(*(node.start() for node in self.nodes.values()))
        async with asyncio.timeout(START_S):
            while not await self._takes_streams():  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(_LOOK_AGAIN_S)

    async def start_node(self, name: str) -> None:
        await self.nodes[name].start()

    def kill(self, name: str) -> None:
        """End a node as a power cut would."""
        self.nodes[name].kill()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Have a node stand still (SIGSTOP) or go on (SIGCONT)."""
        pid = self.nodes[name].pid
        if pid is not None:
            os.kill(pid, number)

    def close(self) -> None:
        for node in self.nodes.values():
            node.kill()

    async def leader_of(self, stream: str) -> str:
        """The node that answers for a stream now."""
        async with await connect(self.url, name="cluster", timeout_s=START_S) as connection:
            info = await JetStream(connection, _ANSWER_S).call(f"STREAM.INFO.{stream}")
        return str(info["cluster"]["leader"])

    async def until_whole(self, within_s: float = WHOLE_S) -> None:
        """Wait until every stream has a leader, and each of its replicas all that it holds."""
        async with (
            asyncio.timeout(within_s),
            await connect(self.url, name="cluster", timeout_s=within_s) as connection,
        ):
            jetstream = JetStream(connection, _ANSWER_S)
            while not await _is_whole(jetstream):  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(_LOOK_AGAIN_S)

    async def _takes_streams(self) -> bool:
        """Only a cluster whose members have all found each other keeps a stream on each."""
        try:
            async with await connect(self.url, name="cluster", timeout_s=START_S) as connection:
                jetstream = JetStream(connection, _ANSWER_S)
                await jetstream.ensure_stream(_PROBE)
                await jetstream.call("STREAM.DELETE.PROBE")
        except LinkError:
            return False
        return True


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[NatsCluster]:
    """Three nodes with empty stores."""
    nodes = NatsCluster(tmp_path / "cluster")
    try:
        await nodes.start()
        yield nodes
    finally:
        nodes.close()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback on which nobody listens.

    None that the kernel gives to outgoing connections (ip(7), ip_local_port_range): such a one
    may be taken when a killed server comes back to it.
    """
    chance = random.SystemRandom()
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            sock = stack.enter_context(socket.socket())
            port = chance.randrange(12_000, 30_000)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
    return ports


async def _is_whole(jetstream: JetStream) -> bool:
    try:
        names = (await jetstream.call("STREAM.NAMES")).get("streams") or []
        streams = [await jetstream.call(f"STREAM.INFO.{name}") for name in names]
    except LinkError:
        return False
    return all(_has_all(stream["cluster"]) for stream in streams)


def _has_all(group: dict[str, Any]) -> bool:
    replicas = group.get("replicas") or []
    return bool(group.get("leader")) and all(
        one["current"] and not one.get("offline") and not one.get("lag") for one in replicas
    )
