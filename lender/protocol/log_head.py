"""What a lender publishes of its log of receipts: the last line, so that a cut log shows."""

from typing import Annotated, Literal

from pydantic import Field

from lender.protocol.codec import Open
from lender.protocol.ids import PublicKey

LineHash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""Lower-case hexadecimal SHA-256."""


class MissingHead(Open):
    """A head that was published and that the log does not hold (any more)."""

    seq: int = Field(ge=1)
    hash: LineHash
    at: float


class LogHead(Open):
    """The last receipt of a lender's log at a time, in seconds since the epoch.

    Signed like a submission: the header `Lender-Signature` over the exact bytes. `missing` is the
    earliest head that the lender found published and not in its log; it is carried on in every
    later head, so that publishing does not wash it out.
    """

    v: Literal[1] = 1
    lender: PublicKey
    seq: int = Field(ge=0)
    hash: LineHash
    at: float
    missing: MissingHead | None = None
