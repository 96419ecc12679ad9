"""A submitter's subscriptions, with the client's own errors."""

from collections.abc import Awaitable, Callable

from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.aio.subscription import (
    DEFAULT_SUB_PENDING_BYTES_LIMIT,
    DEFAULT_SUB_PENDING_MSGS_LIMIT,
    Subscription,
)

from lender.client.errors import Unreachable
from lender.link.connection import Connection


async def listen(
    connection: Connection,
    subject: str,
    hear: Callable[[Msg], Awaitable[None]] | None = None,
    *,
    pending_msgs_limit: int = DEFAULT_SUB_PENDING_MSGS_LIMIT,
    pending_bytes_limit: int = DEFAULT_SUB_PENDING_BYTES_LIMIT,
) -> Subscription:
    """Subscribe.

    Args:
        connection: outlives the subscription.
        subject: wildcards allowed.
        hear: called with each message; None where they are asked for one by one.
        pending_msgs_limit: of what has come and was not heard; beyond it messages are lost.
        pending_bytes_limit: the same in bytes.

    Raises:
        Unreachable: the connection was closed for good.
    """
    try:
        return await connection.nc.subscribe(
            subject,
            cb=hear,
            pending_msgs_limit=pending_msgs_limit,
            pending_bytes_limit=pending_bytes_limit,
        )
    except nats_errors.ConnectionClosedError as error:
        raise closed() from error


def closed() -> Unreachable:
    """Return what is raised where the connection is closed for good."""
    return Unreachable("the connection was closed", "connect again and ask for the job by its id")
