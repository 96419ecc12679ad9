"""Who passes results on can't change them unseen, nor have a submitter sign what it never wrote."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_broker import FakeBroker, fake_broker
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

from lender.client import Client, Forged, TaskRecord, UntrustedResult
from lender.client.specs import payload_of
from lender.link.api import JetStream
from lender.link.embedded import EmbeddedServer
from lender.protocol import codec, streams, subjects
from lender.protocol.job import JobSpec
from lender.protocol.result import Chunk, Output, TaskResult, Terminal
from lender.protocol.signature import SIGNATURE_HEADER
from lender.protocol.signed_results import proof_of, result_digest


def honest(spec: JobSpec) -> Terminal:
    return terminal(spec, chunk(spec, value(0)))


FORGERIES: dict[str, Callable[[JobSpec], Terminal]] = {
    "another value": lambda spec: terminal(spec, chunk(spec, value(0)), result=value(0, b"false")),
    "another file": lambda spec: terminal(
        spec,
        chunk(spec, value(0)),
        result=value(0).model_copy(
            update={"outputs": (Output(name="a", sha256="00" * 32, size_bytes=1),)}
        ),
    ),
    "a result of another task": lambda spec: terminal(spec, chunk(spec, value(1)), result=value(0)),
    "a result of another job": lambda spec: terminal(
        spec, chunk(spec, value(0), payload=payload_of(spec.model_copy(update={"id": "job-0002"})))
    ),
    "a result of other inputs": lambda spec: terminal(
        spec, chunk(spec, value(0), payload=payload_of(spec.model_copy(update={"argv": ("id",)})))
    ),
    "another attempt": lambda spec: terminal(spec, chunk(spec, value(0)), attempt=2),
    "another lease": lambda spec: terminal(spec, chunk(spec, value(0)), lease="m" * 22),
    "somebody else's report": lambda spec: terminal(
        spec, chunk(spec, value(0)), lender=ATTIC.public_key
    ),
    "a key of the forger's own": lambda spec: terminal(
        spec, chunk(spec, value(0, b"false"), signer=MALLORY)
    ),
    "no signature": lambda spec: terminal(spec, chunk(spec, value(0)), proof=None),
    "half of what was signed": lambda spec: terminal(spec, chunk(spec, value(0)), lease=None),
    "no lender": lambda spec: terminal(spec, chunk(spec, value(0)), lender=None),
    "garbage": lambda spec: terminal(
        spec, chunk(spec, value(0)), proof={"signature": "x" * 86, "others": ()}
    ),
    "what it calls unsigned itself": lambda spec: terminal(
        spec,
        chunk(spec, value(0)),
        result=value(0, b"false"),
        proof={
            "signature": chunk(spec, value(0)).proof.signature,  # type: ignore[union-attr]
            "others": ((0, result_digest(value(0)).hex()),),
        },
    ),
    "a success without a result": terminal,
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_result_that_its_lender_has_not_signed_is_not_believed(
    nats: EmbeddedServer, key: Path, forgery: str
) -> None:
    async with (
        fake_broker(nats.url, silent) as broker,
        Client(nats.url, key, trusted_lenders=TRUSTED) as client,
    ):
        job = await client.submit(["x"])
        await broker.commit_record(job.spec, FORGERIES[forgery](job.spec))
        with pytest.raises(UntrustedResult) as caught:
            await job.result(TIME_S)
        with pytest.raises(UntrustedResult):
            await job.terminal()
    assert job.id in str(caught.value)


async def test_a_result_that_was_signed_is_believed(nats: EmbeddedServer, key: Path) -> None:
    async with (
        fake_broker(nats.url, silent) as broker,
        Client(nats.url, key, trusted_lenders=TRUSTED) as client,
    ):
        job = await client.submit(["x"])
        await broker.commit_record(job.spec, honest(job.spec))
        assert (await job.result(TIME_S)).value == b"true"
        assert await job.terminal() == honest(job.spec)


async def test_a_forged_event_is_passed_over(nats: EmbeddedServer, key: Path) -> None:
    async with (
        fake_broker(nats.url, silent) as broker,
        Client(nats.url, key, trusted_lenders=TRUSTED) as client,
    ):
        job = await client.submit(["x"])
        waiting = asyncio.create_task(job.result(TIME_S))
        for forgery in FORGERIES.values():
            await broker.tell(job.spec, forgery(job.spec))
        await broker.commit_record(job.spec, honest(job.spec))
        assert (await waiting).value == b"true"


async def records(
    nats: EmbeddedServer, key: Path, make: Callable[[JobSpec], list[Chunk]]
) -> list[TaskRecord]:
    """What comes of an array of four tasks."""
    async with (
        fake_broker(nats.url, silent) as broker,
        Client(nats.url, key, trusted_lenders=TRUSTED) as client,
    ):
        job = await client.submit(["x"], array=4)
        for one in make(job.spec):
            await broker.commit_record(job.spec, one)
        found = make(job.spec)
        there = {one.task for record in found for one in record.results} & set(range(4))
        await broker.commit_record(job.spec, terminal(job.spec, tasks_succeeded=len(there)))
        return [one async for one in job.results()]


async def test_of_an_array_too_nothing_is_changed_unseen(nats: EmbeddedServer, key: Path) -> None:
    def honest_too(spec: JobSpec) -> list[Chunk]:
        """A report whose second task is tried again, and then comes from elsewhere."""
        failed = TaskResult(task=1, state="failed", exit_code=1)
        results = (value(0), failed, value(2))
        whole = chunk(spec, *results)
        assert whole.proof is not None
        kept = results[::2]
        first = whole.model_copy(
            update={"results": kept, "proof": proof_of(whole.proof.signature, results, kept)}
        )
        return [first, chunk(spec, value(1), value(3), signer=ATTIC)]

    found = await records(nats, key, honest_too)
    assert sorted((one.result.task, one.lender) for one in found) == [
        (0, DESK.public_key),
        (1, ATTIC.public_key),
        (2, DESK.public_key),
        (3, ATTIC.public_key),
    ]
    assert all(one.signed for one in found)


def one_changed(spec: JobSpec) -> list[Chunk]:
    whole = chunk(spec, *map(value, range(4)))
    results = (*whole.results[:3], value(3, b"false"))
    return [whole.model_copy(update={"results": results})]


def one_added(spec: JobSpec) -> list[Chunk]:
    whole = chunk(spec, *map(value, range(3)))
    return [whole.model_copy(update={"results": (*whole.results, value(3, b"false"))})]


def one_exchanged(spec: JobSpec) -> list[Chunk]:
    whole = chunk(spec, *map(value, range(4)))
    results = tuple(
        one.model_copy(update={"task": 3 - one.task, "value": b"%d" % one.task})
        for one in whole.results
    )
    return [whole.model_copy(update={"results": results})]


def one_doubled(spec: JobSpec) -> list[Chunk]:
    whole = chunk(spec, *map(value, range(4)))
    return [whole.model_copy(update={"results": (value(0, b"false"), *whole.results)})]


def one_beyond_all_bounds(spec: JobSpec) -> list[Chunk]:
    whole = chunk(spec, *map(value, range(4)))
    return [whole.model_copy(update={"results": (*whole.results, value(2**64 - 1))})]


def one_left_out(spec: JobSpec) -> list[Chunk]:
    return [chunk(spec, *map(value, range(3)))]


@pytest.mark.parametrize(
    "make",
    [one_changed, one_added, one_doubled, one_beyond_all_bounds, one_exchanged, one_left_out],
)
async def test_of_an_array_no_result_is_slipped_in_or_kept_back(
    nats: EmbeddedServer, key: Path, make: Callable[[JobSpec], list[Chunk]]
) -> None:
    with pytest.raises(UntrustedResult):
        await records(nats, key, make)


async def test_a_ledger_in_the_wrong_hands_gets_nothing_signed(
    nats: EmbeddedServer, key: Path
) -> None:
    """`retry` signs anew what it reads back: it must be what was signed before, as that job."""
    async with fake_broker(nats.url, silent) as broker, Client(nats.url, key) as client:
        job, other = await client.submit(["x"]), await client.submit(["y"])
        js = JetStream(broker.connection)
        subject = subjects.submit(job.spec.submitter, job.id)
        evil = payload_of(job.spec.model_copy(update={"argv": ("sh", "-c", "evil")}))
        elsewhere = await js.get_last(streams.JOBS, subjects.submit(other.spec.submitter, other.id))
        assert elsewhere is not None
        signed_once = elsewhere.headers[SIGNATURE_HEADER]
        for payload, signature in (
            (evil, MALLORY.sign(evil)),
            (evil, signed_once),
            (evil, None),
            (elsewhere.payload, signed_once),
        ):
            await put_in_place(broker, subject, payload, signature)
            with pytest.raises(Forged, match="something else as job"):
                await client.get(job.id)
            with pytest.raises(Forged):
                await client.retry(job.id)
        assert len(broker.jobs) == 2, "nothing was submitted"


async def put_in_place(
    broker: FakeBroker, subject: str, payload: bytes, signature: str | None
) -> None:
    """As whoever runs the server can."""
    js = JetStream(broker.connection)
    stored = await js.get_last(streams.JOBS, subject)
    assert stored is not None
    await js.delete_message(streams.JOBS, stored.sequence)
    headers: dict[str, str] = {codec.CONTENT_TYPE_HEADER: codec.MSGPACK}
    if signature is not None:
        headers[SIGNATURE_HEADER] = signature
    broker.listens = False
    await broker.connection.request(subject, payload, headers)
