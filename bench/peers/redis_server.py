"""A Redis server that appends every write to a file, for the peers that queue in one."""

from bench.peers.port import LOOPBACK, Peer, free_port

DURABLE = "yes, in Redis' append-only file, synced once a second (everysec, its default)"
VERSION = ("redis-server", "--version")


def start(peer: Peer) -> str:
    """Start one as a daemon of this peer; its URL."""
    port = free_port()
    options = ["--bind", LOOPBACK, "--port", str(port), "--dir", str(peer.folder), "--save", ""]
    options += ["--appendonly", "yes", "--appendfsync", "everysec"]
    peer.spawn("redis", ["redis-server", *options])
    peer.listens(port)
    return f"redis://{LOOPBACK}:{port}/0"
