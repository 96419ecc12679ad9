"""What the real machine says of addresses: which are its own, and what its resolver finds."""

import socket
from ipaddress import ip_address

import pytest

from lender.sandbox.egress import policy
from lender.sandbox.egress.policy import Policy, RefusedError, UnknownError, resolve
from lender.sandbox.plan import Network


@pytest.mark.parametrize(("address", "ours"), [("127.0.0.1", True), ("203.0.113.1", False)])
def test_an_address_of_this_machine_is_known_by_where_we_would_come_from(
    address: str, *, ours: bool
) -> None:
    assert policy._is_ours(ip_address(address)) is ours


def test_an_address_of_version_6_is_known_too() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine's loopback")
    assert policy._is_ours(ip_address("::1"))
    assert not policy._is_ours(ip_address("2001:db8::1"))


def test_the_machines_resolver_is_asked_and_what_it_says_is_judged() -> None:
    assert ip_address("127.0.0.1") in resolve("localhost")
    with pytest.raises(RefusedError, match="localhost has no public address"):
        Policy(Network(("internet",))).addresses("localhost")


def test_a_host_of_the_fleet_is_barred_by_all_its_addresses_and_looked_up_again() -> None:
    names = {"nats.org": ["8.8.4.4", "8.8.8.8"], "other.org": ["8.8.8.8", "9.9.9.9"]}

    def look_up(name: str) -> list[policy.Address]:
        if name not in names:
            raise OSError(name)
        return [ip_address(one) for one in names[name]]

    network = Network(("internet",), barred=("nats.org", "gone.org", "1.1.1.1"))
    judge = Policy(network, look_up, lambda _address: False)
    assert judge.addresses("other.org") == [ip_address("9.9.9.9")]
    names["nats.org"] = []
    judge._barred_until = 0.0
    assert judge.addresses("other.org") == [ip_address("8.8.8.8"), ip_address("9.9.9.9")]
    with pytest.raises(RefusedError):
        judge.addresses("1.1.1.1")
    with pytest.raises(UnknownError):
        judge.addresses("gone.org")


def test_of_many_addresses_a_few_are_tried() -> None:
    many = [ip_address(f"9.9.9.{n}") for n in range(9)]
    judge = Policy(Network(("internet",)), lambda _name: many, lambda _address: False)
    assert judge.addresses("a.org") == many[: policy.ADDRESSES_MAX]
