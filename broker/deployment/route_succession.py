"""A new authority in place of the one that vouches for servers of a cluster to one another.

Three steps, after each of which every server gets its folder's files and reads them anew: all vouch
for both, then all show certificates of the new one, then the old one vouches no more. Which step is
due nobody can see from here, since only servers reach the port of routes: the operator says so.
"""

from broker.deployment import cluster, server_config
from broker.deployment.contents import Pair
from broker.deployment.folder import Deployment, DeploymentError

NEXT = "operator/routes-ca-next.pem"
NEXT_KEY = "operator/routes-ca-next.key"
"""Of the authority that stands beside the old one, until that is retired."""


def check_none_waits(deployment: Deployment) -> None:
    """See that no new authority of routes waits, beside which an old one is to issue nothing.

    Raises:
        DeploymentError: one does.
    """
    if (deployment.folder / NEXT).exists():
        raise DeploymentError(
            "a new authority of routes waits: complete that first, by "
            "lender-broker rotate --routes --retire, and again with --yes"
        )


def add_routes_authority(deployment: Deployment, now: float) -> list[str]:
    """Make a new authority, and have each server's folder vouch for it too; it issues nothing yet.

    Returns:
        The hosts of the servers. Done again, it changes nothing.

    Raises:
        DeploymentError: there is no cluster, or something can't be read or written.
    """
    from broker.deployment import certificates  # noqa: PLC0415 - most commands need no X.509

    with deployment.locked():
        hosts = _hosts(deployment)
        if not (deployment.folder / NEXT).exists():
            fleet = deployment.said()["operator"]["name"]
            made = certificates.make_authority(f"{fleet} routes", now)
            # The certificate last: without it, both are made anew.
            deployment.replace({NEXT_KEY: made.key, NEXT: made.certificate})
        old, new = deployment.read(cluster.ROUTES_AUTHORITY), deployment.read(NEXT)
        _vouch(deployment, hosts, old + new)
    return hosts


def issue_route_certificates(deployment: Deployment, now: float) -> list[str]:
    """Make each server a new key, and a certificate for it by the new authority.

    Returns:
        The hosts of the servers. One that has it already keeps it: it may be there by now.

    Raises:
        DeploymentError: no new authority waits, or something can't be read or written.
    """
    from broker.deployment import certificates, cluster_files  # noqa: PLC0415 - as above

    with deployment.locked():
        hosts, successor = _hosts(deployment), _waiting(deployment)
        for host in hosts:
            if not _is_issued(deployment, host):
                name = cluster_files.route_name(host)
                made = certificates.issue(successor, name, [host], now, calls=True)
                deployment.replace(
                    {
                        cluster.member_file(host, server_config.ROUTE_KEY): made.key,
                        cluster.member_file(host, server_config.ROUTE_CERTIFICATE): (
                            made.certificate
                        ),
                    }
                )
    return hosts


def retire_routes_authority(deployment: Deployment) -> list[str]:
    """Have each server's folder vouch for the new authority alone.

    Returns:
        The hosts of the servers.

    Raises:
        DeploymentError: a server has no certificate by the new one, or something can't be read or
            written.
    """
    with deployment.locked():
        hosts, successor = _hosts(deployment), _waiting(deployment)
        if missing := [host for host in hosts if not _is_issued(deployment, host)]:
            raise DeploymentError(
                f"{', '.join(missing)} has no certificate of the new authority: "
                "`lender-broker rotate --routes --retire` first, without --yes"
            )
        _vouch(deployment, hosts, successor.certificate)
        deployment.replace(
            {
                cluster.ROUTES_AUTHORITY_KEY: successor.key,
                cluster.ROUTES_AUTHORITY: successor.certificate,
            }
        )
        for path in (NEXT, NEXT_KEY):
            deployment.remove(path)
    return hosts


def _hosts(deployment: Deployment) -> list[str]:
    hosts = cluster.members(deployment)
    if not hosts:
        raise DeploymentError("--routes: this deployment has no cluster")
    deployment.read(cluster.ROUTES_AUTHORITY_KEY)  # the operator's folder is here
    return hosts


def _waiting(deployment: Deployment) -> Pair:
    if not (deployment.folder / NEXT).exists():
        raise DeploymentError("no new authority waits: `lender-broker rotate --routes` first")
    return Pair(deployment.read(NEXT), deployment.read(NEXT_KEY))


def _is_issued(deployment: Deployment, host: str) -> bool:
    from broker.deployment import certificates  # noqa: PLC0415 - as above

    path = cluster.member_file(host, server_config.ROUTE_CERTIFICATE)
    try:
        return certificates.vouches(deployment.read(NEXT), deployment.read(path))
    except ValueError as error:
        raise DeploymentError(f"{deployment.folder / path}: {error}") from error


def _vouch(deployment: Deployment, hosts: list[str], authorities: str) -> None:
    deployment.replace(
        {cluster.member_file(one, server_config.ROUTES_AUTHORITY): authorities for one in hosts}
    )
