"""Files that a NATS server lets us in by, each kind against a real server that asks for it."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nkeys
import pytest

from lender.link.connection import ConnectError, connect
from lender.link.credentials import CredentialsError, connect_options, without_credentials
from lender.link.embedded import EmbeddedServer

OPERATOR, SYSTEM, ACCOUNT, USER, STRANGER = (
    nkeys.from_seed(bytearray(nkeys.encode_seed(bytes([number]) * 32, kind)))
    for number, kind in enumerate(
        (
            nkeys.PREFIX_BYTE_OPERATOR,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_USER,
            nkeys.PREFIX_BYTE_USER,
        )
    )
)
_NO_LIMIT = {"subs": -1, "data": -1, "payload": -1}
_ACCOUNT_LIMITS = {**_NO_LIMIT, "imports": -1, "exports": -1, "wildcards": True, "conn": -1}


def _plain(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _token(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, claims: dict[str, Any]) -> str:
    """Sign an identity as `nsc` does (JWT with the algorithm `ed25519-nkey`)."""
    body = {
        "iat": 1_700_000_000,
        "iss": issuer.public_key.decode(),
        "name": claims["type"],
        "sub": subject.public_key.decode(),
        "nats": {**claims, "version": 2},
    }
    digest = hashlib.new("sha512_256", json.dumps(body).encode()).digest()
    body["jti"] = base64.b32encode(digest).rstrip(b"=").decode()
    header = {"typ": "JWT", "alg": "ed25519-nkey"}
    signed = ".".join(_plain(json.dumps(part).encode()) for part in (header, body))
    return f"{signed}.{_plain(issuer.sign(signed.encode()))}"


def creds(path: Path, key: nkeys.KeyPair) -> Path:
    token = _token(ACCOUNT, USER, {"type": "user", **_NO_LIMIT})
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{key.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    path.chmod(0o600)
    return path


def private(path: Path, content: str, mode: int = 0o600) -> Path:
    path.write_text(content)
    path.chmod(mode)
    return path


@pytest.fixture
async def by_identity(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    operator = _token(OPERATOR, OPERATOR, {"type": "operator"})
    accounts = "\n".join(
        f"{key.public_key.decode()}: "
        + _token(OPERATOR, key, {"type": "account", "limits": _ACCOUNT_LIMITS})
        for key in (SYSTEM, ACCOUNT)
    )
    config = (
        f"operator: {operator}\nsystem_account: {SYSTEM.public_key.decode()}\n"
        f"resolver: MEMORY\nresolver_preload: {{\n{accounts}\n}}\n"
    )
    async with EmbeddedServer(tmp_path / "nats", extra_config=config) as server:
        yield server


async def test_a_signed_identity_opens_the_door(
    by_identity: EmbeddedServer, tmp_path: Path
) -> None:
    async with await connect(
        by_identity.url, name="t", credentials=creds(tmp_path / "u.creds", USER), timeout_s=5
    ) as connection:
        assert connection.connected
    with pytest.raises(ConnectError):
        await connect(
            by_identity.url,
            name="t",
            credentials=creds(tmp_path / "stolen.creds", STRANGER),
            timeout_s=0.5,
        )


async def test_a_name_and_a_password_open_the_door(tmp_path: Path) -> None:
    config = 'authorization { users: [ { user: broker, password: "s3cret:word" } ] }'
    right = private(tmp_path / "right", "broker:s3cret:word\n", 0o640)
    wrong = private(tmp_path / "wrong", "broker:other\n")
    async with EmbeddedServer(tmp_path / "nats", extra_config=config) as server:
        async with await connect(
            server.url, name="t", credentials=right, timeout_s=5
        ) as connection:
            assert connection.connected
        with pytest.raises(ConnectError) as told:
            await connect(server.url, name="t", credentials=wrong, timeout_s=0.5)
        assert "other" not in str(told.value)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
def test_what_others_can_read_or_change_is_not_used(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path / "creds", USER.seed.decode(), mode)
    with pytest.raises(CredentialsError, match=r"chmod 600 .*creds"):
        connect_options(path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4",
        "two words",
        "a:b\nc:d",
        "\xff",
    ],
)
def test_what_holds_something_else_is_refused_and_not_told(tmp_path: Path, content: str) -> None:
    path = private(tmp_path / "creds", content)
    with pytest.raises(CredentialsError, match="holds no credentials") as told:
        connect_options(path)
    assert not content or content not in str(told.value)


def test_a_file_that_is_not_there_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="nowhere: No such file"):
        connect_options(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://bob:hunter2@a.org:4222", "nats://a.org:4222"),
        ("tls://bob:hunt@er2@a.org,bob:hunter2@b.org", "tls://a.org,b.org"),
        ("nats://127.0.0.1:4222, nats://token@[::1]", "nats://127.0.0.1:4222, nats://[::1]"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


async def test_a_password_in_an_address_is_in_no_error() -> None:
    with pytest.raises(ConnectError, match=r"no NATS server at nats://127.0.0.1:1 ") as raised:
        await connect("nats://bob:hunter2@127.0.0.1:1", name="test", timeout_s=0.2)
    assert "hunter2" not in str(raised.value)
