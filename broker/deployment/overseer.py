"""New credentials for the operator's word to servers, where others may have the old ones.

A second token is let in beside the first, and by its line the servers are told that it is the only
one: so there is always a way to tell them. Cut off, it is completed by doing it again.
"""

from broker.deployment import claims, contents
from broker.deployment.claims import Signed
from broker.deployment.contents import Entropy
from broker.deployment.folder import Deployment, DeploymentError
from broker.deployment.rotation import Running
from broker.deployment.signing import Claims, sign_accounts
from broker.deployment.telling import tell
from broker.deployment.tokens import ENTROPY_BYTES, Key, TokenError, decode, encode
from lender.link.credentials import JWT_LINE, credentials, part_of

NEXT = "operator/system-next.creds"
"""The new credentials, until the old ones are worth nothing."""


async def renew_overseer(
    deployment: Deployment, running: Running, entropy: Entropy, now: float
) -> None:
    """Have new credentials let the operator in, and no earlier ones.

    Args:
        deployment: with the operator's folder in it.
        running: connects with the servers.
        entropy: returns so many random bytes.
        now: seconds since the epoch.

    Raises:
        DeploymentError: something can't be read or written; what there was holds.
        LinkError: it is written, and not all servers know it; do it again.
    """
    with deployment.locked():
        if not (deployment.folder / NEXT).exists():
            deployment.replace({NEXT: _made(deployment, entropy, now)})
        key, issued_at = _vouched_by(deployment)

        def beside(which: Signed, nats: Claims) -> Claims:
            return claims.vouched_also_by(nats, key) if which == "system" else nats

        def alone(which: Signed, nats: Claims) -> Claims:
            return claims.vouched_by(nats, key, issued_at) if which == "system" else nats

        if deployment.read(contents.SYSTEM_CREDENTIALS) != deployment.read(NEXT):
            tokens = sign_accounts(deployment, beside, now)
            async with running() as servers:
                await tell(deployment, servers, tokens, now)
            deployment.replace({contents.SYSTEM_CREDENTIALS: deployment.read(NEXT)})
        tokens = sign_accounts(deployment, alone, now)
        async with running() as servers:
            await tell(deployment, servers, tokens, now)
        deployment.remove(NEXT)


def _made(deployment: Deployment, entropy: Entropy, now: float) -> str:
    """Credentials by a key that vouches for them alone: it is thrown away."""
    vouching = Key.make("account", entropy(ENTROPY_BYTES))
    user = Key.make("user", entropy(ENTROPY_BYTES))
    nats = claims.system_user(deployment.identities().system)
    # What was issued before is refused by the second.
    later = max(int(now), _issued_at(deployment, contents.SYSTEM_CREDENTIALS) + 1)
    return credentials(encode(user.public, "operator", nats, vouching, later), user.seed)


def _issued_at(deployment: Deployment, path: str) -> int:
    return int(_token(deployment, path)["iat"])


def _vouched_by(deployment: Deployment) -> tuple[str, int]:
    """The key that vouches for the new credentials, and since when they are."""
    token = _token(deployment, NEXT)
    return str(token["iss"]), int(token["iat"])


def _token(deployment: Deployment, path: str) -> Claims:
    try:
        return decode(part_of(deployment.read(path), JWT_LINE))
    except (IndexError, TokenError) as error:
        mend = "remove it" if path == NEXT else "restore it"
        raise DeploymentError(
            f"{deployment.folder / path} is damaged: {mend}, and rotate again"
        ) from error
