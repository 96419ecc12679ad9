"""A new authority in place of the one that vouches for what servers show to clients."""

import datetime as dt
import ssl
from urllib.parse import urlsplit

from broker.deployment import cluster, contents, server_config
from broker.deployment.contents import Certificates, Pair
from broker.deployment.folder import Deployment, DeploymentError
from broker.deployment.rotation import Running
from lender.link.errors import LinkError
from lender.link.probe import Line, Place

NEXT = "operator/ca-next.pem"
NEXT_KEY = "operator/ca-next.key"
"""Of the authority that stands beside the old one, until that is retired."""

_LOOK_S = 5.0


def add_authority(deployment: Deployment, now: float) -> bool:
    """Make a new authority, and have `ca.pem` vouch for it too; servers stay as they are.

    Returns:
        Whether it is new; one that waits already is left as it is.

    Raises:
        DeploymentError: the deployment has no authority, or something can't be read or written.
    """
    from broker.deployment import certificates  # noqa: PLC0415 - most commands need no X.509

    with deployment.locked():
        _check_own(deployment)
        new = not (deployment.folder / NEXT).exists()
        if new:
            fleet = deployment.said()["operator"]["name"]
            since = dt.datetime.fromtimestamp(now, dt.UTC)
            made = certificates.make_authority(f"{fleet} authority {since:%Y-%m-%d %H:%M}", now)
            deployment.replace({NEXT_KEY: made.key, NEXT: made.certificate})
        known, wanted = deployment.read(contents.AUTHORITY), deployment.read(NEXT)
        if wanted not in known:
            deployment.replace({contents.AUTHORITY: known + wanted})
    return new


async def retire_authority(
    deployment: Deployment, running: Running, url: str, now: float
) -> list[str]:
    """Have servers show certificates of the new authority, and vouch for the old one no more.

    Args:
        deployment: with the operator's folder in it.
        running: connects with the servers.
        url: of all servers: each is looked at.
        now: seconds since the epoch.

    Returns:
        The servers that have read their files anew.

    Raises:
        DeploymentError: there is no new authority, a server still shows what the old one has
            issued, or something can't be read or written; `ca.pem` then vouches for both.
        LinkError: no server was told; do it again.
    """
    with deployment.locked():
        _check_own(deployment)
        if not (deployment.folder / NEXT).exists():
            raise DeploymentError(
                "no new authority waits: `lender-broker rotate --authority` first"
            )
        successor = Pair(deployment.read(NEXT), deployment.read(NEXT_KEY))
        deployment.replace(_issued(deployment, successor, now))
        async with running() as servers:
            told = await servers.reload()
        for place in _places(url):
            _check_shown(place, successor.certificate)
        deployment.replace(
            {
                contents.AUTHORITY: successor.certificate,
                contents.AUTHORITY_KEY: successor.key,
            }
        )
        for path in (NEXT, NEXT_KEY):
            deployment.remove(path)
    return told


def _issued(deployment: Deployment, authority: Pair, now: float) -> dict[str, str]:
    """The certificates of servers that the authority has not issued yet, for the same keys."""
    from broker.deployment import certificates  # noqa: PLC0415 - most commands need no X.509

    paths = [(contents.CERTIFICATE, contents.CERTIFICATE_KEY)]
    for host in cluster.members(deployment):
        names = (server_config.CERTIFICATE, server_config.KEY)
        paths.append((cluster.member_file(host, names[0]), cluster.member_file(host, names[1])))
    files: dict[str, str] = {}
    for path, key_path in paths:
        shown, key = deployment.read(path), deployment.read(key_path)
        try:
            if not certificates.vouches(authority.certificate, shown):
                given = Certificates(*authority, shown, key)
                files[path] = certificates.renew(given, (), now)
        except ValueError as error:
            raise DeploymentError(f"{deployment.folder / path}: {error}") from error
    return files


def _check_own(deployment: Deployment) -> None:
    deployment.key(contents.OPERATOR_KEY)  # else that folder is elsewhere, and with it the key
    if not (deployment.folder / contents.AUTHORITY_KEY).exists():
        raise DeploymentError(
            "the server's certificate was given: its authority is not ours. A later one goes into "
            f"{deployment.folder / contents.AUTHORITY}, besides the one that is there"
        )


def _places(url: str) -> list[Place]:
    found = (urlsplit(part.strip()) for part in url.split(","))
    return [Place(one.hostname or "", *((one.port,) if one.port else ())) for one in found]


def _check_shown(place: Place, authority: str) -> None:
    """See that a server shows what this authority has issued.

    Raises:
        DeploymentError: it does not.
    """
    try:
        with Line(place, _LOOK_S) as line:
            line.open(line.resolve())
            line.greet()
            line.secure(ssl.create_default_context(cadata=authority))
    except (LinkError, ssl.SSLError) as error:
        raise DeploymentError(
            f"{place} shows no certificate of the new authority ({error}): copy its folder there, "
            "nats-server --signal reload, then do this again; until then both are vouched for"
        ) from error
