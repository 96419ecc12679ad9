"""What a task tries on a network that it does not have is counted by the kernel, try by try."""

import os

import pytest
from sandboxes import LIMITS, Workshop, needs_bubblewrap, open_folder, workshop

from lender.sandbox.meters.network_attempts import NetworkCounters, count

__all__ = ["open_folder", "workshop"]  # fixtures

_PRELUDE = """
import socket, sys
def tried(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        print(error, file=sys.stderr)
def udp(family, address):
    tried(socket.socket(family, socket.SOCK_DGRAM).sendto, b"x", (address, 53))
def tcp(address, port=80):
    tried(socket.create_connection, (address, port), 1)
"""


@needs_bubblewrap
@pytest.mark.parametrize(
    ("code", "attempts"),
    [
        ("", 0),
        ("for _ in range(3): tcp('192.0.2.1')", 3),
        ("tcp('2001:db8::1')", 1),
        ("tcp('::ffff:192.0.2.1')", 1),
        ("udp(socket.AF_INET, '192.0.2.1')", 1),
        ("udp(socket.AF_INET6, '2001:db8::1')", 1),
        ("udp(socket.AF_INET6, 'fe80::1')", 1),
        ("udp(socket.AF_INET, '224.0.0.1')", 1),
        # The owner's own services, were they not out of reach.
        ("tcp('127.0.0.1')", 1),
        ("tcp('::1')", 1),
        ("udp(socket.AF_INET, '127.0.0.1')", 1),
        ("udp(socket.AF_INET6, '::1')", 1),
    ],
)
async def test_each_try_counts_once(workshop: Workshop, code: str, attempts: int) -> None:
    outcome = await python(workshop, code)
    assert outcome == ("succeeded", attempts)


@needs_bubblewrap
async def test_a_name_that_is_looked_up_counts(workshop: Workshop) -> None:
    state, attempts = await python(workshop, "tried(socket.getaddrinfo, 'example.com', 80)")
    assert state == "succeeded"
    assert attempts is not None
    assert attempts >= 1


@needs_bubblewrap
async def test_talk_among_its_own_processes_does_not_count(workshop: Workshop) -> None:
    code = """
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
server.send(b"x")
assert client.recv(1) == b"x"
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("127.0.0.1", 0))
client_udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client_udp.sendto(b"y", receiver.getsockname())
assert receiver.recv(1) == b"y"
"""
    assert await python(workshop, code) == ("succeeded", 0)


@needs_bubblewrap
async def test_each_task_is_counted_by_itself_also_one_that_is_killed(workshop: Workshop) -> None:
    script = (
        "import os, socket, time\n"
        "for _ in range(int(os.environ['LENDER_TASK'])):\n"
        "    try: socket.create_connection(('192.0.2.1', 1))\n"
        "    except OSError: pass\n"
        "print('x' * 10_000, flush=True)\n"
        "time.sleep(60)\n"
    )
    limits = LIMITS._replace(output_bytes=100)
    sandbox = await workshop.prepared("process", PYTHON, limits=limits, env={"CODE": script})
    for task in (2, 5, 0):
        outcome = await sandbox.run(task)
        assert (outcome.limit, outcome.network_attempts_blocked) == ("output", task)


async def test_a_wasm_task_has_no_way_to_try(workshop: Workshop) -> None:
    sandbox = await workshop.prepared("wasm", "hello")
    assert (await sandbox.run(0)).network_attempts_blocked == 0


def test_the_owners_own_counters_are_never_read() -> None:
    counters = NetworkCounters(os.getpid())
    assert counters.attempts_blocked() is None
    counters.close()


def test_what_is_gone_can_not_be_counted() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert NetworkCounters(pid).attempts_blocked() is None


def test_other_counters_do_not_count() -> None:
    snmp = (
        "Ip: InReceives OutNoRoutes\nIp: 50 2\n"
        "Icmp: InMsgs OutNoRoutes\nIcmp: 9 9\n"
        "Tcp: ActiveOpens AttemptFails\nTcp: 7 3\n"
        "Udp: InDatagrams NoPorts\nUdp: 5 1\nUdpLite: InDatagrams NoPorts\nUdpLite: 0 8\n"
    )
    assert count(snmp) == 6
    assert count("Ip6InReceives 50\nIp6OutNoRoutes \t2\nUdp6NoPorts 1\nUdpLite6NoPorts 8\n") == 3


PYTHON = 'exec /usr/bin/python3 -I -S -c "$CODE"'


async def python(workshop: Workshop, code: str) -> tuple[str, int | None]:
    sandbox = await workshop.prepared("process", PYTHON, env={"CODE": _PRELUDE + code})
    outcome = await sandbox.run(0)
    return outcome.state, outcome.network_attempts_blocked
