"""`lender-broker rotate`: new keys in place of old ones, while everybody stays connected."""

import argparse
import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from broker.deployment import claims, contents
from broker.deployment.folder import Deployment, DeploymentError
from broker.deployment.open_routes import warning
from broker.deployment.overseer import renew_overseer
from broker.deployment.renewal import renew_certificates
from broker.deployment.rotation import Running, StillUsed, retire, rotate, still_used
from broker.deployment.route_succession import (
    add_routes_authority,
    issue_route_certificates,
    retire_routes_authority,
)
from broker.deployment.servers import servers
from broker.deployment.succession import add_authority, retire_authority
from lender.protocol.permissions import Role

ROTATED: tuple[Role, ...] = tuple(role for role in claims.ROLES if role != "stranger")
"""What lets strangers ask is public: there is nothing to keep from anybody."""

_TOLD_MAX = 20

_BESIDE = """\
{folder}/ca.pem vouches for a new authority besides the old one; servers are as they were
next: a broker on another machine gets that ca.pem; lenderd fetches it within the hour, submitters'
commands within a day, and at once by: lender enroll --renew URL; when all have it:
  lender-broker rotate --authority --retire --yes --url (of all servers, with commas) --ca ca.pem"""

_ROUTES = """\
{what}
next: copy {folder}/cluster/HOST to each of {hosts},
  and there: nats-server --signal reload
{then}"""

_VOUCHED = (
    "servers are to vouch for a new authority of routes, too",
    "  only when all have: lender-broker rotate --routes --retire",
)
_ISSUED = (
    "servers have new keys and certificates for routes, by the new authority; they vouch for both",
    "  only when all have: lender-broker rotate --routes --retire --yes",
)
_RETIRED = (
    "the old authority of routes vouches for nobody any more",
    "  until then a server takes what the old one has issued for a server of the cluster",
)

_ASK = """\
who has not fetched the {folder}/ca.pem of both authorities is cut off by this, as soon as he
connects anew, and gets the new one by hand then: if all have it, add --yes"""


def configure(parser: argparse.ArgumentParser, ca_help: str) -> None:
    """Declare the options."""
    parser.description = (
        "Have new keys vouch for brokers, lenders, submitters and observers. What the old keys "
        "have signed stays good until --retire. Cut off, it is completed by doing it again. It "
        "also brings the accounts' rights to the table of this version."
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--accounts", action="store_true", help="change no key: bring the rights up, nothing else"
    )
    what.add_argument(
        "--retire", action="store_true", help="what old keys have signed lets nobody in any more"
    )
    what.add_argument(
        "--tls", action="store_true", help="renew certificates of servers, by the own authorities"
    )
    what.add_argument(
        "--system",
        action="store_true",
        help="new credentials for the operator's own word to servers; no earlier ones count",
    )
    parser.add_argument(
        "--authority",
        action="store_true",
        help="put a new authority beside the own one that vouches for servers to clients; with "
        "--retire: have servers show certificates of the new one, and the old one vouch no more",
    )
    parser.add_argument(
        "--routes",
        action="store_true",
        help="the same for what a cluster's servers show to one another, in three steps: this, "
        "with --retire, and with --retire --yes",
    )
    parser.add_argument("--role", nargs="+", choices=ROTATED, help="of these alone (of all)")
    parser.add_argument(
        "--yes", action="store_true", help="with --retire: also cut who is connected by an old key"
    )
    parser.add_argument(
        "--host", nargs="+", dest="hosts", metavar="HOST", default=[], help="with --tls: also for"
    )
    parser.add_argument("--url", help="NATS server of the fleet")
    parser.add_argument("--ca", type=Path, metavar="FILE", help=ca_help)


def run(
    arguments: argparse.Namespace,
    deployment: Deployment,
    url: str,
    ca: Path | None,
    entropy: Callable[[int], bytes],
    now: float,
) -> str:
    """Do it, and return what to tell of it.

    Raises:
        DeploymentError: it can't be done; says why, and what to do.
        LinkError: it is written, and not all servers know it; do it again.
    """
    if arguments.hosts and not arguments.tls:
        raise DeploymentError("--host is for --tls")
    if arguments.yes and not arguments.retire:
        raise DeploymentError("--yes is for --retire")

    def running() -> Any:  # noqa: ANN401 - a context manager of Servers
        return servers(deployment, url, ca)

    if arguments.routes:
        return _succeed_routes(arguments, deployment, now)
    if arguments.authority:
        return _succeed(arguments, deployment, url, running, now)
    roles = tuple(arguments.role or ROTATED)
    if arguments.tls:
        return asyncio.run(_renew(deployment, arguments.hosts, running, now))
    if arguments.system:
        asyncio.run(renew_overseer(deployment, running, entropy, now))
        return f"{deployment.system_credentials} is new; copies of the old one are worth nothing"
    if arguments.retire:
        return asyncio.run(_retire(deployment, roles, running, now, cut=arguments.yes))
    return _rotate(deployment, () if arguments.accounts else roles, running, entropy, now)


def _rotate(
    deployment: Deployment,
    roles: Sequence[Role],
    running: Running,
    entropy: Callable[[int], bytes],
    now: float,
) -> str:
    done = asyncio.run(rotate(deployment, roles, running, entropy, now))
    if not done:
        said = "the accounts have the rights of this version's table; no key was changed"
        return "\n".join([said, *asyncio.run(_open(running))])
    return f"""\
new keys vouch for: {", ".join(done)}; nobody was disconnected
a broker on another machine needs the folder {deployment.folder / "broker"} anew
next, when all have new tokens: lender-broker rotate --retire"""


async def _open(running: Running) -> list[str]:
    """Tell of servers that run with a port of routes for everybody, wherever their files are."""
    async with running() as speaking:
        return [warning(_printable(name)) for name in await speaking.open_to_servers()]


def _succeed(
    arguments: argparse.Namespace, deployment: Deployment, url: str, running: Running, now: float
) -> str:
    if _is_of_roles(arguments):
        raise DeploymentError("--authority goes with --retire, and with nothing else")
    if not arguments.retire:
        add_authority(deployment, now)
        return _BESIDE.format(folder=deployment.folder)
    if not arguments.yes:
        raise DeploymentError(_ASK.format(folder=deployment.folder))
    told = asyncio.run(retire_authority(deployment, running, url, now))
    place = deployment.folder / contents.AUTHORITY
    return f"read anew by: {', '.join(told)}; {place} is the new one's alone"


def _succeed_routes(arguments: argparse.Namespace, deployment: Deployment, now: float) -> str:
    if _is_of_roles(arguments) or arguments.authority:
        raise DeploymentError("--routes goes with --retire, and with nothing else")
    if not arguments.retire:
        hosts, (what, then) = add_routes_authority(deployment, now), _VOUCHED
    elif not arguments.yes:
        hosts, (what, then) = issue_route_certificates(deployment, now), _ISSUED
    else:
        hosts, (what, then) = retire_routes_authority(deployment), _RETIRED
    return _ROUTES.format(what=what, folder=deployment.folder, hosts=", ".join(hosts), then=then)


def _is_of_roles(arguments: argparse.Namespace) -> bool:
    """Whether something is asked for that concerns no authority."""
    return bool(arguments.tls or arguments.accounts or arguments.system or arguments.role)


async def _renew(deployment: Deployment, hosts: Sequence[str], running: Running, now: float) -> str:
    files, told = await renew_certificates(deployment, hosts, running, now)
    new = "\n".join(f"  {path}" for path in files)
    return f"""\
new in {deployment.folder}, for the same keys:
{new}
read anew by: {", ".join(told)}
a server elsewhere needs a copy first: then, there, nats-server --signal reload"""


async def _retire(
    deployment: Deployment, roles: Sequence[Role], running: Running, now: float, *, cut: bool
) -> str:
    async with running() as speaking:
        users = await still_used(deployment, roles, speaking)
        if users and not cut:
            raise DeploymentError(
                f"connected by a token of an old key:\n{_listed(users)}\n"
                "let them have new tokens first, or cut them: --retire --yes"
            )
        count = await retire(deployment, roles, speaking, now)
    gone = f", and let go:\n{_listed(users)}" if users else ""
    return f"old keys that vouch for nobody any more: {count}{gone}"


def _listed(users: Sequence[StillUsed]) -> str:
    lines = [
        f"  {role} {_printable(user.called)} {user.authorized_user} {user.ip}"
        for role, user in users[:_TOLD_MAX]
    ]
    more = len(users) - _TOLD_MAX
    return "\n".join([*lines, f"  and {more} more"] if more > 0 else lines)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
