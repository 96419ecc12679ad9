"""Has the servers that run go by what was signed."""

import logging
from collections.abc import Sequence

from broker.deployment.folder import Deployment
from broker.deployment.servers import PassedOverError, Servers
from broker.deployment.signing import sign_accounts

logger = logging.getLogger(__name__)


async def tell(deployment: Deployment, running: Servers, tokens: Sequence[str], now: float) -> None:
    """Have each server go by these tokens: what one passes over for good it is told by a later one.

    nats-server 2.15.1 can take an account for expired that is not, and reads it anew only where its
    token is another (docs/decisions/0026, "Clusters").

    Args:
        deployment: with the operator's folder in it, locked.
        running: the servers.
        tokens: of its accounts.
        now: seconds since the epoch.

    Raises:
        DeploymentError: a server does not take one, or does not go by a later one either.
        LinkError: not all have answered; doing it again is safe.
    """
    try:
        await running.update(tokens)
    except PassedOverError as error:
        logger.warning("signed anew: %s", error)
        again = sign_accounts(deployment, lambda _, nats: nats, now, error.accounts)
        await running.update(again)
