"""A folder for each server of a cluster: all that its machine needs, and nothing of the operator's.

Whoever is taken for a server of a cluster reads and writes everything, whatever tokens say: no
permission applies to it. So routes have an authority of their own, whose key the operator keeps,
and which vouches for these servers and nobody else: neither a server's certificate for clients nor
one of any other authority opens the port of routes.
"""

import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple

from broker.deployment import contents, server_config
from broker.deployment.folder import Deployment, DeploymentError

ROUTES_AUTHORITY = "operator/routes-ca.pem"
ROUTES_AUTHORITY_KEY = "operator/routes-ca.key"
ROUTE_PORT = 6222
SIZE_MIN = 3
"""Of two, neither may be lost: streams need more than half of all."""

_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")


class Ports(NamedTuple):
    """Of each server of a cluster."""

    clients: int
    routes: int


def member_file(host: str, name: str) -> str:
    """Return where a file of a server stands."""
    return f"{contents.CLUSTER_FOLDER}/{host}/{name}"


def members(deployment: Deployment) -> list[str]:
    """Return the hosts of those servers that have their folder."""
    found = (deployment.folder / contents.CLUSTER_FOLDER).glob(f"*/{server_config.FILE}")
    return sorted(path.parent.name for path in found)


def everyone(deployment: Deployment, hosts: Sequence[str]) -> list[str]:
    """Return the hosts of all servers there are to be: those that have their folder, and these.

    Raises:
        DeploymentError: one is no host, or they are too few.
    """
    found = list(dict.fromkeys((*members(deployment), *map(_host, hosts))))
    if len(found) < SIZE_MIN:
        raise DeploymentError(
            f"--cluster: name at least {SIZE_MIN} servers; of fewer, none may be lost"
        )
    return found


def complete_cluster(
    deployment: Deployment, hosts: Sequence[str], ports: Ports, now: float
) -> list[str]:
    """Make the folder of each of these servers that has none yet; what stands stays as it is.

    A later server knows the earlier ones, and they hear of it from one another. A folder's
    configuration is written last: cut off, it is done anew.

    Args:
        deployment: with the operator's folder in it.
        hosts: of all servers; see `everyone`.
        ports: of each.
        now: seconds since the epoch.

    Returns:
        The hosts whose folder is new.

    Raises:
        DeploymentError: something can't be read or written.
    """
    known = members(deployment)
    new = [one for one in hosts if one not in known]
    if not new:
        return []
    try:
        # Most commands need no X.509.
        from broker.deployment import cluster_files, route_succession  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise DeploymentError(f"--cluster: {error}; pip install 'lender[server]'") from error
    with deployment.locked():
        route_succession.check_none_waits(deployment)
        authority = cluster_files.routes_authority(
            deployment, ROUTES_AUTHORITY, ROUTES_AUTHORITY_KEY, now
        )
        for host in new:
            others = [one for one in hosts if one != host]
            config = server_config.member(host, others, _fleet(deployment), *ports)
            files = cluster_files.member_files(deployment, host, authority, now)
            files[server_config.FILE] = config
            deployment.replace({member_file(host, name): text for name, text in files.items()})
    return new


def _fleet(deployment: Deployment) -> str:
    return str(deployment.said()["operator"]["name"])


def _host(text: str) -> str:
    """Return a host as folders and certificates have it.

    Raises:
        DeploymentError: it is none.
    """
    host = text.lower().rstrip(".")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        if not _NAME.fullmatch(host):
            raise DeploymentError(
                f"--cluster: {text!r} is no host: a name or an address is wanted, without a port"
            ) from None
    return host
