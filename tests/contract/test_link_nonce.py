"""The key that lets somebody in signs his jobs, too: a server gets nonces signed, and no jobs."""

import json
import socket
from pathlib import Path

import pytest
from lying_server import INFO, Behaviour, lying

from lender.link.connection import ConnectError, connect
from lender.link.embedded import EmbeddedServer
from lender.link.errors import StrangeAnswerError
from lender.link.probe import Line
from lender.protocol.signature import Signer, seed_from_entropy, verify

SIGNER = Signer(seed_from_entropy(bytes([1] * 32)))
JOB = json.dumps({"v": 1, "id": "job-0001", "submitter": SIGNER.public_key, "argv": ["rm"]})
DIGEST = "ab" * 32


def wanting(nonce: str, heard: list[bytes]) -> Behaviour:
    """A server that wants this signed, and notes what it is told."""

    def behave(line: socket.socket) -> None:
        line.sendall(INFO.replace(b'"abc"', json.dumps(nonce).encode()))
        while chunk := line.recv(1 << 16):
            heard.append(chunk)
            if b"PING" in chunk:
                line.sendall(b"PONG\r\n")

    return behave


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "alice.nk"
    path.touch(mode=0o600)
    path.write_bytes(seed_from_entropy(bytes([1] * 32)))
    return path


@pytest.mark.parametrize(
    "wanted", [JOB, DIGEST, "a b", "x" * 33], ids=["job", "digest", "", "long"]
)
async def test_no_server_has_a_job_signed_in_place_of_a_nonce(key: Path, wanted: str) -> None:
    heard: list[bytes] = []
    with lying(wanting(wanted, heard)) as place:
        with pytest.raises(ConnectError, match="no nonce"):
            await connect(f"nats://{place}", name="x", credentials=key, timeout_s=1.0)
        with Line(place, 5.0) as line:
            line.open(line.resolve())
            with pytest.raises(StrangeAnswerError, match="nonce"):
                line.greet()
    assert b"sig" not in b"".join(heard)


async def test_a_nonce_is_signed(key: Path) -> None:
    heard: list[bytes] = []
    with lying(wanting("Xyz-_0123456789", heard)) as place:
        async with await connect(f"nats://{place}", name="x", credentials=key, timeout_s=5.0):
            pass
    said = json.loads(b"".join(heard).split(b"CONNECT ")[1].split(b"\r\n")[0])
    verify(SIGNER.public_key, b"Xyz-_0123456789", said["sig"])


async def test_a_server_wants_a_nonce_signed_that_is_one(tmp_path: Path, key: Path) -> None:
    config = f"authorization {{ users: [{{ nkey: {SIGNER.public_key} }}] }}"
    async with EmbeddedServer(tmp_path / "nats", extra_config=config) as server:
        for _ in range(20):
            async with await connect(server.url, name="x", credentials=key, timeout_s=10):
                pass


async def test_an_address_that_asks_for_tls_gets_it_or_nothing(key: Path) -> None:
    """Whoever stands before the server says that it has none."""
    heard: list[bytes] = []
    with (
        lying(wanting("Xyz-_0123456789", heard)) as place,
        pytest.raises(ConnectError, match="no TLS"),
    ):
        await connect(f"tls://{place}", name="x", credentials=key, timeout_s=1.0)
    assert heard == []
