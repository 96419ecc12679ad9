"""Broker, lenders and a submitter work with a deployment's credentials, and are held to them."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats_server import until
from vouched_fleet import VouchedFleet

from broker.deployment.tokens import Key
from deploy.local.fleet import wait_until
from lender.client import Client, NotAdmitted
from lender.link.api import JetStream
from lender.link.connection import Closed, ConnectError, State, connect
from lender.protocol.streams import WORK, consumer_config
from lender.protocol.subjects import work

WITHIN_S = 1.0


@pytest.fixture
def vouched(open_folder: Path) -> Iterator[VouchedFleet]:
    with VouchedFleet(open_folder, ("desk", "attic")) as running:
        yield running


def client(fleet: VouchedFleet) -> Client:
    return Client(fleet.url, fleet.key, credentials=fleet.submitter_credentials)


async def test_work_goes_there_and_back_and_nobody_asks_for_more_than_he_may(
    vouched: VouchedFleet,
) -> None:
    content = os.urandom(1 << 20)
    async with client(vouched) as submitter:
        job = await submitter.submit(
            ["sh", "-c", "echo hello >&2; cp in out; cat in | wc -c"],
            inputs={"in": content},
            outputs=["out"],
        )
        pieces = [piece async for piece in job.log()]
        result = await job.result(timeout_s=60)
        assert result.terminal.state == "succeeded", result.terminal
        assert b"".join(piece.content for piece in pieces) == b"hello\n"
        array = await submitter.submit(["sh", "-c", "echo {task}"], array=200)
        assert (await array.ended(60)).state == "succeeded"
        assert len([one async for one in array.results()]) == 200
        assert len(await submitter.jobs()) == 2
        assert (await submitter.get(job.id)).spec == job.spec

        # The server starts anew on its store, and the broker reads its streams.
        vouched.broker.kill()
        vouched.start_broker()
        again = await submitter.submit(["true"])
        assert (await again.ended(60)).state == "succeeded"
        slow = await submitter.submit(["sleep", "60"])
        wait_until(lambda: any(one.busy() for one in vouched.lenders.values()), "the task")
        await slow.cancel()
        assert (await slow.ended(30)).state == "cancelled"
    for part in (vouched.broker, *vouched.lenders.values()):
        assert "ermissions" not in part.log.read_text(), part.name


async def test_a_lease_that_outlives_its_line_counts_once_and_leaves_nothing_behind(
    vouched: VouchedFleet,
) -> None:
    """Its lender may not acknowledge it any more: it comes again, and who gets it is stopped."""
    async with client(vouched) as submitter:
        job = await submitter.submit(["sh", "-c", "sleep 6; echo done"])
        wait_until(lambda: any(one.busy() for one in vouched.lenders.values()), "the task")
        vouched.broker.kill()
        vouched.start_broker()
        result = await job.result(timeout_s=60)
        assert (result.terminal.state, result.terminal.attempt) == ("succeeded", 1)
    broker = vouched.deployment.broker_credentials
    async with await connect(vouched.url, name="test", credentials=broker) as connection:
        jetstream = JetStream(connection)
        for one in (await jetstream.get_page(WORK, 1, 10)).messages:
            # Sooner than after half a minute.
            config = consumer_config(one.subject.removeprefix(work("")))
            await jetstream.ensure_consumer(WORK, config | {"ack_wait": 1_000_000_000})
        async with asyncio.timeout(60):
            while (await jetstream.get_page(WORK, 1, 10)).messages:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.1)


async def test_who_has_no_credentials_is_not_let_in(vouched: VouchedFleet) -> None:
    with pytest.raises(NotAdmitted):
        async with Client(vouched.url, vouched.key, connect_timeout_s=1.0):
            pass
    with pytest.raises(ConnectError):
        await connect(vouched.url, name="stranger", timeout_s=1.0)


async def test_a_revoked_lender_is_out_within_a_second_and_its_credentials_are_worth_nothing(
    vouched: VouchedFleet,
) -> None:
    key = Key.make("user", os.urandom(32))
    path = vouched.folder / "attic-2.creds"
    path.write_text(vouched.let_in("lender", key, "attic-2"))
    path.chmod(0o600)
    states: list[tuple[float, State]] = []
    connection = await connect(
        vouched.url,
        name="attic-2",
        credentials=path,
        inbox_prefix=f"_INBOX_{key.public}",
        on_state=lambda state: states.append((time.monotonic(), state)),
        timeout_s=10,
    )
    async with connection:
        revoked = vouched.broker_verb("revoke", key.public, "--url", vouched.url)
        assert revoked.returncode == 0, revoked.stderr
        told = time.monotonic()
        await connection_lost(states)
        assert states[0][0] < told + WITHIN_S
        assert not connection.connected
    with pytest.raises(ConnectError):
        await connect(vouched.url, name="attic-2", credentials=path, timeout_s=WITHIN_S)

    # Nobody else was disturbed, and a new server knows it too.
    assert all(one.lending() for one in vouched.lenders.values())
    vouched.broker.kill()
    vouched.start_broker()
    with pytest.raises(ConnectError):
        await connect(vouched.url, name="attic-2", credentials=path, timeout_s=WITHIN_S)
    async with client(vouched) as submitter:
        job = await submitter.submit(["true"])
        assert (await job.ended(60)).state == "succeeded"


async def connection_lost(states: list[tuple[float, State]]) -> None:
    await until(lambda: states, 10)
    await until(lambda: any(isinstance(state, Closed) for _, state in states), 10)
