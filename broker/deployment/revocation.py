"""Takes back what a key was let in by: at once, on every server, and for good."""

from pathlib import Path
from typing import Any

from broker.deployment import claims
from broker.deployment.claims import Signed
from broker.deployment.folder import Deployment
from broker.deployment.servers import servers
from broker.deployment.signing import sign_accounts
from broker.deployment.telling import tell


async def revoke(
    deployment: Deployment, url: str, ca: Path | None, public_key: str, now: float
) -> None:
    """Make every token of a key useless that was issued until `now`, and close its connections.

    It is written down before the server is told: a server that starts later knows it, too. Doing
    it again is safe.

    Args:
        deployment: with the operator's folder in it.
        url: of a server of the fleet.
        ca: certificates of who may vouch for it; None for a server without TLS.
        public_key: of a lender, a submitter, an observer or a broker.
        now: seconds since the epoch.

    Raises:
        DeploymentError: it can't be written, or the operator's folder is not there.
        LinkError: it is written, and the server was not told; do it again.
    """

    def revoked(which: Signed, nats: dict[str, Any]) -> dict[str, Any]:
        return nats if which == "system" else claims.revoked(nats, public_key, now)

    with deployment.locked():
        tokens = sign_accounts(deployment, revoked, now)
        async with servers(deployment, url, ca) as running:
            await tell(deployment, running, tokens, now)


def is_revoked(deployment: Deployment, public_key: str, at: int) -> bool:
    """Tell whether a lender's token of that second is refused.

    Raises:
        DeploymentError: the deployment can't be read.
    """
    revocations = deployment.said()["lenders"]["nats"].get("revocations", {})
    return int(revocations.get(public_key, 0)) >= at


async def refuse_earlier(
    deployment: Deployment, url: str, ca: Path | None, public_key: str, at: int, now: float
) -> None:
    """Make a lender's tokens useless that are older than that second's, and close its connections.

    Its key lets it in by a later one; as a submitter it stays what it is. Doing it again is safe.
    The deployment is to be locked.

    Raises:
        DeploymentError, LinkError: as of `revoke`.
    """

    def refuse(which: Signed, nats: dict[str, Any]) -> dict[str, Any]:
        return claims.refused_until(nats, public_key, at - 1) if which == "lenders" else nats

    tokens = sign_accounts(deployment, refuse, now)
    async with servers(deployment, url, ca) as running:
        await tell(deployment, running, tokens, now)
