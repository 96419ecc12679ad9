"""Submitters by name, as operators speak of them, and by key, as everything else does."""

import re
from collections.abc import Mapping

from broker.core.enrolment.bound import Bound
from lender.protocol.enrolment import NAME_PATTERN
from lender.protocol.errors import ProtocolError
from lender.protocol.signature import check_public_key


class UnknownNameError(Exception):
    """A name leads to no submitter; says what to do."""


_ALL = {"default": "'default' stands for all submitters", "all": "'all' stands for everybody"}


def fault_of(name: str) -> str:
    """Say why nobody can be named so where submitters are named; empty: somebody can."""
    if is_key(name):
        return "a public key is no name: it stands for whose it is"
    if not re.fullmatch(NAME_PATTERN, name):
        return "a name is of letters, digits and _ . @ -"
    return _ALL.get(name, "")


def is_key(text: str) -> bool:
    """Tell whether it is a public key."""
    try:
        check_public_key(text)
    except ProtocolError:
        return False
    return True


class Named:
    """Who may submit, by name."""

    def __init__(self, by_name: Mapping[str, str]) -> None:
        """Take names, and the public key of each."""
        self.by_name = dict(by_name)

    def keys(self, said: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Return the keys of submitters who are named, or given by key; None: everybody.

        Raises:
            UnknownNameError: one is neither.
        """
        if said is None:
            return None
        return tuple(dict.fromkeys(map(self._key, said)))

    def names(self, bound: Bound) -> tuple[str, ...] | None:
        """Return whom a bound names: by key where no name is known that `keys` takes back to it."""
        if bound.submitters is None:
            return None
        by_key = {key: name for name, key in self.by_name.items() if not fault_of(name)}
        return tuple(by_key.get(key, key) for key in bound.submitters)

    def _key(self, said: str) -> str:
        if is_key(said):  # first, lest somebody take another's key for his name
            return said
        if said not in self.by_name:
            raise UnknownNameError(
                f"no submitter is called {said!r}: `lender-broker submitters` lists them; "
                "name others by their key, U..."
            )
        return self.by_name[said]
