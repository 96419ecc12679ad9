"""What of the network a grant allows and a job asks for: the web's ports anywhere, or named hosts.

A *place* is `internet`, `HOST`, `HOST:PORT`, or the same with `*.HOST` for all names below it (not
for HOST itself). Without a port it is the web's two, 80 and 443: nobody sends mail or tries
passwords from an owner's address by a word that they did not say. Addresses are no hosts.

Standard library only: the owner's verbs read it.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

INTERNET: Final = "internet"
WEB_PORTS: Final = (80, 443)
PLACES_MAX: Final = 16

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last one begins with a letter, so that no form of an address is a name.
_NAME = rf"(?:{_LABEL}\.){{1,32}}[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?"
PLACE_PATTERN: Final = rf"^(?:{INTERNET}|(?:\*\.)?{_NAME}(?::[1-9][0-9]{{0,4}})?)$"
PLACE_CHARS_MAX: Final = 253 + len("*.:65535")

_ANY = "*"


def check_place(place: str) -> str:
    """Return a place that is well formed.

    Raises:
        ValueError: it is none.
    """
    host, _, port = place.partition(":")
    if not re.fullmatch(PLACE_PATTERN, place) or len(host) > 253 or int(port or 1) > 65535:
        form = "is neither internet nor like example.org or *.example.org:8443"
        raise ValueError(f"{place[:80]!r} {form}")
    return place


def parse_reach(text: str) -> tuple[str, ...]:
    """Read `none`, `internet` or `example.org,*.example.net:8443`, in whatever case.

    Raises:
        ValueError: one of them is no place, or they are too many.
    """
    words = [word.strip().lower() for word in text.split(",")]
    if words == ["none"]:
        return ()
    if len(words) > PLACES_MAX:
        raise ValueError(f"at most {PLACES_MAX} hosts")
    return tuple(dict.fromkeys(map(check_place, words)))


def covers(allowed: Iterable[str], asked: Iterable[str]) -> bool:
    """Tell whether all that is asked for is allowed."""
    spots = [*_spots(allowed)]
    return all(
        any(port == one and _within(host, pattern) for pattern, one in spots)
        for host, port in _spots(asked)
    )


def allows(reach: Iterable[str], host: str, port: int) -> bool:
    """Tell whether a host may be reached at a port, as far as names go.

    Args:
        reach: places.
        host: a name in lower case without a dot at its end, or an address.
        port: 1 to 65535.
    """
    return any(port == one and _within(host, pattern) for pattern, one in _spots(reach))


def in_words(reach: Iterable[str]) -> str:
    """For people: `the network (example.org at ports 80 and 443; *.example.net:8443)`."""
    places = [*reach]
    if not places:
        return "no network"
    named = sorted((one for one in places if ":" not in one), key=lambda one: one != INTERNET)
    web = ", ".join("any public host" if one == INTERNET else one for one in named)
    others = ", ".join(one for one in places if ":" in one)
    # What is spoken at these ports nobody reads: it need not be the web.
    told = [f"{web} at ports {WEB_PORTS[0]} and {WEB_PORTS[1]}" if web else "", others]
    return f"the network ({'; '.join(filter(None, told))})"


def _spots(places: Iterable[str]) -> Iterator[tuple[str, int]]:
    for place in places:
        host, _, port = place.partition(":")
        for one in (int(port),) if port else WEB_PORTS:
            yield (_ANY if host == INTERNET else host), one


def _within(host: str, pattern: str) -> bool:
    """Whether all that `host` stands for, which may be a pattern too, is in `pattern`."""
    below = pattern.startswith("*.") and host.endswith(pattern[1:])
    return pattern in (_ANY, host) or below
