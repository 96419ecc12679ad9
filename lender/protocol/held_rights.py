"""What a server says that it lets somebody do, held against the table of permissions."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lender.protocol.permissions import HOME, Role, Verb, completed, granted, permits


class Held(NamedTuple):
    """What a server lets one user publish, or subscribe to: its patterns, those denied besides."""

    allow: Sequence[str]
    deny: Sequence[str] = ()


class Difference(NamedTuple):
    """Where a server does otherwise than the table says; lines like `publish offer.U...`."""

    missing: tuple[str, ...]
    beyond: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.missing) + len(self.beyond)


def difference(role: Role, key: str, tags: Sequence[str], held: Mapping[Verb, Held]) -> Difference:
    """Return where the rights that somebody has are not those of a role.

    Args:
        role: of the table.
        key: his public key.
        tags: of his token.
        held: what the server says that he may do, by verb; without a verb: nothing.
    """
    if role == "lender":
        tags = completed(tags)  # one that was made before tags named submitters lacks them
    missing: list[str] = []
    beyond: list[str] = []
    for verb in ("publish", "subscribe"):
        wanted = granted(role, verb, key, tags)
        allow, deny = held.get(verb, Held(()))
        missing += [
            f"{verb} {one}" for one in wanted if not permits(allow, one) or permits(deny, one)
        ]
        beyond += [f"{verb} {one}" for one in allow if not permits(wanted, one)]
    return Difference(tuple(missing), tuple(beyond))


def nearest_role(key: str, tags: Sequence[str], held: Mapping[Verb, Held]) -> Role:
    """Return the role whose rights are most like these."""
    return min(HOME, key=lambda role: difference(role, key, tags, held).size)
