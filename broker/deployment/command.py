"""`lender-broker init`: makes what a fleet is let in by."""

import argparse
import re
import socket
from collections.abc import Callable
from pathlib import Path

from broker.deployment import cluster, contents, server_config
from broker.deployment.cluster import Ports
from broker.deployment.contents import Certificates
from broker.deployment.folder import Deployment, DeploymentError
from broker.deployment.open_routes import open_routes, warning

STORE_BYTES_MIN = 1 << 26

_MADE = """\
{folder} holds a new deployment. All of it is for your eyes only:
  operator/  changes everything and revokes: keep it elsewhere once the server runs
  broker/    lets the broker in, and lets it admit lenders and submitters
  server/    for nats-server; with `lender-broker serve --embedded` it needs no more"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Make keys, accounts, certificates and a server's configuration. Run again, it changes "
        "nothing that stands. Whoever holds its folder `operator` can change everything: keep that "
        "elsewhere."
    )
    parser.add_argument(
        "--name", type=_name, default="fleet", help="of the fleet, for people (%(default)s)"
    )
    parser.add_argument(
        "--host",
        nargs="+",
        dest="hosts",
        metavar="HOST",
        default=[],
        help="names and addresses by which others reach the server, for its certificate",
    )
    parser.add_argument(
        "--store-bytes",
        type=int,
        metavar="N",
        help="what jobs, results and contents together may take on disk (what the server has)",
    )
    parser.add_argument(
        "--cluster",
        nargs="+",
        metavar="HOST",
        default=[],
        help="names or addresses of a cluster's servers: also make a folder for each, or for more",
    )
    parser.add_argument(
        "--route-port",
        type=int,
        default=cluster.ROUTE_PORT,
        help="by which a cluster's servers reach one another (%(default)s)",
    )
    parser.add_argument("--cert", type=Path, help="a certificate for TLS, instead of an own one")
    parser.add_argument("--cert-key", type=Path, help="its private key")


def run(
    arguments: argparse.Namespace,
    deployment: Deployment,
    port: int,
    entropy: Callable[[int], bytes],
    now: float,
) -> str:
    """Make it, and return what to tell of it.

    Raises:
        DeploymentError: it can't be made.
    """
    hosts = cluster.everyone(deployment, arguments.cluster) if arguments.cluster else []
    made = not deployment.exists
    if made:
        _make(arguments, deployment, port, entropy, now)
    deployment.identities()  # it can be used
    ports = Ports(port, arguments.route_port)
    added = cluster.complete_cluster(deployment, hosts, ports, now)
    told = [_told(deployment, ports, made=made, added=added)]
    told += [warning(str(path)) for path in open_routes(deployment)]
    return "\n".join(told)


def _make(
    arguments: argparse.Namespace,
    deployment: Deployment,
    port: int,
    entropy: Callable[[int], bytes],
    now: float,
) -> None:
    if arguments.store_bytes is not None and arguments.store_bytes < STORE_BYTES_MIN:
        raise DeploymentError(f"--store-bytes: at least {STORE_BYTES_MIN}, or leave it out")
    made = _certificates(arguments, now)
    files = contents.new_deployment(
        deployment.folder, arguments.name, port, made, entropy, now, arguments.store_bytes
    )
    deployment.write(files)


def _told(deployment: Deployment, ports: Ports, *, made: bool, added: list[str]) -> str:
    folder = deployment.folder
    if not made and not added:
        return f"{folder} is a deployment already: nothing was changed"
    lines = [_MADE.format(folder=folder)] if made else [f"{folder}: what stood stays as it was"]
    lines += [f"  {contents.CLUSTER_FOLDER}/{host}/  goes to {host}" for host in added]
    if added:
        hosts = cluster.members(deployment)
        urls = ",".join(f"nats://{server_config.at(host, ports.clients)}" for host in hosts)
        lines.append("next, on each of these machines, in its folder: nats-server -c server.conf")
        lines.append(f"  then: lender-broker serve --url {urls} (replicas = 3 in broker.toml)")
    else:
        lines.append("next: lender-broker serve --embedded")
        lines.append(f"  or: nats-server -c {folder / contents.SERVER_FILE}")
    return "\n".join(lines)


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,31}", text):
        raise argparse.ArgumentTypeError("use up to 32 letters, digits and -")
    return text


def _certificates(arguments: argparse.Namespace, now: float) -> Certificates:
    if (arguments.cert is None) != (arguments.cert_key is None):
        raise DeploymentError("--cert and --cert-key go together: name both, or neither")
    if arguments.cert is None:
        try:
            # Most brokers never make one: only this command needs it.
            from broker.deployment import certificates  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise DeploymentError(
                f"{error}; pip install 'lender[server]', or name --cert and --cert-key"
            ) from error
        hosts = dict.fromkeys((*contents.HERE, socket.gethostname(), *arguments.hosts))
        try:
            return certificates.make(arguments.name, tuple(hosts), now)
        except ValueError as error:
            raise DeploymentError(f"--host: {error}; a name or an address is wanted") from error
    try:
        given = arguments.cert.read_text(), arguments.cert_key.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DeploymentError(f"can't read the certificate: {error}") from error
    return Certificates("", "", *given)
