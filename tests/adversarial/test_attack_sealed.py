"""Who stands between a submitter and the lenders of a sealed job neither reads nor writes it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_broker import LENDERS, fake_broker
from signed_records import (
    ATTIC,
    DESK,
    MALLORY,
    TIME_S,
    TRUSTED,
    chunk,
    silent,
    terminal,
    value,
)

from lender.client import Client, ContentFault, UntrustedResult
from lender.link.blobs import Blobs
from lender.link.embedded import EmbeddedServer
from lender.protocol.job import JobSpec
from lender.protocol.result import Output, TaskResult, Terminal
from lender.protocol.sealing import SealBrokenError, open_key, purpose, seal, seal_words


def key_of(spec: JobSpec) -> bytes:
    """The job's key, as a lender opens it."""
    assert spec.sealing is not None
    return open_key(spec.sealing.keys[DESK.public_key], DESK)


def honest(spec: JobSpec, **changes: object) -> TaskResult:
    """What a lender reports that has run it."""
    said = seal_words(key_of(spec), 0, None, b"a word")
    content = seal(key_of(spec), purpose("value", 0), b"true")
    return value(0, content).model_copy(update={"stderr_tail": said, **changes})


async def test_only_those_named_open_the_key(nats: EmbeddedServer, key: Path) -> None:
    async with (
        fake_broker(nats.url, silent),
        Client(nats.url, key, trusted_lenders=TRUSTED) as client,
    ):
        spec = (await client.submit(["x"], sealed=True)).spec
        assert spec.sealing is not None
        assert key_of(spec) == open_key(spec.sealing.keys[ATTIC.public_key], ATTIC)
        for sealed in spec.sealing.keys.values():
            with pytest.raises(SealBrokenError):
                open_key(sealed, MALLORY)
        other = (await client.submit(["x"], sealed=True)).spec
        assert key_of(other) != key_of(spec)


FORGERIES: dict[str, Callable[[JobSpec], Terminal]] = {
    "a value in the clear": lambda spec: terminal(spec, chunk(spec, value(0, b"false"))),
    "sealed by a key of the forger's own": lambda spec: terminal(
        spec, chunk(spec, honest(spec, value=seal(bytes(32), purpose("value", 0), b"false")))
    ),
    "another task's value": lambda spec: terminal(
        spec,
        chunk(spec, honest(spec, value=seal(key_of(spec), purpose("value", 1), b"false"))),
    ),
    "an input for a value": lambda spec: terminal(
        spec,
        chunk(spec, honest(spec, value=seal(key_of(spec), purpose("input", "a"), b"false"))),
    ),
    "words in the clear": lambda spec: terminal(spec, chunk(spec, honest(spec, stderr_tail=b"!"))),
    "somebody who has no key": lambda spec: terminal(
        spec, chunk(spec, value(0, b""), signer=MALLORY)
    ),
    "nobody's": lambda spec: terminal(spec, chunk(spec, value(0, b"")), proof=None),
    "a success without a result": terminal,
}


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize("trust", [TRUSTED, None], ids=["trusting these", "naming nobody later"])
async def test_what_its_lenders_have_not_sealed_is_not_believed(
    nats: EmbeddedServer, key: Path, forgery: str, trust: tuple[str, ...] | None
) -> None:
    async with fake_broker(nats.url, silent) as broker:
        async with Client(nats.url, key, trusted_lenders=TRUSTED) as client:
            job = await client.submit(["x"], sealed=True)
        await broker.commit_record(job.spec, FORGERIES[forgery](job.spec))
        async with Client(nats.url, key, trusted_lenders=trust) as client:
            later = await client.get(job.id)
            with pytest.raises(UntrustedResult):
                await later.result(TIME_S)


async def test_what_they_have_sealed_is_read(nats: EmbeddedServer, key: Path) -> None:
    async with fake_broker(nats.url, silent) as broker, Client(nats.url, key) as reader:
        async with Client(nats.url, key, trusted_lenders=TRUSTED) as client:
            job = await client.submit(["x"], sealed=True)
        await broker.commit_record(job.spec, terminal(job.spec, chunk(job.spec, honest(job.spec))))
        result = await (await reader.get(job.id)).result(TIME_S)
        assert result.value == b"true"
        assert result.terminal.result is not None
        assert result.terminal.result.stderr_tail == b"a word"


async def test_an_output_that_is_another_leaves_nothing_on_the_disk(
    nats: EmbeddedServer, key: Path, tmp_path: Path
) -> None:
    async with (
        fake_broker(nats.url, silent) as broker,
        Client(nats.url, key, trusted_lenders=TRUSTED) as client,
    ):
        job = await client.submit(["x"], outputs=["a", "b"], sealed=True)
        blobs = Blobs(broker.connection, LENDERS[0])
        for bound_to in (purpose("output", 0, "b"), purpose("output", 1, "a")):
            content = seal(key_of(job.spec), bound_to, b"x" * 200_000)
            stored = await blobs.put_bytes(job.spec.submitter, content)
            output = Output(name="a", **stored.model_dump())
            with pytest.raises(ContentFault, match="can't be opened"):
                await job.download(honest(job.spec, outputs=(output,)), tmp_path / "out")
        blobs.close()
    assert list((tmp_path / "out").iterdir()) == []
