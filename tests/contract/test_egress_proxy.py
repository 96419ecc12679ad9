"""The proxy on real sockets: what it lets through, refuses, and does not wait for."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from lender.sandbox.egress import connection, proxy
from lender.sandbox.egress.addresses import Address
from lender.sandbox.egress.counters import Counters, Moved
from lender.sandbox.egress.policy import Policy
from lender.sandbox.egress.proxy import Proxy
from lender.sandbox.egress.requests import HEAD_BYTES_MAX
from lender.sandbox.plan import Network

HOME = "127.0.0.1"


class World:
    """A proxy in a thread, a server that it may reach, and what names stand for."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.door = self.keep(socket.create_server((HOME, 0)))
        self.door.setblocking(False)
        self.server = self.keep(socket.create_server((HOME, 0)))
        self.server.settimeout(20)
        self.port = self.server.getsockname()[1]
        self.counters = Counters.at(None)
        self.names: dict[str, list[str]] = {"rebinds.org": [HOME]}
        self.asked: list[str] = []
        self.ours: set[Address] = set()
        reach = (
            f"a.org:{self.port}",
            f"*.b.org:{self.port}",
            "internet",
            f"rebinds.org:{self.port}",
        )
        network = Network(reach, ("nats.b.org", "9.9.9.9"), {"a.org": HOME})
        self.policy = Policy(network, self.resolve, self.ours.__contains__)
        self.proxy = Proxy(self.door, self.policy, self.counters)
        self._on = True
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def resolve(self, name: str) -> list[Address]:
        self.asked.append(name)
        if name not in self.names:
            raise OSError(name)
        return [ip_address(one) for one in self.names[name]]

    def ask(self, words: bytes | str) -> socket.socket:
        client = self.keep(socket.create_connection(self.door.getsockname(), 20))
        client.sendall(words if isinstance(words, bytes) else f"{words} HTTP/1.1\r\n\r\n".encode())
        return client

    def refused(self, words: bytes | str) -> str:
        with self.ask(words) as client:
            said = everything(client)
        assert said.startswith(b"HTTP/1.1 ")
        return (
            said.split(b" ", 2)[1].decode() + ":" + said.rpartition(b"lender: ")[2].decode().strip()
        )

    def tunnel(self) -> tuple[socket.socket, socket.socket]:
        client = self.ask(f"CONNECT a.org:{self.port}")
        server = self.accept()
        assert client.recv(100) == b"HTTP/1.1 200 Connection established\r\n\r\n"
        return client, server

    def accept(self) -> socket.socket:
        return self.keep(self.server.accept()[0])

    def keep(self, sock: socket.socket) -> socket.socket:
        self.sockets.append(sock)
        return sock

    def close(self) -> None:
        self._on = False
        self.ask(b"")  # wakes it
        self._thread.join(5)
        for one in self.sockets:
            one.close()
        self.proxy.close()
        self.counters.close()

    def _serve(self) -> None:
        while self._on:
            self.proxy.round()


def everything(client: socket.socket) -> bytes:
    said = b""
    while piece := client.recv(1 << 16):
        said += piece
    return said


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def until(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(2000):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError("not within 20 s")


def test_bytes_go_both_ways_and_each_side_may_end_first(world: World) -> None:
    client, server = world.tunnel()
    content = bytes(range(256)) * 8000
    sender = threading.Thread(target=lambda: (client.sendall(content), client.shutdown(1)))
    sender.start()
    assert everything(server) == content
    sender.join()
    server.sendall(content[:5000])
    server.close()
    assert everything(client) == content[:5000]
    until(lambda: world.counters.read() == Moved(5000, len(content), 0))
    client.close()


def test_what_comes_with_the_head_is_passed_on(world: World) -> None:
    body = b"the body"
    with world.ask(f"POST http://a.org:{world.port}/x HTTP/1.1\r\n\r\n".encode() + body) as client:
        server = world.accept()
        said = b""
        while not said.endswith(body):
            said += server.recv(1000)
        assert said.startswith(b"POST /x HTTP/1.1\r\n")
        server.sendall(b"answer")
        server.close()
        assert everything(client) == b"answer"


def test_what_the_job_did_not_ask_for_is_not_even_looked_up(world: World) -> None:
    for target in ("a.org:22", f"b.org:{world.port}", "secret.data.c.org:53", "8.8.8.8:53"):
        assert world.refused(f"CONNECT {target}") == f"403:the job did not ask for {target}"
    assert world.asked == []
    assert world.counters.read().refused == 4


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1", "::1"],
        ["169.254.169.254"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
    ],
)
def test_a_name_of_what_is_not_public_is_refused(world: World, addresses: list[str]) -> None:
    world.names["x.org"] = addresses
    assert world.refused("CONNECT x.org:443") == "403:x.org has no public address"
    assert world.refused("GET http://x.org/") == "403:x.org has no public address"


def test_only_what_was_judged_is_dialled(world: World) -> None:
    """A name is looked up once: a second answer, for the loopback, is never asked for."""
    target = f"CONNECT rebinds.org:{world.port}"
    assert world.refused(target) == "403:rebinds.org has no public address"
    world.names["rebinds.org"] = ["2001:db8::1", HOME]
    assert world.refused(target) == "403:rebinds.org has no public address"
    assert world.asked.count("rebinds.org") == 2


@pytest.mark.parametrize(
    "literal", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "192.168.1.1", "[fe80::1]"]
)
def test_an_address_of_somebodys_own_is_refused(world: World, literal: str) -> None:
    assert world.refused(f"CONNECT {literal}:443").endswith("has no public address")
    assert world.asked == []


def test_this_machines_own_public_address_and_the_fleets_servers_are_refused(world: World) -> None:
    world.names |= {"nats.b.org": ["8.8.4.4"], "x.b.org": ["8.8.4.4"]}
    world.ours.add(ip_address("1.1.1.1"))
    assert world.refused("CONNECT 1.1.1.1:443") == "403:1.1.1.1 has no public address"
    assert world.refused("CONNECT 9.9.9.9:443") == "403:9.9.9.9 is the lender's own"
    target = f":{world.port}"
    assert world.refused(f"CONNECT nats.b.org{target}") == "403:nats.b.org is the lender's own"
    assert world.refused(f"CONNECT x.b.org{target}") == "403:x.b.org has no public address"
    assert world.refused("CONNECT 8.8.4.4:443") == "403:8.8.4.4 has no public address"
    for translated in ("64:ff9b::909:909", "64:ff9b::101:101"):  # 9.9.9.9 and 1.1.1.1
        answer = f"403:{translated} has no public address"
        assert world.refused(f"CONNECT [{translated}]:443") == answer


def test_a_job_with_all_its_processes_is_told_so_and_keeps_its_proxy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threads that look names up count among them (cgroups: pids.max)."""

    class NoThread:
        def __init__(self, **_: object) -> None:
            pass

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(proxy, "threading", SimpleNamespace(Thread=NoThread))
        answer = "502:the job has as many processes as it may"
        for _ in range(proxy.LOOK_UPS_MAX + 1):
            assert world.refused(f"CONNECT x.b.org:{world.port}") == answer
    client, server = world.tunnel()
    client.close()
    server.close()


def test_a_name_that_nobody_knows_is_told(world: World) -> None:
    assert world.refused("CONNECT x.c.org:443") == "502:x.c.org is not known"
    assert world.refused(f"CONNECT x.b.org:{world.port}") == "502:x.b.org is not known"
    world.server.close()
    assert world.refused(f"CONNECT a.org:{world.port}") == "502:a.org does not answer"
    assert world.counters.read() == Moved(0, 0, 0)


def test_a_flood_of_head_is_cut_off(world: World) -> None:
    head = b"GET http://a.org/ HTTP/1.1\r\n" + b"X: y\r\n" * HEAD_BYTES_MAX
    assert (
        world.refused(head[: HEAD_BYTES_MAX + 1]) == f"431:more than {HEAD_BYTES_MAX} bytes of head"
    )
    with world.ask(b"") as client:
        client.settimeout(20)
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 1 << 30:
                sent += client.send(head)
        assert sent < 1 << 26, "it goes on reading"


def test_a_client_that_says_half_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.1)
    assert world.refused(b"GET http://a.org/ HT") == "408:nothing was asked"
    with world.ask(b"") as silent:
        assert everything(silent).startswith(b"HTTP/1.1 408")
    until(lambda: not world.proxy._connections)


def test_a_tunnel_without_a_byte_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE_S", 0.1)
    client, server = world.tunnel()
    assert everything(server) == b""
    assert everything(client) == b""


def test_no_more_are_taken_at_once_than_a_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "CONNECTIONS_MAX", 3)
    held = [world.tunnel() for _ in range(3)]
    waiting = world.ask("CONNECT 127.0.0.1:443")
    waiting.settimeout(0.3)
    with pytest.raises(TimeoutError):
        waiting.recv(1)
    held[0][0].close()
    held[0][1].close()
    waiting.settimeout(20)
    assert everything(waiting).startswith(b"HTTP/1.1 403")


def test_not_a_byte_more_goes_either_way_than_is_allowed(world: World) -> None:
    """What waits goes on once more is allowed, and the connection with it."""
    world.counters.allow(10_000)
    client, server = world.tunnel()
    server.sendall(b"i" * 7000)
    assert exactly(client, 7000) == b"i" * 7000
    client.sendall(b"o" * 7000)
    assert exactly(server, 3000) == b"o" * 3000
    server.sendall(b"i" * 500)
    for one in (client, server):
        one.settimeout(1.5)  # longer than it takes to look for more
        with pytest.raises(TimeoutError):
            one.recv(1)
        one.settimeout(20)
    assert world.counters.read() == Moved(7000, 3000, 0)
    world.counters.allow(1 << 20)
    assert exactly(server, 4000) == b"o" * 4000
    assert exactly(client, 500) == b"i" * 500
    until(lambda: world.counters.read() == Moved(7500, 7000, 0))


def test_with_nothing_allowed_even_a_request_waits(world: World) -> None:
    world.counters.allow(0)
    client = world.ask(f"GET http://a.org:{world.port}/")
    server = world.accept()
    server.settimeout(0.5)
    with pytest.raises(TimeoutError):
        server.recv(1)
    server.settimeout(20)
    world.counters.allow(1000)
    assert server.recv(100).startswith(b"GET / HTTP/1.1")
    server.close()
    client.close()


def test_a_server_has_all_that_its_client_sent_before_it_hung_up(world: World) -> None:
    """It is slow to read, and the client is long gone."""
    content = bytes(300_000)
    client, server = world.tunnel()
    server.close()  # the answer was had before: what is left is one way
    client.close()
    client, server = world.tunnel()
    sender = threading.Thread(target=lambda: (client.sendall(content), client.close()))
    sender.start()
    server.shutdown(socket.SHUT_WR)
    assert everything(server) == content
    sender.join()
    until(lambda: not world.proxy._connections)


def exactly(sock: socket.socket, size: int) -> bytes:
    said = b""
    while len(said) < size:
        piece = sock.recv(size - len(said))
        assert piece, "it ended"
        said += piece
    return said
