"""Streams that may hold so many bytes: what comes then is refused or waits; nothing is lost."""

import contextlib
from itertools import count
from pathlib import Path

from broker_parts import ALICE, BrokerProcess, Submitter, connect, spec_fields, until
from nats.js.errors import APIError

from broker.service.committer import RESULTS_FULL
from broker.service.settings import BYTES_MIN
from lender.link.embedded import EmbeddedServer


async def fill_results(alice: Submitter) -> None:
    """Store others' records until nothing fits any more."""
    numbers = count()
    for size in (500_000, 100_000, 10_000, 1_000, 100, 1):
        with contextlib.suppress(APIError):
            while True:
                await alice.js.publish(f"res.filler.{next(numbers)}", bytes(size))


async def test_results_wait_for_room(nats: EmbeddedServer, tmp_path: Path) -> None:
    bounded, free = (
        BrokerProcess(tmp_path / "broker", nats.url, *said)
        for said in (("--jobs-bytes", "2000000", "--results-bytes", str(BYTES_MIN)), ())
    )
    bounded.allow("alice", ALICE.public_key)
    try:
        await bounded.start()
        nc = await connect(nats.url)
        alice = Submitter(nc)
        for name, size in (("JOBS", 2_000_000), ("RESULTS", BYTES_MIN)):
            assert (await alice.js.stream_info(name)).config.max_bytes == size
        bounded.kill()
        await fill_results(alice)
        await alice.submit(spec_fields("job-0001", colour="red"))
        bounded.spawn()
        await until(lambda: RESULTS_FULL in bounded.log(), "the word to the operator")
        assert bounded.alive
        bounded.kill()
        await free.start()
        assert (await alice.terminal("job-0001"))["state"] == "rejected"
        await nc.close()
    finally:
        bounded.kill()
        free.kill()


async def test_a_broker_that_serves_waits_for_room(nats: EmbeddedServer, tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "broker", nats.url, "--results-bytes", str(BYTES_MIN))
    broker.allow("alice", ALICE.public_key)
    try:
        await broker.start()
        nc = await connect(nats.url)
        alice = Submitter(nc)
        before = (await alice.js.stream_info("RESULTS")).state.messages
        config = (await alice.js.stream_info("RESULTS")).config
        await alice.js.update_stream(config.evolve(max_bytes=1_000))
        for number in range(10):
            await alice.submit(spec_fields(f"job-{number:04d}", colour="red"))
        await until(lambda: RESULTS_FULL in broker.log(), "the word to the operator")
        await alice.js.update_stream(config)
        for number in range(10):
            assert (await alice.terminal(f"job-{number:04d}"))["state"] == "rejected"
        assert (await alice.js.stream_info("RESULTS")).state.messages == before + 10
        await nc.close()
    finally:
        broker.kill()
