"""What a server is told: the configuration of one that is alone, and of each of a cluster's."""

import ipaddress
import json
from collections.abc import Sequence
from pathlib import Path

from lender.link.embedded import MAX_PAYLOAD_BYTES

CERTIFICATE = "server.pem"
KEY = "server.key"
ROUTE_CERTIFICATE = "route.pem"
ROUTE_KEY = "route.key"
ROUTES_AUTHORITY = "routes-ca.pem"
ACCOUNTS = "accounts.conf"
FILE = "server.conf"


def alone(folder: Path, name: str, port: int) -> str:
    """Return the configuration of a server that has its files in this folder.

    Args:
        folder: where that is.
        name: of the fleet.
        port: for clients.
    """
    about = (
        f"# A NATS server for the fleet {name}: nats-server -c {folder / FILE}\n"
        "# For several of them: lender-broker init --cluster HOST HOST HOST (docs/deployment.md).\n"
    )
    return _server(about, f"{name}-1", port, folder, "")


def member(host: str, others: Sequence[str], name: str, port: int, route_port: int) -> str:
    """Return the configuration of one of a cluster's servers, which runs in its files' folder.

    Args:
        host: name or address by which the others and clients know it.
        others: those of the other servers.
        name: of the fleet.
        port: of each, for clients.
        route_port: of each, for the others.
    """
    about = (
        f"# The server on {host} of the cluster {name}. This folder goes there, and there:\n"
        f"#   nats-server -c {FILE}\n"
        "# in this folder, which its files are named from.\n"
    )
    routes = "".join(f"    {quoted(f'nats://{at(one, route_port)}')}\n" for one in others)
    cluster = f"""\
client_advertise: {quoted(at(host, port))}

cluster {{
  name: {quoted(name)}
  listen: "0.0.0.0:{route_port}"
  advertise: {quoted(at(host, route_port))}
  routes: [
{routes}  ]
  # A server of the cluster reads and writes everything. So none is taken for one but by a
  # certificate of an authority that vouches for nobody else.
  tls {{
    cert_file: {quoted(ROUTE_CERTIFICATE)}
    key_file: {quoted(ROUTE_KEY)}
    ca_file: {quoted(ROUTES_AUTHORITY)}
    verify: true
  }}
}}

"""
    return _server(about, host, port, Path(), cluster)


def resolver_config(folder: Path) -> str:
    """Return what has a server keep the accounts' tokens, also later ones, in a folder."""
    return f"resolver: {{ type: full, dir: {quoted(str(folder))} }}\n"


def at(host: str, port: int) -> str:
    """Return an address as URLs have it."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        version = 4
    return f"[{host}]:{port}" if version == 6 else f"{host}:{port}"


def quoted(text: str) -> str:
    """Return a text as the server's files have it."""
    return json.dumps(text, ensure_ascii=False)


def _server(about: str, server_name: str, port: int, folder: Path, cluster: str) -> str:
    return f"""\
{about}
listen: "0.0.0.0:{port}"
server_name: {quoted(server_name)}
max_payload: {MAX_PAYLOAD_BYTES}

jetstream {{
  store_dir: {quoted(str(folder / "store"))}
  # What is acknowledged survives a power cut; brokers commit many results with one sync.
  sync_interval: always
}}

tls {{
  cert_file: {quoted(str(folder / CERTIFICATE))}
  key_file: {quoted(str(folder / KEY))}
}}

{cluster}{resolver_config(folder / "store" / "accounts")}
include ./{ACCOUNTS}
"""
