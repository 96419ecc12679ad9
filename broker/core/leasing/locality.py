"""Leases that are meant for one machine: it holds their inputs, a device, or a sealed job's key.

They wait in its own queue.

It has a moment to take one. Then the tasks may go anywhere: to fetch the inputs takes less long
than to wait for a machine that is busy, or has gone (delay scheduling: Zaharia and others, EuroSys
2010).
"""

from typing import Final

from broker.core.effects import SendControl
from broker.core.jobs.job import Job
from broker.core.leasing.leases import Lease
from broker.core.matching.lender import Lender
from broker.core.state import State
from lender.protocol.lease import Control

FETCH_BYTES_MIN: Final = 8 << 20
"""Less is fetched sooner than it is worth waiting for."""

NEAR_HEADER: Final = "Lender-Near"
"""Of a lease's message in a lender's own queue: whose."""


def nearest(job: Job, lender: Lender) -> str | None:
    """Return the lender if it could begin at once, and many others could not, or not so soon.

    That is where it holds much of what the job reads; and of a sealed job, or one that asks for a
    device, since those who have not the key, or the device, would only hand it back.
    """
    if lender.offer.slots_free < job.need.cores:
        return None
    if job.need.sealed_to or job.need.devices:
        return lender.id
    return lender.id if lender.holds_bytes(job.inputs) >= FETCH_BYTES_MIN else None


def tell_fed(state: State, lease: Lease) -> None:
    """Tell the lender that its own queue holds something."""
    if lease.near is not None and lease.holder is None:
        state.outbox.emit(SendControl(lease.near, Control(kind="open", classes=(lease.queue,))))
