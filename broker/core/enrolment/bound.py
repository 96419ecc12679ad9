"""What the operator bounds a lender by: people and pools, not classes, which no person can write.

A lender so bound asks for a token of the classes that its owner's grants name, again and again as
they change, and is given those of them that lie within. So a token holds what both have said.
"""

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from lender.protocol import bounds
from lender.protocol.classes import whose
from lender.protocol.codec import Open
from lender.protocol.ids import PoolName, PublicKey

BoundSubmitters = Annotated[tuple[PublicKey, ...], Field(max_length=bounds.BOUND_SUBMITTERS_MAX)]
BoundPools = Annotated[tuple[PoolName, ...], Field(max_length=bounds.BOUND_POOLS_MAX)]


class Bound(Open):
    """For whom a lender may work, and in which pools; None: for everybody, in all of them."""

    submitters: BoundSubmitters | None = None
    pools: BoundPools | None = None

    def within(self, classes: Iterable[str]) -> tuple[str, ...]:
        """Return those of the classes that lie within it, each once; `*` does not."""
        return tuple(dict.fromkeys(one for one in classes if self._holds(one)))

    def _holds(self, token: str) -> bool:
        named = whose(token)
        return (
            named is not None
            and (self.pools is None or named.pool in self.pools)
            and (self.submitters is None or named.submitter in self.submitters)
        )
