"""Every file of a new deployment, as text: made here, written by `folder`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from broker.deployment import claims
from broker.deployment.server_config import alone, quoted
from broker.deployment.tokens import ENTROPY_BYTES, Key, encode
from lender.link.credentials import credentials
from lender.protocol.permissions import HOME, Account, Role, completed

OPERATOR_KEY = "operator/operator.nk"
SYSTEM_CREDENTIALS = "operator/system.creds"
AUTHORITY_KEY = "operator/ca.key"
BROKER_CREDENTIALS = "broker/broker.creds"
AUTHORITY = "ca.pem"
CERTIFICATE = "server/server.pem"
CERTIFICATE_KEY = "server/server.key"
SERVER_FOLDER = "server"
CLUSTER_FOLDER = "cluster"
ACCOUNTS_FILE = "server/accounts.conf"
SERVER_FILE = "server/server.conf"

SENTINEL = "sentinel"

HERE = ("localhost", "127.0.0.1")
"""By which a machine's own programs know its server."""

CONTROL_LINE_BYTES_MAX = 64 * 1024
"""Of a client's first words, where a lender's token names its classes; the usual 4 KiB hold 20."""

Entropy = Callable[[int], bytes]


class Pair(NamedTuple):
    """A certificate and its private key, in PEM."""

    certificate: str
    key: str


class Certificates(NamedTuple):
    """For a server's TLS, in PEM. Where they were given there is no authority's key to keep."""

    authority: str
    authority_key: str
    server: str
    server_key: str


class Identities(NamedTuple):
    """What a deployment's tokens are about: public keys."""

    system: str
    accounts: Mapping[Account, str]
    signing_keys: Mapping[Role, str]


def token_file(account: str) -> str:
    """Return where an account's token stands; `operator`, `system`, `sentinel` have one, too."""
    return f"server/tokens/{account}.jwt"


def signing_key_file(role: Role) -> str:
    """Return where the key stands that vouches for users of a role.

    The operator vouches for brokers, and for the one token that all strangers use.
    """
    by_operator = role in ("broker", "stranger")
    return f"{'operator' if by_operator else 'broker'}/{role}-signing.nk"


def new_deployment(
    folder: Path,
    name: str,
    port: int,
    certificates: Certificates,
    entropy: Entropy,
    now: float,
    store_bytes: int | None = None,
) -> dict[str, str]:
    """Return path, relative to the folder, and content of each file.

    The accounts' own keys are thrown away: they could vouch for users without any bounds, and the
    operator's key is enough to change an account.

    Args:
        folder: where all of it will be.
        name: of the fleet.
        port: of the server.
        certificates: for its TLS.
        entropy: returns so many random bytes.
        now: seconds since the epoch.
        store_bytes: what all streams together may take on disk; None: what the server has.
    """
    operator = Key.make("operator", entropy(ENTROPY_BYTES))
    system = Key.make("account", entropy(ENTROPY_BYTES))
    signing = {role: Key.make("account", entropy(ENTROPY_BYTES)) for role in claims.ROLES}
    who = Identities(
        system.public,
        {one: Key.make("account", entropy(ENTROPY_BYTES)).public for one in claims.ACCOUNTS},
        {role: key.public for role, key in signing.items()},
    )
    # Nobody has the sentinel's key: its token is public, and lets strangers ask.
    sentinel = Key.make("user", entropy(ENTROPY_BYTES)).public
    asks = user_token(sentinel, "stranger", "stranger", signing["stranger"], who.accounts, (), now)
    vouched = {**account_tokens(name, who, operator, now, store_bytes), SENTINEL: asks}
    overseer = Key.make("user", entropy(ENTROPY_BYTES))
    oversees = encode(overseer.public, "operator", claims.system_user(), system, now)
    broker = Key.make("user", entropy(ENTROPY_BYTES))
    leads = user_token(broker.public, "broker", "broker", signing["broker"], who.accounts, (), now)
    return {
        OPERATOR_KEY: _line(operator.seed),
        SYSTEM_CREDENTIALS: credentials(oversees, overseer.seed),
        BROKER_CREDENTIALS: credentials(leads, broker.seed),
        **{signing_key_file(role): _line(key.seed) for role, key in signing.items()},
        **{token_file(account): f"{token}\n" for account, token in vouched.items()},
        ACCOUNTS_FILE: accounts_config(vouched, who),
        SERVER_FILE: alone(folder / SERVER_FOLDER, name, port),
        **_certificate_files(certificates),
    }


def account_tokens(
    name: str, who: Identities, operator: Key, now: float, store_bytes: int | None
) -> dict[str, str]:
    """Return the tokens of the operator, of the server's own account and of the pool's."""
    return {
        "operator": encode(operator.public, name, claims.operator(who.system), operator, now),
        "system": encode(who.system, "system", claims.system_account(who.accounts), operator, now),
        **{
            account: encode(
                key,
                account,
                claims.account(account, who.accounts, who.signing_keys, store_bytes),
                operator,
                now,
            )
            for account, key in who.accounts.items()
        },
    }


def user_token(
    public_key: str,
    name: str,
    role: Role,
    signing_key: Key,
    accounts: Mapping[Account, str],
    tags: tuple[str, ...],
    now: float,
) -> str:
    """Return the token that lets a key in as one of a role; it is worth nothing without the key."""
    claim = claims.user(accounts[HOME[role]], completed(tags) if role == "lender" else tags)
    return encode(public_key, name, claim, signing_key, now)


def accounts_config(tokens: Mapping[str, str], who: Identities) -> str:
    """Return the part of a server's configuration that every server of a cluster has alike."""
    keys = [("system", who.system), *who.accounts.items()]
    preload = "".join(f"  {key}: {quoted(tokens[name])}\n" for name, key in keys)
    return (
        "# Made by lender-broker. Nothing in here is secret.\n"
        f"operator: {quoted(tokens['operator'])}\n"
        f"system_account: {who.system}\n"
        f"resolver_preload: {{\n{preload}}}\n"
        # Whoever comes without a token may ask to be let in.
        f"default_sentinel: {quoted(tokens[SENTINEL])}\n"
        # Nobody is let in by MQTT: there is no listener for it.
        f"max_control_line: {CONTROL_LINE_BYTES_MAX}\n"
    )


def _certificate_files(certificates: Certificates) -> dict[str, str]:
    paths = (AUTHORITY, AUTHORITY_KEY, CERTIFICATE, CERTIFICATE_KEY)
    return {path: text for path, text in zip(paths, certificates, strict=True) if text}


def _line(seed: bytes) -> str:
    return f"{seed.decode()}\n"
