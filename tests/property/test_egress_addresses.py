"""No address is taken for public that is anybody's own, in whatever form it comes."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lender.sandbox.egress.addresses import host_of, is_near, is_public
from lender.sandbox.egress.requests import HEAD_END, BadRequestError, parse

v4 = st.integers(0, (1 << 32) - 1).map(IPv4Address)
v6 = st.integers(0, (1 << 128) - 1).map(IPv6Address)
# Where special addresses lie close together.
near_4 = st.builds(
    lambda base, offset: IPv4Address((int(IPv4Address(base)) + offset) % (1 << 32)),
    st.sampled_from(["0.0.0.0", "10.0.0.0", "100.64.0.0", "127.0.0.0", "169.254.0.0", "172.16.0.0",
                     "192.0.0.0", "192.168.0.0", "198.18.0.0", "224.0.0.0", "240.0.0.0"]),
    st.integers(-3, 1 << 21),
)  # fmt: skip
near_6 = st.builds(
    lambda base, offset: IPv6Address(int(IPv6Address(base)) + offset),
    st.sampled_from(["::", "::ffff:0:0", "64:ff9b::", "64:ff9b:1::", "100::", "2001::", "2002::",
                     "2001:db8::", "fc00::", "fe80::", "fec0::", "ff02::"]),
    st.integers(0, 1 << 48),
)  # fmt: skip


@given(v4 | near_4)
def test_a_public_ipv4_address_is_global_and_of_one_host(address: IPv4Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not any((address.is_multicast, address.is_reserved, address.is_private))


@given(v6 | near_6)
def test_a_public_ipv6_address_is_global_and_of_one_host(address: IPv6Address) -> None:
    if is_public(address):
        assert address in IPv6Network("2000::/3") or address in IPv6Network("64:ff9b::/96")
        assert not any((address.is_multicast, address.is_private, address.is_site_local))
        assert address.ipv4_mapped is address.sixtofour is address.teredo is None


@given(v4 | near_4)
def test_an_address_within_another_is_judged_as_itself_or_not_at_all(address: IPv4Address) -> None:
    number = int(address)
    assert is_public(IPv6Address((0x64FF9B << 96) | number)) is is_public(address)
    assert not is_public(IPv6Address((0xFFFF << 32) | number))
    assert not is_public(IPv6Address(number))
    assert not is_public(IPv6Address((0x2002 << 112) | (number << 80)))
    assert host_of(IPv6Address((0x64FF9B << 96) | number)) == host_of(address) == address


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200",
     "100.127.255.255", "168.63.129.16", "192.0.0.192", "0.0.0.0", "255.255.255.255", "224.0.0.251",
     "::", "::1", "fe80::1", "fe80::1%eth0", "2606:4700::1%eth0", "fd00:ec2::254", "fec0::1",
     "ff02::1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b:1::808:808", "2002:808:808::1",
     "2001:0:808:808::1", "::8.8.8.8"],
)  # fmt: skip
def test_what_is_somebodys_own_is_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize(
    "text", ["8.8.8.8", "100.63.255.255", "100.128.0.0", "2606:4700::1", "64:ff9b::808:808"]
)
def test_what_is_public_is_taken(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize(
    ("text", "source", "near"),
    [("2a02:8109:aaaa:bb00::1", "2a02:8109:aaaa:bb00:1:2:3:4", True),
     ("2a02:8109:aaaa:bbff::1", "2a02:8109:aaaa:bb00:1:2:3:4", True),
     ("2a02:8109:aaaa:bc00::1", "2a02:8109:aaaa:bb00:1:2:3:4", False),
     ("8.8.8.8", "8.8.8.200", True), ("8.8.9.8", "8.8.8.200", False),
     ("8.8.8.8", "192.168.1.2", False), ("8.8.8.8", "::808:808", False)],
)  # fmt: skip
def test_the_neighbours_of_a_machine_are_those_of_its_site(
    text: str, source: str, *, near: bool
) -> None:
    assert is_near(ip_address(text), ip_address(source)) is near


@given(st.binary(max_size=200))
def test_whatever_is_asked_is_read_or_refused(words: bytes) -> None:
    for head in (words, b"GET http://" + words, b"CONNECT " + words + b" HTTP/1.1"):
        try:
            request = parse(head + HEAD_END)
        except BadRequestError:
            continue
        assert 0 < request.port < 65536
        assert request.host.isascii()
        assert b"\r\n\r\n" not in request.opening.removesuffix(HEAD_END)
