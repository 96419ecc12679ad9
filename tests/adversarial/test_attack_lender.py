"""A lender in the wrong hands answers for its own leases alone, and only in its own name."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from broker_parts import BrokerProcess

from lender.client import Client, UntrustedResult
from lender.client.job import Job
from lender.client.keys import create_key
from lender.client.specs import payload_of
from lender.link.api import JetStream
from lender.link.connection import Connection
from lender.link.embedded import EmbeddedServer
from lender.protocol import codec, streams, subjects
from lender.protocol.classes import WorkClass
from lender.protocol.job import JobSpec
from lender.protocol.lease import LEASE_TTL_S, Done, DoneReply, HeldLease, Lease, Offer
from lender.protocol.result import TaskResult
from lender.protocol.signature import Signer, seed_from_entropy
from lender.protocol.signed_results import result_digest, signed_bytes

DESK, THIEF = (Signer(seed_from_entropy(bytes([n]) * 32)) for n in (51, 59))
TIME_S = 30


class HandLender:
    """A lender that does what a test says, word by word."""

    def __init__(self, connection: Connection, signer: Signer, spec: JobSpec) -> None:
        self.key = signer.public_key
        self.signer = signer
        self._connection = connection
        self._spec = spec
        self._token = WorkClass.of(spec).token

    async def offer(self, *held: Lease) -> None:
        """Say what it could run, and what it holds."""
        leases = tuple(
            HeldLease(lease=one.lease, job=one.job, submitter=one.submitter, state="running")
            for one in held
        )
        offer = Offer(
            lender=self.key,
            name="hand",
            phase="lending",
            slots_total=2,
            slots_free=2 - len(leases),
            cpu_free=2.0,
            memory_free_bytes=4 << 30,
            arch="x86_64",
            os="linux",
            runtimes=("process",),
            classes=(self._token,),
            consent_digest="",
            leases=leases,
        )
        await self._connection.publish(subjects.offer(self.key), codec.encode(offer))

    async def queued(self) -> Lease:
        """The lease that waits in the queue; whoever is there may take it."""
        js = JetStream(self._connection)
        subject = subjects.work(self._token)
        async with asyncio.timeout(TIME_S):
            while (stored := await js.get_last(streams.WORK, subject)) is None:
                await self.offer()
                await asyncio.sleep(0.05)
        return codec.decode(Lease, stored.payload)

    def results(self, lease: Lease, value: bytes) -> tuple[TaskResult, ...]:
        return tuple(
            TaskResult(task=task, state="succeeded", exit_code=0, value=value)
            for task in lease.tasks()
        )

    def signature(self, lease: Lease, results: Sequence[TaskResult]) -> str:
        digests = {one.task: result_digest(one) for one in results}
        digest = sha256(payload_of(self._spec)).digest()
        signed = signed_bytes(digest, self.key, lease.lease, lease.attempt, digests)
        return self.signer.sign(signed)

    async def report(self, lease: Lease, value: bytes, **changes: object) -> str:
        """Answer a lease; returns the broker's verdict."""
        results = self.results(lease, value)
        done = Done(
            lease=lease.lease,
            job=lease.job,
            submitter=lease.submitter,
            results=results,
            signature=self.signature(lease, results),
            final=True,
        ).model_copy(update=changes)
        subject = subjects.done(self.key)
        msg = await self._connection.request(subject, codec.encode(done), timeout_s=10)
        return codec.decode(DoneReply, msg.data).verdict


@pytest.fixture
async def client(nats: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Client]:
    """A submitter who trusts the desk alone, before a real broker."""
    key = tmp_path / "submitter.nk"
    alice = create_key(key, bytes(range(32)))
    broker = BrokerProcess(tmp_path / "broker", nats.url)
    broker.allow("alice", alice.public_key)
    await broker.start()
    async with Client(nats.url, key, trusted_lenders=[DESK.public_key]) as opened:
        yield opened
    broker.kill()


async def submitted(client: Client) -> Job:
    return await client.submit(["true"])


async def held(client: Client, job: Job, lender: HandLender, lease: Lease) -> None:
    """Have the broker know who holds a lease."""
    async with asyncio.timeout(TIME_S):
        while (status := await client.status(job)) is None or status.state != "running":
            await lender.offer(lease)
            await asyncio.sleep(0.05)


async def test_a_lease_is_answered_by_who_holds_it(client: Client, connection: Connection) -> None:
    """Forged: of a lease that is guessed. Stolen: of another's, whose id has leaked."""
    job = await submitted(client)
    desk, thief = (HandLender(connection, one, job.spec) for one in (DESK, THIEF))
    lease = await desk.queued()
    await held(client, job, desk, lease)
    await thief.offer()
    guessed = lease.model_copy(update={"lease": "g" * 22})
    assert await thief.report(guessed, b"forged") == "stale"
    assert await thief.report(lease, b"stolen") == "stale"
    assert await desk.report(lease, b"true") == "committed"
    result = await job.result(TIME_S)
    assert (result.value, result.terminal.lender) == (b"true", desk.key)


async def test_what_comes_late_is_refused(client: Client, connection: Connection) -> None:
    job = await submitted(client)
    late, desk = (HandLender(connection, one, job.spec) for one in (THIEF, DESK))
    lease = await late.queued()
    await held(client, job, late, lease)
    attempt = lease.attempt
    async with asyncio.timeout(TIME_S):
        while attempt == lease.attempt:  # it is silent for longer than a lease lives
            await asyncio.sleep(LEASE_TTL_S / 10)
            await desk.offer()
            again = await desk.queued()
            attempt = again.attempt
    assert await late.report(lease, b"late") == "stale"
    await desk.offer(again)
    assert await desk.report(again, b"true") == "committed"
    result = await job.result(TIME_S)
    assert (result.value, result.terminal.attempt) == (b"true", 2)


@pytest.mark.parametrize("lie", ["signed by itself", "another's signature", "no signature"])
async def test_no_result_passes_for_another_lenders(
    client: Client, connection: Connection, lie: str
) -> None:
    """It was given the lease; only the submitter can tell whom it trusts."""
    job = await submitted(client)
    desk, thief = (HandLender(connection, one, job.spec) for one in (DESK, THIEF))
    lease = await thief.queued()
    await thief.offer(lease)
    changes: dict[str, object] = {
        "signed by itself": {},
        "another's signature": {"signature": desk.signature(lease, desk.results(lease, b"lie"))},
        "no signature": {"signature": None},
    }[lie]
    assert await thief.report(lease, b"lie", **changes) == "committed"
    with pytest.raises(UntrustedResult) as caught:
        await job.result(TIME_S)
    assert caught.value.lender == thief.key, "it is told whose it is said to be"


async def test_a_report_of_what_was_not_leased_is_malformed(
    client: Client, connection: Connection
) -> None:
    job = await submitted(client)
    desk = HandLender(connection, DESK, job.spec)
    lease = await desk.queued()
    await desk.offer(lease)
    of_others = tuple(
        TaskResult(task=task, state="succeeded", exit_code=0, value=b"x") for task in (0, 1)
    )
    twice = desk.results(lease, b"a") + desk.results(lease, b"b")
    for changes in (
        {"results": of_others},
        {"results": twice},
        {"job": "job-of-others"},
        {"submitter": THIEF.public_key},
    ):
        assert await desk.report(lease, b"x", **changes) == "malformed"
    assert await job.terminal() is None
    assert await desk.report(lease, b"true") == "committed"
    assert (await job.result(TIME_S)).value == b"true"
