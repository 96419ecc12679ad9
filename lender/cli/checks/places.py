"""Where NATS servers are said to be, and the words for one that is not there."""

from urllib.parse import urlsplit

from lender.cli.checks.check import Check
from lender.link.probe import Place

_NATS_PORT = 4222
_SCHEMES = ("", "nats", "tls")


def places_of(url: str) -> list[Place]:
    """Return the places that an address names, or several with commas between them.

    Raises:
        ValueError: one is none.
    """
    found = []
    for one in url.split(","):
        parts = urlsplit(one.strip() if "//" in one else f"//{one.strip()}")
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ValueError(f"no address of a NATS server: {one.strip()!r}; like nats://host:4222")
        found.append(Place(parts.hostname, parts.port or _NATS_PORT))
    return found


def wants_tls(url: str) -> bool:
    """Tell whether the address itself asks for TLS."""
    return any(one.strip().startswith("tls://") for one in url.split(","))


def not_there(name: str, place: Place, reason: str, mend: str) -> Check:
    """Say that nothing takes connections at a place."""
    return Check(name, "blocker", f"no NATS server at {place} ({reason})", mend)
