"""What a task has made gets to the store, whatever becomes of the server meanwhile."""

import asyncio
import io
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats_server import until

from lender.daemon import uploads
from lender.daemon.uploads import Uploads
from lender.link.api import JetStream
from lender.link.blobs import CHUNK_BYTES, Blobs
from lender.link.connection import Connection
from lender.link.embedded import EmbeddedServer
from lender.link.errors import JetStreamError, LinkError, NoRespondersError

NO_LIMIT = 1 << 40


@pytest.fixture
async def blobs(connection: Connection) -> AsyncIterator[Blobs]:
    await JetStream(connection).ensure_stream(
        {
            "name": "OBJ_blobs",
            "subjects": ["$O.blobs.C.>", "$O.blobs.M.>"],
            "discard": "new",
            "allow_rollup_hdrs": True,
            "allow_direct": True,
        }
    )
    opened = Blobs(connection)
    yield opened
    opened.close()


@pytest.mark.parametrize("kind", ["bytes", "stream"])
async def test_an_upload_goes_on_after_a_crash_of_the_server(
    nats: EmbeddedServer, blobs: Blobs, kind: str
) -> None:
    content = os.urandom(60 * CHUNK_BYTES)
    patient = Uploads(blobs)
    source: Any = io.BytesIO(content)
    put = patient.put_bytes(content) if kind == "bytes" else patient.put_stream(source)
    putting = asyncio.create_task(put)
    await until(lambda: len(blobs._publisher._in_flight) > 10)
    nats.kill()
    await nats.start()
    sha256, size = await putting
    assert size == len(content)
    assert await blobs.get_bytes(sha256, NO_LIMIT) == content


async def test_an_upload_waits_for_a_server_that_is_away(
    nats: EmbeddedServer, blobs: Blobs, connection: Connection
) -> None:
    nats.kill()
    await until(lambda: not connection.connected)
    putting = asyncio.create_task(Uploads(blobs).put_bytes(b"17"))
    await nats.start()
    sha256, _ = await putting
    assert await blobs.get_bytes(sha256, NO_LIMIT) == b"17"


class Refusing:
    """A store that says always the same."""

    def __init__(self, error: LinkError) -> None:
        self.error = error
        self.asked: list[object] = []

    async def put_bytes(self, content: bytes) -> tuple[str, int]:
        self.asked.append(content)
        raise self.error

    async def put_stream(self, source: io.BufferedReader) -> tuple[str, int]:
        self.asked.append(source)
        raise self.error


async def test_what_the_server_refuses_is_not_sent_again() -> None:
    store = Refusing(JetStreamError(400, 10077, "maximum bytes exceeded"))
    with pytest.raises(JetStreamError):
        await Uploads(store).put_bytes(b"17")
    assert store.asked == [b"17"]


async def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PATIENCE_S", 0.05)
    store = Refusing(NoRespondersError("$O.blobs"))
    with pytest.raises(NoRespondersError):
        await Uploads(store, pause_s=0.01).put_bytes(b"17")
    assert len(store.asked) > 1
