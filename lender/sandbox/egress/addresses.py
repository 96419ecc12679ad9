"""Which addresses a stranger's work may get to: public ones. Pure.

Sources: IANA's IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890, RFC 8190); RFC 6052 for
addresses of IPv4 hosts in IPv6.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

Address = IPv4Address | IPv6Address

_NOT_PUBLIC_4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this host
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # a provider's own; tailnets
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's host, from inside a virtual machine
            "169.254.0.0/16",  # link-local; the metadata of clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocols' own
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved; broadcast
        ),
    )
)
# Global unicast is the only block that is given out, and these in it are special.
_GIVEN_OUT: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocols' own: Teredo, benchmarks, ORCHID
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: holds an IPv4 address, and is not used any more
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)
# How an IPv4 host is called where a network speaks IPv6 alone (RFC 6052).
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")

# How much of an address those of one home or one site share: most are given a /56 (RFC 6177).
_SITE_BITS: Final = {4: 24, 6: 56}


def host_of(address: Address) -> Address:
    """Return the IPv4 host that an address stands for as RFC 6052 writes it; else itself."""
    if isinstance(address, IPv6Address) and address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_near(address: Address, source: Address) -> bool:
    """Tell whether an address may be of the network of who would come to it from `source`.

    Behind a router that translates addresses those of a network are private. But most networks
    have public IPv6 addresses, by which a machine inside goes around what guards them from outside.
    """
    if address.version != source.version:
        return False
    others_bits = address.max_prefixlen - _SITE_BITS[address.version]
    return int(address) >> others_bits == int(source) >> others_bits


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the internet's, and of nobody's own network.

    One that holds an IPv4 address is public only as RFC 6052 writes it, and if that one is.
    """
    if isinstance(address, IPv4Address):
        return not any(address in one for one in _NOT_PUBLIC_4)
    if address.scope_id is not None:
        return False
    host = host_of(address)
    if host is not address:
        return is_public(host)
    return address in _GIVEN_OUT and not any(address in one for one in _NOT_PUBLIC_6)
