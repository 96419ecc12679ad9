"""Renews the certificate of a fleet's servers, while everybody stays connected."""

from collections.abc import Sequence

from broker.deployment import contents
from broker.deployment.contents import Certificates
from broker.deployment.folder import Deployment, DeploymentError
from broker.deployment.rotation import Running


async def renew_certificate(
    deployment: Deployment, hosts: Sequence[str], running: Running, now: float
) -> list[str]:
    """Make a new certificate for the same key, by the same authority, and have servers use it.

    Args:
        deployment: with the operator's folder in it, which holds the authority's key.
        hosts: names and addresses besides those that it is for.
        running: connects with the servers.
        now: seconds since the epoch.

    Returns:
        The servers that have read their files anew. One on another machine needs a copy first.

    Raises:
        DeploymentError: the certificate is not of ours, or something can't be read or written.
        LinkError: it is written, and no server was told; do it again.
    """
    from broker.deployment import certificates  # noqa: PLC0415 - most commands need no X.509

    with deployment.locked():
        if not (deployment.folder / contents.AUTHORITY_KEY).exists():
            raise DeploymentError(
                f"{deployment.folder / contents.CERTIFICATE} was not made here, or the authority's "
                "key is elsewhere: put a new one in its place, then `nats-server --signal reload`"
            )
        paths = (
            contents.AUTHORITY,
            contents.AUTHORITY_KEY,
            contents.CERTIFICATE,
            contents.CERTIFICATE_KEY,
        )
        given = Certificates(*(deployment.read(path) for path in paths))
        try:
            made = certificates.renew(given, hosts, now)
        except ValueError as error:
            raise DeploymentError(f"the certificate can't be renewed: {error}") from error
        deployment.replace({contents.CERTIFICATE: made})
        async with running() as servers:
            return await servers.reload()
