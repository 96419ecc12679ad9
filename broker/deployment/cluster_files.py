"""What lies in the folder of a cluster's server: certificates, and the accounts."""

from broker.deployment import certificates, contents, server_config
from broker.deployment.contents import Pair
from broker.deployment.folder import Deployment

_NAME_CHARS_MAX = 64
"""Of a certificate's name for people (RFC 5280, ub-common-name)."""


def member_files(deployment: Deployment, host: str, authority: Pair, now: float) -> dict[str, str]:
    """Return a server's files by name, without its configuration.

    Args:
        deployment: with the operator's folder in it.
        host: by which clients and other servers know it.
        authority: of routes.
        now: seconds since the epoch.

    Raises:
        DeploymentError: something can't be read.
    """
    shown = _for_clients(deployment, host, now)
    route = certificates.issue(authority, route_name(host), [host], now, calls=True)
    return {
        server_config.CERTIFICATE: shown.certificate,
        server_config.KEY: shown.key,
        server_config.ROUTE_CERTIFICATE: route.certificate,
        server_config.ROUTE_KEY: route.key,
        server_config.ROUTES_AUTHORITY: authority.certificate,
        server_config.ACCOUNTS: deployment.read(contents.ACCOUNTS_FILE),
    }


def route_name(host: str) -> str:
    """Return what people read in the certificate that a server shows to others."""
    return f"route {host}"[:_NAME_CHARS_MAX]


def routes_authority(deployment: Deployment, path: str, key_path: str, now: float) -> Pair:
    """Return the authority that vouches for servers to one another, made where there is none.

    Raises:
        DeploymentError: it can't be read or written, or the operator's folder is not there.
    """
    if not (deployment.folder / path).exists():
        deployment.key(contents.OPERATOR_KEY)  # what is the operator's stays together
        fleet = deployment.said()["operator"]["name"]
        made = certificates.make_authority(f"{fleet} routes", now)
        # The certificate last: without it, both are made anew.
        deployment.replace({key_path: made.key, path: made.certificate})
    return Pair(deployment.read(path), deployment.read(key_path))


def _for_clients(deployment: Deployment, host: str, now: float) -> Pair:
    """What a server shows to clients: by the deployment's authority, or as it was given."""
    if not (deployment.folder / contents.AUTHORITY_KEY).exists():
        paths = (contents.CERTIFICATE, contents.CERTIFICATE_KEY)
        return Pair(*(deployment.read(path) for path in paths))
    authority = Pair(deployment.read(contents.AUTHORITY), deployment.read(contents.AUTHORITY_KEY))
    hosts = dict.fromkeys((host, *contents.HERE))
    return certificates.issue(authority, f"server {host}"[:_NAME_CHARS_MAX], list(hosts), now)
