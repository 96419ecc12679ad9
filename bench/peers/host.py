"""One peer behind a pipe, in the environment it is installed in: a request a line, JSON both ways.

python -m bench.peers.host MODULE FOLDER
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.peers.port import Peer

Verb = Callable[..., dict[str, Any]]


def main() -> None:
    """Serve until the pipe ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print as they like
    module, folder = sys.argv[1:]
    peer: Peer = import_module(f"bench.peers.{module}").PEER(Path(folder))
    verbs = _verbs(peer)
    try:
        for line in sys.stdin:
            asked = json.loads(line)
            try:
                reply = verbs[asked.pop("do")](**asked)
            except Exception as error:  # noqa: BLE001 - whatever a peer's library raises
                traceback.print_exc()
                reply = {"error": f"{type(error).__name__}: {error}"[:2000]}
            print(json.dumps(reply), file=replies, flush=True)
    finally:
        peer.stop()


def _verbs(peer: Peer) -> dict[str, Verb]:
    def about() -> dict[str, Any]:
        return {
            "configuration": peer.CONFIGURATION,
            "durable": peer.DURABLE,
            "versions": peer.versions(),
            "no_stop": peer.NO_STOP,
            "no_recovery": peer.NO_RECOVERY,
            "batches": type(peer).batched is not Peer.batched,
        }

    def start() -> dict[str, Any]:
        peer.start()
        return {}

    def run(what: str, count: int) -> dict[str, Any]:
        begun = time.perf_counter()
        getattr(peer, what)(count)
        return {"took_s": time.perf_counter() - begun}

    def trips(count: int, pause_s: float) -> dict[str, Any]:
        took = []
        for _ in range(count):
            time.sleep(pause_s)
            begun = time.perf_counter()
            peer.noop(1)
            took.append(time.perf_counter() - begun)
        return {"took_s": took}

    def processes() -> dict[str, Any]:
        return {"workers": peer.workers(), "servers": peer.servers()}

    def busy(path: str) -> dict[str, Any]:
        peer.busy(Path(path))
        return {}

    def stop_busy() -> dict[str, Any]:
        peer.stop_busy()
        return {}

    named = (about, start, run, trips, processes, busy, stop_busy)
    return {verb.__name__: verb for verb in named}


if __name__ == "__main__":
    main()
