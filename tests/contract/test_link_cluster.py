"""Reading from a node of a cluster that has just come back, and does not hold everything yet."""

import asyncio
import os
from contextlib import AsyncExitStack

from nats_cluster import NatsCluster, cluster

from lender.link.api import JetStream
from lender.link.blobs import Blobs
from lender.link.connection import Connection, connect
from lender.link.errors import LinkError
from lender.link.reader import StreamReader
from lender.protocol.bounds import PIECE_BYTES
from lender.protocol.streams import bucket_config

__all__ = ["cluster"]  # fixtures

STREAM = {"name": "S", "subjects": ["s"], "num_replicas": 3, "allow_direct": True}
ROUNDS = 3
READERS = 5
MESSAGES = 30


async def fill(connection: Connection) -> None:
    """Store messages, also while the cluster takes note of a node that is gone."""
    stored = 0
    while stored < MESSAGES:
        try:
            await connection.request("s", b"x")
        except LinkError:
            await asyncio.sleep(0.1)
        else:
            stored += 1


async def read_to_the_end(connection: Connection) -> int:
    """The last sequence that was read when the reader said that it had caught up."""
    last = 0
    async with StreamReader(connection, "S", [], heartbeat_s=0.5) as reader:
        async for batch in reader:
            if batch.messages:
                last = batch.messages[-1].sequence
            if batch.caught_up:
                break
    return last


async def test_a_reader_reads_on_where_its_node_is_behind(cluster: NatsCluster) -> None:
    async with await connect(cluster.url, name="t", timeout_s=10) as connection:
        jetstream = JetStream(connection)
        await jetstream.ensure_stream(STREAM)
        for _ in range(ROUNDS):
            leader = await cluster.leader_of("S")
            node = next(name for name in cluster.nodes if name != leader)
            cluster.kill(node)
            await fill(connection)
            end = (await jetstream.stream_state("S")).last_sequence
            await cluster.start_node(node)
            url = cluster.nodes[node].url
            async with await connect(url, name="t", timeout_s=10) as behind, asyncio.timeout(30):
                for _ in range(READERS):
                    assert await read_to_the_end(behind) >= end


async def test_what_was_just_stored_is_found_wherever_one_asks(cluster: NatsCluster) -> None:
    """A lender that misses an input rejects the job for good."""
    alice = "U" + "A" * 55
    async with AsyncExitStack() as stack:
        lines = [
            await stack.enter_async_context(await connect(node.url, name="t", timeout_s=10))
            for node in cluster.nodes.values()
        ]
        await JetStream(lines[0], 10).ensure_stream(bucket_config(alice, replicas=3))
        writer, *readers = (Blobs(line, alice) for line in (lines[0], *lines))
        for _ in range(60):
            content = os.urandom(3 * PIECE_BYTES - 1)
            ref = await writer.put_bytes(alice, content)
            for reader in readers:
                assert await reader.get_bytes(alice, ref) == content
