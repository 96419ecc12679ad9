"""A word to those who hold leases."""

from collections.abc import Iterable
from typing import Literal

from broker.core.effects import SendControl
from broker.core.leasing.leases import Lease
from broker.core.outbox import Outbox
from lender.protocol.lease import Control


def tell_holders(outbox: Outbox, kind: Literal["start", "cancel"], leases: Iterable[Lease]) -> None:
    """Tell each lender that holds any of these, in one message, to begin or to stop them."""
    held: dict[str, list[str]] = {}
    for lease in leases:
        if lease.holder is not None:
            held.setdefault(lease.holder, []).append(lease.id)
    for lender, lease_ids in held.items():
        outbox.emit(SendControl(lender, Control(kind=kind, leases=tuple(lease_ids))))
