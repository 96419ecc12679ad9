"""Attacks by a network that was given: past its proxy, through it, and on when it is over."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from arena import Arena, in_one_loop
from attacks import tried_in
from sandboxes import until

from lender.sandbox.plan import PROXY_PORT, Network, Runtime, SandboxPlan
from lender.sandbox.port import SandboxGoneError
from lender.sandbox.processes import stopping, tree
from lender.sandbox.processes.stopping import Standing

pytestmark = in_one_loop

ASK = f"""
PROXY = ("127.0.0.1", {PROXY_PORT})

def asked(words, *fields):
    made = socket.create_connection(PROXY, 20)
    made.sendall("\\r\\n".join([words + " HTTP/1.1", *fields, "", ""]).encode())
    answer = made.recv(200)
    # Whatever else it says (502), it has tried.
    if answer.split()[1:2] in ([b"400"], [b"403"]):
        raise OSError(0, "")
    return made
"""
FLOW = """
made = asked("CONNECT " + T["place"])
while True:
    made.sendall(b"x" * 1000)
    time.sleep(0.005)
"""


class Listener:
    """A server on the loopback, of which a test says that it may be reached."""

    def __init__(self) -> None:
        self.came = self.left = self.heard_bytes = 0
        self.port = 0

    @property
    def network(self) -> Network:
        places = ("internet", f"files.example.org:{self.port}")
        return Network(places, pinned={"files.example.org": "127.0.0.1"})

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        with contextlib.suppress(OSError):
            while piece := await reader.read(1 << 16):
                self.heard_bytes += len(piece)
        self.left += 1
        writer.close()


@pytest_asyncio.fixture(loop_scope="module")
async def listener() -> AsyncIterator[Listener]:
    made = Listener()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


def given(arena: Arena, runtime: Runtime, code: str, listener: Listener) -> SandboxPlan:
    targets = f"T['place'] = 'files.example.org:{listener.port}'\n"
    return arena.plan(runtime, targets + ASK + code)._replace(network=listener.network)


@tried_in("process", "python")
async def test_neither_the_machine_nor_its_network_is_reached_by_the_proxy(
    arena: Arena, runtime: Runtime, listener: Listener
) -> None:
    """In every form of an address, by names, by fields that contradict the target, by any port."""
    code = """
services = {one[2][1] for one in T["places"].values()
            if isinstance(one, list) and isinstance(one[2], list)}
LOCAL = ("127.0.0.1", "127.1", "2130706433", "0x7f.0.0.1", "0x7f000001", "0177.0.0.1", "127.0.0.1.",
         "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]",
         "[2002:7f00:1::]", "0.0.0.0", "0", "[::]", "localhost", "localhost.", "LOCALHOST",
         "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.169.254", "168.63.129.16",
         "[fe80::1]", "[fd00:ec2::254]", "[ff02::1]", "224.0.0.1", "255.255.255.255")
for host in LOCAL:
    for port in (80, 443, *services):
        attempt(f"{host}:{port}", asked, f"CONNECT {host}:{port}")
    attempt(f"http {host}", asked, f"GET http://{host}/", f"Host: {T['place']}")
attempt("a name within", asked, f"CONNECT {T['place']}@127.0.0.1:80")
attempt("another port", asked, "CONNECT files.example.org:22")
first = f"GET http://127.0.0.1/ HTTP/1.1\\r\\nHost: {T['place']}\\r\\n\\r\\n"
attempt("two targets", asked, f"{first}GET http://{T['place']}/")
def send(family, kind, address):
    with socket.socket(family, kind) as made:
        made.settimeout(1)
        made.connect(address)
        made.send(b"x")
for address in ("192.0.2.1", "10.0.0.1"):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        attempt(f"{address} {kind}", send, socket.AF_INET, kind, (address, 53))
attempt("a name", socket.getaddrinfo, "example.com", 80)
attempt("bind", socket.create_server, PROXY)
"""
    plan = given(arena, runtime, code, listener)
    tried = arena.read(runtime, await arena.run(await arena.prepared(plan)))
    assert tried.failed, tried.got
    assert tried.outcome.network_attempts_blocked
    assert arena.owner.visitors() == []
    assert listener.came == 0
    open_ = given(arena, runtime, "attempt('it', asked, 'CONNECT ' + T['place'])", listener)
    assert [*arena.read(runtime, await arena.run(await arena.prepared(open_))).got] == ["it"]


async def test_anothers_proxy_is_out_of_reach(arena: Arena, listener: Listener) -> None:
    """It listens on the loopback of its own sandbox alone, and by no name that others see."""
    first = await arena.prepared(given(arena, "process", FLOW, listener))
    running = asyncio.create_task(first.run(0))
    await until(lambda: listener.heard_bytes > 0, "the first one's flows")
    code = """
attempt("its port", asked, "CONNECT " + T["place"])
report("sockets", [line for line in read("/proc/net/unix").splitlines() if b"@" in line])
report("tcp", read("/proc/net/tcp").splitlines()[1:])
"""
    second = given(arena, "process", code, listener)._replace(network=None)
    tried = arena.read("process", await arena.run(await arena.prepared(second)))
    assert tried.failed, tried.got
    own = given(arena, "process", 'attempt("it", asked, "CONNECT " + T["place"])', listener)
    other = Network(("internet",), pinned=listener.network.pinned)
    tried = arena.read(
        "process", await arena.run(await arena.prepared(own._replace(network=other)))
    )
    assert tried.failed, "its own proxy goes by its own job"
    assert listener.came == 1
    await first.close()
    await asyncio.gather(running, return_exceptions=True)


@tried_in("process", "python")
async def test_nothing_flows_while_it_stands_still_and_nothing_after_its_end(
    arena: Arena, runtime: Runtime, listener: Listener
) -> None:
    sandbox = await arena.prepared(given(arena, runtime, FLOW, listener))
    running = asyncio.create_task(sandbox.run(0))
    await until(lambda: listener.heard_bytes > 0, "it flows")
    standing = (Standing(sandbox.root_pids, sandbox.cgroup),)
    assert stopping.freeze(standing).verified
    heard_bytes = -1
    while heard_bytes != listener.heard_bytes:  # what is in the sockets is on its way still
        heard_bytes = listener.heard_bytes
        await asyncio.sleep(0.3)
    stopping.thaw(standing)
    await until(lambda: listener.heard_bytes > heard_bytes, "it goes on")
    assert stopping.kill(standing).verified
    await until(lambda: listener.left == 1, "its connection is over")
    with pytest.raises(SandboxGoneError):
        await running


async def test_no_connection_outlives_its_task(arena: Arena, listener: Listener) -> None:
    """Not held by a child of the task, in a session of its own, nor for the next task."""
    code = """
made = asked("CONNECT " + T["place"])
made.sendall(b"x")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(1)
"""
    sandbox = await arena.prepared(given(arena, "process", code, listener))
    for task in (1, 2):
        assert (await arena.run(sandbox, task)).state == "succeeded"
        await until(lambda ended=task: listener.left == ended, "its connection is over")  # type: ignore[misc]  # bound now
    (root,) = sandbox.root_pids
    assert not tree.children(root.pid), "no proxy is left"


async def test_the_proxy_dies_with_the_launcher(arena: Arena, listener: Listener) -> None:
    sandbox = await arena.prepared(given(arena, "process", FLOW, listener))
    running = asyncio.create_task(sandbox.run(0))
    await until(lambda: listener.heard_bytes > 0, "it flows")
    (root,) = sandbox.root_pids
    os.kill(root.pid, signal.SIGKILL)
    await until(lambda: listener.left == 1, "its connection is over")
    with pytest.raises(SandboxGoneError):
        await running


async def test_a_flood_harms_who_makes_it_alone(arena: Arena, listener: Listener) -> None:
    """More connections than are taken, halves of requests, heads without end."""
    code = """
def silent():
    made = socket.create_connection(PROXY, 20)
    made.sendall(b"GET http://a.org/ HTTP/1.1\\r\\nX")
    return made
held = [silent() for _ in range(100)]
for made in held:
    try:
        made.settimeout(0.5)
        made.sendall(b"X" * 100_000)
    except OSError:
        pass
    made.close()
attempt("a good one", asked, "CONNECT " + T["place"])
"""
    tried = arena.read(
        "process", await arena.run(await arena.prepared(given(arena, "process", code, listener)))
    )
    assert [*tried.got] == ["a good one"]
