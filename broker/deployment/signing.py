"""Signs a deployment's accounts anew: written first, so that it can be told again and again."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from broker.deployment import claims, contents
from broker.deployment.claims import Signed
from broker.deployment.completion import complete, lacking
from broker.deployment.contents import Entropy
from broker.deployment.folder import Deployment
from broker.deployment.tokens import encode
from lender.protocol.permissions import Role

logger = logging.getLogger(__name__)

Claims = dict[str, Any]


def sign_accounts(
    deployment: Deployment,
    change: Callable[[Signed, Claims], Claims],
    now: float,
    anew: Collection[str] = (),
) -> list[str]:
    """Sign those accounts whose claims change, and write them down.

    A run that was cut off and is made again ends where it would have: what was not written is
    written, and all that servers may lack is returned.

    Args:
        deployment: with the operator's folder in it.
        change: returns an account's claims as they are to be.
        now: seconds since the epoch.
        anew: accounts that are signed though nothing changes.

    Returns:
        The tokens of all accounts: for the servers that run.

    Raises:
        DeploymentError: it can't be written, or the operator's folder is not there.
    """
    operator = deployment.key(contents.OPERATOR_KEY)
    tokens, said = deployment.tokens(), deployment.said()
    for name in claims.SIGNED:
        found = said[name]
        nats = change(name, found["nats"])
        if nats != found["nats"] or name in anew:
            # Of two tokens of an account servers keep the later one, by the second.
            later = max(int(now), int(found["iat"]) + 1)
            tokens[name] = encode(found["sub"], found["name"], nats, operator, later)
            deployment.replace({contents.token_file(name): f"{tokens[name]}\n"})
    config = contents.accounts_config(tokens, deployment.identities())
    for path in deployment.accounts_files():
        if config != deployment.read(path):
            deployment.replace({path: config})
    return [tokens[name] for name in claims.SIGNED]


def by_the_table(
    deployment: Deployment, signing_keys: Mapping[Role, Sequence[str]]
) -> Callable[[Signed, Claims], Claims]:
    """Return the change that brings accounts to this version's table, with these signing keys."""
    accounts = deployment.identities().accounts

    def change(which: Signed, nats: Claims) -> Claims:
        if which == "system":
            return {**nats, "imports": claims.system_account(accounts)["imports"]}
        return claims.renewed(nats, which, accounts, signing_keys)

    return change


def signing_keys(deployment: Deployment) -> dict[Role, list[str]]:
    """Return the public keys that vouch for each role, the oldest first."""
    said = deployment.said()
    return {
        role: keys
        for name in claims.ACCOUNTS
        for role, keys in claims.signing_keys_of(said[name]["nats"]).items()
    }


def is_of_another_table(deployment: Deployment) -> bool:
    """Tell whether the accounts grant other rights than this version's table."""
    if lacking(deployment):
        return True
    change = by_the_table(deployment, signing_keys(deployment))
    said = deployment.said()
    return any(change(name, said[name]["nats"]) != said[name]["nats"] for name in claims.SIGNED)


def bring_up(deployment: Deployment, entropy: Entropy, now: float) -> None:
    """Have accounts grant what this version's table says, before their server starts.

    Where the operator's key is elsewhere it is told instead: what is new is refused until then.

    Raises:
        DeploymentError: something can't be read or written.
    """
    if not is_of_another_table(deployment):
        return
    if not (deployment.folder / contents.OPERATOR_KEY).exists():
        logger.warning(
            "the accounts grant other rights than this version's table: where the operator's key "
            "is, run `lender-broker rotate --accounts`"
        )
        return
    with deployment.locked():
        complete(deployment, entropy, now)
        sign_accounts(deployment, by_the_table(deployment, signing_keys(deployment)), now)
    logger.info("the accounts were signed anew: they grant what this version's table says")
