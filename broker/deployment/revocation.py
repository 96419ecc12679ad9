"""Takes back what a key was let in by: at once, on every server, and for good."""

import json
from pathlib import Path
from typing import Any

from broker.deployment import claims, contents
from broker.deployment.folder import Deployment, DeploymentError
from broker.deployment.tokens import decode, encode
from lender.link.connection import Connection, connect

UPDATE = "$SYS.REQ.CLAIMS.UPDATE"

_CONNECT_S = 5.0
_ANSWER_S = 5.0
_OK = 200


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
    operator = deployment.key(contents.OPERATOR_KEY)
    tokens = deployment.tokens()
    changed: dict[str, str] = {}
    for name in claims.ACCOUNTS:
        found = decode(tokens[name])
        nats = claims.revoked(found["nats"], public_key, now)
        changed[name] = encode(found["sub"], found["name"], nats, operator, now)
    tokens |= changed
    deployment.replace(
        {
            contents.ACCOUNTS_FILE: contents.accounts_config(tokens, deployment.identities()),
            **{contents.token_file(name): f"{token}\n" for name, token in changed.items()},
        }
    )
    await _tell(deployment, url, ca, list(changed.values()))


async def _tell(deployment: Deployment, url: str, ca: Path | None, tokens: list[str]) -> None:
    connection = await connect(
        url,
        name="lender-broker revoke",
        credentials=deployment.system_credentials,
        ca=ca,
        timeout_s=_CONNECT_S,
    )
    async with connection:
        for token in tokens:
            await _update(connection, token)


async def _update(connection: Connection, token: str) -> None:
    msg = await connection.request(UPDATE, token.encode(), timeout_s=_ANSWER_S)
    said: dict[str, Any] = json.loads(msg.data)
    if said.get("data", {}).get("code") != _OK:
        fault = said.get("error", {}).get("description", said)
        raise DeploymentError(f"the server did not take it: {fault}; see the server's log")
