"""Attacks by socket: the owner's services, the network, the kernel's other socket families.

The arena asserts that nobody knocked at the owner's services; the controls are told apart here.
"""

import pytest
from arena import Arena, in_one_loop
from attacks import Guest, tried_in

from lender.sandbox.plan import Runtime

pytestmark = in_one_loop

SERVICES = """
for name, place in T["places"].items():
    if isinstance(place, list):
        family, kind, address = place
        address = tuple(address) if isinstance(address, list) else address
        def reach():
            with socket.socket(family, kind) as made:
                made.settimeout(1)
                made.connect(address)
                if kind == socket.SOCK_DGRAM:  # it is told of the first one that nobody took it
                    made.send(b"x")
                    time.sleep(0.05)
                    made.send(b"x")
        attempt(name, reach)
"""


@tried_in("process", "python", "oci")
async def test_the_owners_services_are_out_of_reach(arena: Arena, runtime: Runtime) -> None:
    """The loopback, the buses, the display, the agent of keys, the daemon's own control socket."""
    tried = await arena.attack(runtime, SERVICES)
    assert tried.failed, tried.got
    assert arena.owner.visitors() == []
    free = await arena.outside(SERVICES)
    assert not free.refused
    assert set(arena.owner.visitors()) == set(free.got) == set(tried.refused)


@tried_in("process", "python", "oci")
async def test_the_addresses_of_services_are_not_told(arena: Arena, runtime: Runtime) -> None:
    code = """
for name in ("DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "DISPLAY", "WAYLAND_DISPLAY",
             "XAUTHORITY"):
    report(name, os.environ.get(name))
for path in ("/run/dbus/system_bus_socket", "/run/user", "/tmp/.X11-unix", "/run/docker.sock",
             "/var/run/docker.sock", "/run/systemd/private", "/run/nscd/socket"):
    attempt(path, os.stat, path)
"""
    assert (await arena.attack(runtime, code)).failed


@tried_in("process", "python", "oci")
async def test_the_network_is_out_of_reach(arena: Arena, runtime: Runtime) -> None:
    code = """
def send(family, kind, address):
    with socket.socket(family, kind) as made:
        made.settimeout(1)
        made.connect(address)
        made.send(b"x")
for address in ("192.0.2.1", "10.0.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255"):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        attempt(f"{address} {kind}", send, socket.AF_INET, kind, (address, 53))
for address in ("2001:db8::1", "fe80::1", "ff02::1"):
    attempt(address, send, socket.AF_INET6, socket.SOCK_DGRAM, (address, 53))
attempt("a name", socket.getaddrinfo, "example.com", 80)
attempt("ping", socket.socket, socket.AF_INET, socket.SOCK_DGRAM, 1)
attempt("raw", socket.socket, socket.AF_INET, socket.SOCK_RAW, 255)
attempt("raw 6", socket.socket, socket.AF_INET6, socket.SOCK_RAW, 58)
"""
    assert (await arena.attack(runtime, code)).failed


FAMILIES = """
for family in range(48):
    if family not in (1, 2, 10, 16):  # contained by the namespaces
        for kind in (1, 2, 3, 5):
            attempt(f"{family} {kind}", lambda: socket.socket(family, kind, 0).close())
attempt("pair", socket.socketpair, 40)
"""


@tried_in("process", "python", "oci")
async def test_no_other_family_of_sockets_is_made(arena: Arena, runtime: Runtime) -> None:
    """A network namespace alone stops neither AF_VSOCK nor AF_ALG."""
    tried = await arena.attack(runtime, FAMILIES)
    assert tried.failed, tried.got
    if runtime == "process" and not (await arena.without_filter(FAMILIES)).got:
        pytest.skip("this kernel has no other family of sockets")


@tried_in("process", "python", "oci")
async def test_netlink_moves_nothing(arena: Arena, runtime: Runtime) -> None:
    """Routes, links and the audit of the host: it speaks to the sandbox's own network at most."""
    code = """
import struct
def ask(protocol, kind, flags, body):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as made:
        made.settimeout(1)
        made.bind((0, 0))
        made.send(struct.pack("=IHHII", 16 + len(body), kind, flags | 5, 1, 0) + body)
        answer = made.recv(65536)
        number = struct.unpack_from("=i", answer, 16)[0]
        if struct.unpack_from("=H", answer, 4)[0] == 2 and number != 0:
            raise OSError(-number, "")
        return answer
link = struct.pack("=BBHiII", 0, 0, 0, 1, 1, 1)
address = struct.pack("=BBBBI", 2, 8, 0, 0, 1) + struct.pack("=HH4B", 8, 2, 10, 9, 8, 7)
attempt("link up", ask, 0, 16, 0, link)
attempt("address", ask, 0, 20, 0x600, address)
attempt("audit", ask, 9, 1000, 0, b"")
attempt("audit off", ask, 9, 1001, 0, struct.pack("=10I", 1, 0, *[0] * 8))
attempt("packet filter", ask, 12, 0x0A00, 0x600, b"\\0" * 4)
"""
    assert (await arena.attack(runtime, code)).failed


@tried_in("process", "python", "oci")
async def test_a_socket_below_its_folder_leads_nowhere(arena: Arena, runtime: Runtime) -> None:
    """What a task listens at is a file on the host, and nobody but itself is there."""
    code = """
made = socket.socket(socket.AF_UNIX)
made.bind("/work/here")
made.listen()
made.settimeout(0.1)
attempt("a visitor", made.accept)
"""
    assert (await arena.attack(runtime, code)).failed


@tried_in("wasm")
async def test_a_guest_has_no_socket(arena: Arena, runtime: Runtime) -> None:
    guest = Guest()
    for fd in range(12):
        place = f"(i32.const {fd})"
        guest.attempt(f"accept {fd}", f"(call $sock_accept {place} (i32.const 0) (i32.const 8192))")
        guest.attempt(
            f"send {fd}",
            f"(call $sock_send {place} (i32.const 16) (i32.const 1) (i32.const 0)"
            " (i32.const 8192))",
        )
        guest.attempt(
            f"receive {fd}",
            f"(call $sock_recv {place} (i32.const 16) (i32.const 1) (i32.const 0)"
            " (i32.const 8192) (i32.const 8196))",
        )
    assert (await arena.attack(runtime, guest=guest)).failed
