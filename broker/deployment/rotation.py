"""Changes the keys that vouch for each role, while everybody stays connected.

A new key stands beside the old one in the account, servers are told, and only then anything is
signed by it. The old one stays good for what it has signed until it is retired. What was begun is
written down first, and done again it is completed: see `rotate`.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from broker.deployment import contents
from broker.deployment.completion import complete
from broker.deployment.contents import Entropy
from broker.deployment.folder import Deployment, DeploymentError
from broker.deployment.server_words import User
from broker.deployment.servers import Servers
from broker.deployment.signing import by_the_table, sign_accounts, signing_keys
from broker.deployment.telling import tell
from broker.deployment.tokens import ENTROPY_BYTES, Key, TokenError
from lender.link.credentials import SEED_LINE, credentials, part_of
from lender.protocol.permissions import HOME, Role

BEGUN = "operator/rotation.json"
"""The new keys' seeds by role, from when a rotation begins until it is done."""

Running = Callable[[], AbstractAsyncContextManager[Servers]]
"""Connects with the servers that run."""


class StillUsed(NamedTuple):
    """One who is connected by a token that an old key has signed."""

    role: Role
    user: User


async def rotate(
    deployment: Deployment,
    roles: Iterable[Role],
    running: Running,
    entropy: Entropy,
    now: float,
) -> tuple[Role, ...]:
    """Have a new key vouch for each of these roles, and bring accounts to this version's table.

    Where an earlier rotation was cut off, that one is completed, and no other is begun.

    Args:
        deployment: with the operator's folder in it.
        roles: whose key changes; none: the table alone is brought up.
        running: connects with the servers.
        entropy: returns so many random bytes.
        now: seconds since the epoch.

    Returns:
        The roles whose key has changed.

    Raises:
        DeploymentError: something can't be read or written; what there was holds.
        LinkError: it is written, and not all servers know it; do it again.
    """
    with deployment.locked():
        complete(deployment, entropy, now)
        begun = _begun(deployment)
        if not begun:
            begun = {role: Key.make("account", entropy(ENTROPY_BYTES)) for role in roles}
        if begun:
            seeds = {role: key.seed.decode() for role, key in begun.items()}
            deployment.replace({BEGUN: f"{json.dumps(seeds)}\n"})
        keys = signing_keys(deployment)
        for role, key in begun.items():
            if key.public not in (known := keys.setdefault(role, [])):
                known.append(key.public)
        tokens = sign_accounts(deployment, by_the_table(deployment, keys), now)
        async with running() as servers:
            await tell(deployment, servers, tokens, now)
        # From here on the servers know them, and what they sign is taken everywhere.
        deployment.replace(_signed(deployment, begun, now))
        deployment.remove(BEGUN)
    return tuple(begun)


async def still_used(
    deployment: Deployment, roles: Iterable[Role], servers: Servers
) -> list[StillUsed]:
    """Return who is connected by a token of an old key of these roles.

    Who is away just now is not among them: nobody knows whether he comes back.
    """
    accounts = deployment.identities().accounts
    old = _old(deployment, roles)
    homes = dict.fromkeys(HOME[role] for role in old)
    users = [user for home in homes for user in await servers.users(accounts[home])]
    return [
        StillUsed(role, user)
        for role, keys in old.items()
        for user in users
        if user.issuer_key in keys
    ]


async def retire(
    deployment: Deployment, roles: Iterable[Role], servers: Servers, now: float
) -> int:
    """Let nobody in any more by what the old keys of these roles have signed, and cut who is.

    Args:
        deployment: with the operator's folder in it.
        roles: whose old keys.
        servers: that run.
        now: seconds since the epoch.

    Returns:
        How many keys were retired now.

    Raises:
        DeploymentError: a rotation was cut off, or something can't be read or written.
        LinkError: it is written, and not all servers know it; do it again.
    """
    with deployment.locked():
        if _begun(deployment):
            raise DeploymentError(
                "a rotation was cut off: complete it by `lender-broker rotate`, then retire"
            )
        old = _old(deployment, roles)
        keys = {
            role: [key for key in known if key not in old.get(role, ())]
            for role, known in signing_keys(deployment).items()
        }
        tokens = sign_accounts(deployment, by_the_table(deployment, keys), now)
        await tell(deployment, servers, tokens, now)
    return sum(len(one) for one in old.values())


def _old(deployment: Deployment, roles: Iterable[Role]) -> dict[Role, list[str]]:
    """The keys of each role but the last, which signs."""
    keys = signing_keys(deployment)
    return {role: keys[role][:-1] for role in roles if len(keys.get(role, ())) > 1}


def _begun(deployment: Deployment) -> dict[Role, Key]:
    """The new keys of a rotation that was cut off; empty where none was.

    Raises:
        DeploymentError: it can't be read.
    """
    if not (deployment.folder / BEGUN).exists():
        return {}
    try:
        seeds: Mapping[Role, str] = json.loads(deployment.read(BEGUN))
        return {role: Key(seed.encode()) for role, seed in seeds.items() if role in HOME}
    except (ValueError, AttributeError, RecursionError, TokenError) as error:
        raise DeploymentError(
            f"{deployment.folder / BEGUN} is damaged: remove it, and rotate again"
        ) from error


def _signed(deployment: Deployment, begun: Mapping[Role, Key], now: float) -> dict[str, str]:
    """What is to be written once servers know the new keys."""
    files = {
        contents.signing_key_file(role): f"{key.seed.decode()}\n" for role, key in begun.items()
    }
    if "broker" in begun:
        files[contents.BROKER_CREDENTIALS] = _brokers(deployment, begun["broker"], now)
    return files


def _brokers(deployment: Deployment, signing: Key, now: float) -> str:
    """The broker's credentials: the same key, by a token of the new one's."""
    text = deployment.read(contents.BROKER_CREDENTIALS)
    try:
        key = Key(part_of(text, SEED_LINE).encode())
        accounts = deployment.identities().accounts
        token = contents.user_token(key.public, "broker", "broker", signing, accounts, (), now)
    except (IndexError, TokenError) as error:
        place = deployment.broker_credentials
        raise DeploymentError(f"{place} is damaged: restore it, and rotate again") from error
    return credentials(token, key.seed)
