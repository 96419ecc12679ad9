"""A broker, or a NATS server, in the wrong hands: it gets nothing run that was not signed for."""

import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import live_files
import pytest
from broker_parts import MALLORY
from fleet import COMMANDS
from rogue_broker import RogueBroker, rogue_broker

from deploy.local.fleet import Fleet, Lender, wait_until
from lender.client.client import Client
from lender.core.jobs_done import RUN_MORE_MAX
from lender.link.embedded import EmbeddedServer
from lender.protocol import codec
from lender.protocol.job import JobSpec
from lender.protocol.lease import Lease
from lender.protocol.signature import Signer

# A whole fleet starts, on a machine that may be busy.
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def fleet(open_folder: Path, nats: EmbeddedServer) -> Iterator[Fleet]:
    """A lenderd beside a server that is not the broker's own: it outlives the broker."""
    with Fleet(open_folder, ("desk",), workloads=COMMANDS, url=nats.url) as running:
        yield running


@pytest.fixture
def desk(fleet: Fleet) -> Lender:
    return fleet.lenders["desk"]


@pytest.fixture
async def rogue(fleet: Fleet, nats: EmbeddedServer) -> AsyncIterator[RogueBroker]:
    """What has taken the broker's place."""
    fleet.broker.stop()
    async with rogue_broker(nats.url) as one:
        yield one


async def submitted(fleet: Fleet, nats: EmbeddedServer, **options: Any) -> JobSpec:  # noqa: ANN401 - see Client.submit
    async with Client(nats.url, fleet.key) as client:
        job = await client.submit(["sh", "-c", "cat in.txt"], inputs={"in.txt": b"ran"}, **options)
        return job.spec


async def test_nothing_runs_but_what_the_submitter_has_signed(
    fleet: Fleet, nats: EmbeddedServer, desk: Lender, rogue: RogueBroker
) -> None:
    spec = await submitted(fleet, nats, array=2)
    lease = await rogue.signed(spec.submitter, spec.id)
    submitter = Signer(fleet.submitter_seed)
    old = changed(spec, created_at=time.time() - 20, not_after=time.time() - 10)
    for why, forged in {
        "signature": under_its_own_key(lease, spec),
        "signature: does not match": with_spec(lease, changed(spec, argv=("sh", "-c", "id"))),
        "signature: does not": with_spec(lease, changed(spec, env={"LD_PRELOAD": "/evil.so"})),
        "does not match the": with_spec(lease, wider(spec)),
        "does not match": with_spec(lease, swapped(spec)),
        "does not belong in class": of_a_stranger(lease, spec),
        "not distinct tasks": lease.model_copy(update={"ranges": ((0, 3),)}),
        "distinct tasks of": lease.model_copy(update={"ranges": ((0, 1), (0, 1))}),
        "expired": signed_by(submitter, lease, old),
        "another job": lease.model_copy(update={"job": "job-of-others"}),
    }.items():
        said = await rogue.give(forged)
        assert (said.outcome, said.results) == ("refused", ()), why
        assert why in said.reason
    assert receipts(desk) == []
    genuine = await rogue.give(lease)
    assert [one.value for one in genuine.results] == [b"ran"], "a control: what was signed runs"


async def test_a_job_that_has_succeeded_is_not_run_again(
    fleet: Fleet, nats: EmbeddedServer, desk: Lender, rogue: RogueBroker
) -> None:
    spec = await submitted(fleet, nats)
    lease = await rogue.signed(spec.submitter, spec.id)
    assert (await rogue.give(lease)).outcome == "finished"
    # Its answer to that report is still on the way; what comes before it counts as a first try.
    wait_until(lambda: not [*live_files.contents(desk.state / "spool")], "the answer is heard")
    for attempt in (1, 2, 1000):
        again = await rogue.give(lease, attempt=attempt)
        assert (again.outcome, again.results) == ("refused", ())
        assert "their results were taken" in again.reason
    desk.kill()
    desk.start()
    fleet.wait_lending(desk)
    assert "their results were taken" in (await rogue.give(lease)).reason, "also after a restart"
    wait_until(lambda: len(receipts(desk)) == 1, "the one receipt")


async def test_a_broker_that_takes_no_answer_has_a_job_run_so_often_and_no_more(
    fleet: Fleet, nats: EmbeddedServer, rogue: RogueBroker
) -> None:
    spec = await submitted(fleet, nats)
    lease = await rogue.signed(spec.submitter, spec.id)
    rogue.verdict = "stale"
    runs = 0
    while (await rogue.give(lease)).outcome == "finished":
        runs += 1
        assert runs <= 2 + RUN_MORE_MAX
    assert runs == 2 + RUN_MORE_MAX
    assert "more often than its submitter has signed for" in rogue.reports[-1].reason


def changed(spec: JobSpec, **fields: object) -> JobSpec:
    return spec.model_copy(update=fields)


def wider(spec: JobSpec) -> JobSpec:
    return changed(spec, limits=spec.limits.model_copy(update={"time_s": 600.0, "cpu": 2}))


def swapped(spec: JobSpec) -> JobSpec:
    other = spec.inputs[0].model_copy(update={"sha256": "00" * 32})
    return changed(spec, inputs=(other,))


def with_spec(lease: Lease, spec: JobSpec) -> Lease:
    """Under the signature that the submitter once made."""
    return lease.model_copy(update={"spec": codec.encode(spec)})


def signed_by(signer: Signer, lease: Lease, spec: JobSpec) -> Lease:
    payload = codec.encode(spec)
    return lease.model_copy(update={"spec": payload, "signature": signer.sign(payload)})


def under_its_own_key(lease: Lease, spec: JobSpec) -> Lease:
    return signed_by(MALLORY, lease, changed(spec, argv=("sh", "-c", "id")))


def of_a_stranger(lease: Lease, spec: JobSpec) -> Lease:
    """All in order, but that nobody has consented to it."""
    theirs = changed(spec, submitter=MALLORY.public_key)
    return signed_by(MALLORY, lease, theirs).model_copy(update={"submitter": MALLORY.public_key})


def receipts(lender: Lender) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lender.owner("log", "--json").stdout)["receipts"]
    return found
