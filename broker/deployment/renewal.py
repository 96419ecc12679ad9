"""Renews the certificates of a fleet's servers, while everybody stays connected."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from broker.deployment import cluster, contents, server_config
from broker.deployment.contents import Certificates
from broker.deployment.folder import Deployment, DeploymentError
from broker.deployment.rotation import Running
from broker.deployment.route_succession import check_none_waits


class _Renewed(NamedTuple):
    """A certificate that one of our authorities has issued: paths."""

    authority: str
    authority_key: str
    certificate: str
    key: str


async def renew_certificates(
    deployment: Deployment, hosts: Sequence[str], running: Running, now: float
) -> tuple[list[str], list[str]]:
    """Make new certificates for the same keys, by the same authorities, and have servers use them.

    Those are what servers show to clients, where that was not given, and to one another.

    Args:
        deployment: with the operator's folder in it, which holds the authorities' keys.
        hosts: names and addresses besides those that clients know servers by.
        running: connects with the servers.
        now: seconds since the epoch.

    Returns:
        The files that are new, and the servers that have read theirs anew. One on another machine
        needs a copy first.

    Raises:
        DeploymentError: no certificate is of ours, or something can't be read or written.
        LinkError: they are written, and no server was told; do it again.
    """
    from broker.deployment import certificates  # noqa: PLC0415 - most commands need no X.509

    with deployment.locked():
        check_none_waits(deployment)
        files: dict[str, str] = {}
        for one in _ours(deployment):
            given = Certificates(*(deployment.read(path) for path in one))
            more = hosts if one.authority == contents.AUTHORITY else ()
            try:
                files[one.certificate] = certificates.renew(given, more, now)
            except ValueError as error:
                place = deployment.folder / one.certificate
                raise DeploymentError(f"{place} can't be renewed: {error}") from error
        if not files:
            raise DeploymentError(
                f"{deployment.folder / contents.CERTIFICATE} was not made here, or the authority's "
                "key is elsewhere: put a new one in its place, then `nats-server --signal reload`"
            )
        deployment.replace(files)
        async with running() as servers:
            return list(files), await servers.reload()


def _ours(deployment: Deployment) -> Iterator[_Renewed]:
    hosts = cluster.members(deployment)
    if (deployment.folder / contents.AUTHORITY_KEY).exists():
        by = (contents.AUTHORITY, contents.AUTHORITY_KEY)
        yield _Renewed(*by, contents.CERTIFICATE, contents.CERTIFICATE_KEY)
        for host in hosts:
            names = (server_config.CERTIFICATE, server_config.KEY)
            yield _Renewed(*by, *(cluster.member_file(host, name) for name in names))
    if (deployment.folder / cluster.ROUTES_AUTHORITY_KEY).exists():
        by = (cluster.ROUTES_AUTHORITY, cluster.ROUTES_AUTHORITY_KEY)
        for host in hosts:
            names = (server_config.ROUTE_CERTIFICATE, server_config.ROUTE_KEY)
            yield _Renewed(*by, *(cluster.member_file(host, name) for name in names))
