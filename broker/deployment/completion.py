"""Makes what a later version's deployment has and an older one lacks: accounts, and their keys."""

from broker.deployment import claims, contents
from broker.deployment.contents import Entropy
from broker.deployment.folder import Deployment
from broker.deployment.tokens import ENTROPY_BYTES, Key, decode, encode
from lender.protocol.permissions import HOME, Account


def lacking(deployment: Deployment) -> list[Account]:
    """Return the accounts that there are none of."""
    folder = deployment.folder
    return [one for one in claims.ACCOUNTS if not (folder / contents.token_file(one)).exists()]


def complete(deployment: Deployment, entropy: Entropy, now: float) -> bool:
    """Make the accounts that are lacking, with keys that vouch for the roles in them.

    What others give to them is for `signing.sign_accounts`. An account's token is written last:
    cut off, it is done anew.

    Returns:
        Whether there were any: servers that run read who strangers are when they start.

    Raises:
        DeploymentError: something can't be read or written.
    """
    new = lacking(deployment)
    if not new:
        return False
    operator = deployment.key(contents.OPERATOR_KEY)
    accounts: dict[Account, str] = {
        name: Key.make("account", entropy(ENTROPY_BYTES)).public
        if name in new
        else decode(deployment.read(contents.token_file(name)).strip())["sub"]
        for name in claims.ACCOUNTS
    }
    signing = {
        role: Key.make("account", entropy(ENTROPY_BYTES))
        for role in claims.ROLES
        if HOME[role] in new
    }
    files = {
        contents.signing_key_file(role): f"{key.seed.decode()}\n" for role, key in signing.items()
    }
    if (stranger := signing.get("stranger")) is not None:
        sentinel = Key.make("user", entropy(ENTROPY_BYTES)).public
        asks = contents.user_token(sentinel, "stranger", "stranger", stranger, accounts, (), now)
        files[contents.token_file(contents.SENTINEL)] = f"{asks}\n"
    public = {role: key.public for role, key in signing.items()}
    for name in new:
        nats = claims.account(name, accounts, public)
        token = encode(accounts[name], name, nats, operator, now)
        files[contents.token_file(name)] = f"{token}\n"
    deployment.replace(files)
    return True
