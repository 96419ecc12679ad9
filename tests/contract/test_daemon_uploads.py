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
from lender.link.blobs import Blobs
from lender.link.connection import Connection
from lender.link.embedded import EmbeddedServer
from lender.link.errors import JetStreamError, LinkError, NoRespondersError
from lender.protocol import streams
from lender.protocol.bounds import PIECE_BYTES
from lender.protocol.job import BlobRef

ALICE, DESK = "U" + "A" * 55, "U" + "C" * 55


@pytest.fixture
async def blobs(connection: Connection) -> AsyncIterator[Blobs]:
    await JetStream(connection).ensure_stream(streams.left_config(ALICE))
    opened = Blobs(connection, DESK)
    yield opened
    opened.close()


@pytest.mark.parametrize("kind", ["bytes", "stream"])
async def test_an_upload_goes_on_after_a_crash_of_the_server(
    nats: EmbeddedServer, blobs: Blobs, kind: str
) -> None:
    content = os.urandom(60 * PIECE_BYTES)
    patient = Uploads(blobs)
    source: Any = io.BytesIO(content)
    by_bytes = kind == "bytes"
    put = patient.put_bytes(ALICE, content) if by_bytes else patient.put_stream(ALICE, source)
    putting = asyncio.create_task(put)
    await until(lambda: len(blobs._publisher._in_flight) > 10)
    nats.kill()
    await nats.start()
    ref = await putting
    assert (ref.size_bytes, ref.by) == (len(content), DESK)
    assert await blobs.get_bytes(ALICE, ref) == content


async def test_an_upload_waits_for_a_server_that_is_away(
    nats: EmbeddedServer, blobs: Blobs, connection: Connection
) -> None:
    nats.kill()
    await until(lambda: not connection.connected)
    putting = asyncio.create_task(Uploads(blobs).put_bytes(ALICE, b"17"))
    await nats.start()
    assert await blobs.get_bytes(ALICE, await putting) == b"17"


class Refusing:
    """A store that says always the same."""

    def __init__(self, error: LinkError) -> None:
        self.error = error
        self.asked: list[object] = []

    async def put_bytes(self, _: str, content: bytes) -> BlobRef:
        self.asked.append(content)
        raise self.error

    async def put_stream(self, _: str, source: io.BufferedReader) -> BlobRef:
        self.asked.append(source)
        raise self.error


async def test_what_the_server_refuses_is_not_sent_again() -> None:
    store = Refusing(JetStreamError(400, 10077, "maximum bytes exceeded"))
    with pytest.raises(JetStreamError):
        await Uploads(store).put_bytes(ALICE, b"17")
    assert store.asked == [b"17"]


async def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PATIENCE_S", 0.05)
    store = Refusing(NoRespondersError("blob"))
    with pytest.raises(NoRespondersError):
        await Uploads(store, pause_s=0.01).put_bytes(ALICE, b"17")
    assert len(store.asked) > 1
