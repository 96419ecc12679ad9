"""A sandbox with a network gets by its proxy to what its job asked for, and to nothing else."""

import contextlib
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from attacks import PYTHON
from sandboxes import USER, Workshop, needs_bubblewrap, open_folder, workshop

from lender.sandbox.egress.counters import UNBOUNDED, Counters
from lender.sandbox.plan import Network, SandboxPlan

__all__ = ["open_folder", "workshop"]  # fixtures
pytestmark = [
    needs_bubblewrap,
    pytest.mark.skipif(PYTHON is None, reason="no python3 in /usr/bin"),
]

CONTENT = b"content of the server\n" * 500


class Handler(BaseHTTPRequestHandler):
    """Answers with CONTENT; a POST with what came; /slow never."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))  # type: ignore[attr-defined]  # ours
        if self.path == "/slow":
            self.server.holds.wait(30)  # type: ignore[attr-defined]  # ours
        self._send(CONTENT)

    def do_POST(self) -> None:
        self._send(self.rfile.read(int(self.headers["Content-Length"])))

    def _send(self, content: bytes) -> None:
        with contextlib.suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """On a loopback address, of which a test says that it is public."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.holds = threading.Event()

    @property
    def place(self) -> str:
        """How a job asks for it."""
        return f"files.example.org:{self.server_port}"

    def network(self, *more: str) -> Network:
        """A sandbox's that may get to it."""
        return Network((self.place, *more), pinned={"files.example.org": "127.0.0.1"})


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=partial(made.serve_forever, 0.05))
        thread.start()
        yield made
        made.holds.set()
        made.shutdown()
        thread.join()


def plan(workshop: Workshop, network: Network | None, code: str, *arguments: str) -> SandboxPlan:
    made = workshop.plan("process", "")
    argv = ("python3", "-I", "-c", code, *arguments)
    return made._replace(argv=argv, network=network)


FETCH = """
import sys, urllib.request
body = sys.argv[2].encode() if len(sys.argv) > 2 else None
sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1], body, timeout=20).read())
"""


async def test_what_the_job_asked_for_is_fetched_and_counted(
    workshop: Workshop, server: Server
) -> None:
    path = workshop.scratch.parent / "moved"
    counters = Counters.make(path)
    counters.allow(UNBOUNDED)
    if USER is not None:
        os.chown(path, *USER)
    network = server.network()._replace(counters=path)
    sandbox = workshop.sandbox(plan(workshop, network, FETCH, f"http://{server.place}/a?b"))
    await sandbox.prepare()
    for task in range(2):
        outcome = await sandbox.run(task)
        assert outcome.value == CONTENT, outcome.stderr_tail
        assert outcome.network_attempts_blocked == 0
        assert (
            len(CONTENT) * (task + 1) < counters.read().in_bytes < (len(CONTENT) + 500) * (task + 1)
        )
    assert 0 < counters.read().out_bytes < 1000
    counters.close()
    (path, headers), _ = server.seen
    assert path == "/a?b"
    assert headers["Host"] == server.place
    assert headers["Connection"] == "close"


async def test_without_one_there_is_no_proxy(workshop: Workshop) -> None:
    code = """
import os
print([name for name in os.environ if "PROXY" in name.upper()])
print(open("/proc/net/tcp").read().count(":"))
"""
    sandbox = workshop.sandbox(plan(workshop, None, code))
    await sandbox.prepare()
    names, sockets = (await sandbox.run(0)).value.decode().splitlines()
    assert names == "[]"
    assert sockets == "0"


@pytest.mark.skipif(not Path("/etc/ssl/certs").is_dir(), reason="no certificates on this machine")
async def test_who_has_one_sees_whom_to_trust_and_nobody_else_does(workshop: Workshop) -> None:
    code = """
import os
for place in ("/etc/ssl", "/etc/ssl/certs"):
    print(sorted(os.listdir(place)) if os.path.exists(place) else "none")
"""
    shown = f"['certs']\n{sorted(os.listdir('/etc/ssl/certs'))}\n"  # noqa: PTH208 - the names alone
    for network, seen in ((Network(("internet",)), shown), (None, "none\nnone\n")):
        sandbox = workshop.sandbox(plan(workshop, network, code))
        await sandbox.prepare()
        assert (await sandbox.run(0)).value.decode() == seen
