"""Content that does not hold what the specification says ends the job with a reason."""

import hashlib
from collections.abc import Iterator

import nats
import pytest
from fleet import StandingFleet
from nats.js.errors import APIError

from deploy.local.fleet import Fleet
from lender.client.client import Client
from lender.client.errors import Rejected

# The first of them waits for a whole fleet, on a machine that may be busy.
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    with StandingFleet("desk", "attic", workloads=("command", "wasm")) as fleet:
        yield fleet


@pytest.fixture
def fleet(standing: StandingFleet) -> Fleet:
    return standing.in_order()


async def test_a_module_that_does_not_parse_is_rejected(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit([], wasm=b"\0asm this is no module")
        with pytest.raises(Rejected) as rejected:
            await job.result(timeout_s=30)
    assert rejected.value.field == "program"


async def test_a_blob_with_another_hash_is_rejected(fleet: Fleet) -> None:
    """Swapped after its upload, while every owner has paused: this server asks nobody who they are.

    The stream takes no second message for a piece, so that the first has to be removed.
    """
    promised = b"what the submitter signed"
    name = hashlib.sha256(promised).hexdigest()
    for lender in fleet.lenders.values():
        lender.owner("pause")
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(["cat", "input"], inputs={"input": promised})
        attacker = await nats.connect(fleet.url)
        js, me = attacker.jetstream(), job.spec.submitter
        piece = f"blob.{me}.{me}.{name}.{job.spec.inputs[0].week}-0"
        with pytest.raises(APIError):
            await js.publish(piece, b"what somebody else stored")
        await js.purge_stream(f"BLOBS_{me}", subject=piece)
        await js.publish(piece, b"what somebody else stored")
        await attacker.close()
        for lender in fleet.lenders.values():
            lender.owner("resume")
        with pytest.raises(Rejected) as rejected:
            await job.result(timeout_s=30)
    assert "input" in rejected.value.field
    assert name in rejected.value.reason
