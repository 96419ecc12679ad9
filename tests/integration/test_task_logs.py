"""What a task writes reaches its submitter while it runs: through broker, lender and sandbox."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from deploy.local.fleet import Fleet, Lender
from lender.client import Client, Job, Limits, LogPiece
from lender.link.connection import connect
from lender.protocol import subjects

# The start of the fleet has bounds of its own.
pytestmark = pytest.mark.timeout(180, func_only=True)

TIME_S = 120
QUIET_S = 0.6
"""Longer than a task that writes is silent."""

TICKS = "while :; do echo tick >&2; sleep 0.05; done"


@pytest.fixture(scope="module")
def desk() -> Iterator[Fleet]:
    """A machine that runs two tasks at a time; a test leaves it lending."""
    folder = Path(tempfile.mkdtemp(prefix="lender-test-"))
    folder.chmod(0o711)
    settings = {"LENDERD_SLOTS": "2"}
    try:
        with Fleet(folder, ("desk",), workloads=("command", "python"), env=settings) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def client(desk: Fleet) -> AsyncIterator[Client]:
    async with Client(desk.url, desk.key) as one:
        yield one


async def test_what_a_task_prints_slowly_is_seen_line_by_line(client: Client) -> None:
    script = "for n in 1 2 3; do echo line $n >&2; sleep 0.8; done; echo value"
    job = await client.submit(["sh", "-c", script])
    async with asyncio.timeout(TIME_S):
        seen = [(piece.content, await job.terminal() is None) async for piece in job.log()]
        assert (await job.result()).value == b"value\n"
    assert seen[0] == (b"line 1\n", True)
    assert b"".join(content for content, _ in seen) == b"line 1\nline 2\nline 3\n"
    assert sum(runs for _, runs in seen) >= 2


async def test_what_a_function_prints_is_seen_while_it_runs(client: Client) -> None:
    def work() -> int:
        print("half of it")  # noqa: T201 - it is what is followed
        time.sleep(1.0)
        print("all of it")  # noqa: T201
        return 7

    job = await client.submit_function(work)
    async with asyncio.timeout(TIME_S):
        seen = [(piece.content, await job.job.terminal() is None) async for piece in job.job.log()]
        assert await job.value() == 7
    assert seen[0] == (b"half of it\n", True)
    assert b"".join(content for content, _ in seen) == b"half of it\nall of it\n"


async def read(job: Job, seen: list[LogPiece]) -> None:
    async for piece in job.log():
        seen.append(piece)  # noqa: PERF401 - others look at it meanwhile


async def test_a_flood_is_bounded_and_says_so_and_others_are_still_heard(client: Client) -> None:
    began_at = time.monotonic()
    script = "while :; do printf '%4096s\\n' x >&2; done"
    flood = await client.submit(["sh", "-c", script], limits=Limits(time_s=TIME_S))
    flooded: list[LogPiece] = []
    reading = asyncio.create_task(read(flood, flooded))
    async with asyncio.timeout(TIME_S):
        while b" bytes left out]\n" not in text_of(flooded):  # noqa: ASYNC110 - of a list
            await asyncio.sleep(0.05)
        script = "for n in 1 2 3 4 5 6; do echo line $n >&2; sleep 0.2; done"
        quiet = await client.submit(["sh", "-c", script])
        heard: list[LogPiece] = []
        await read(quiet, heard)
        assert not reading.done()
        await flood.cancel()
        await reading
    assert text_of(heard) == b"".join(b"line %d\n" % n for n in range(1, 7))
    assert len([piece for piece in heard if piece.content]) >= 3
    took_s = time.monotonic() - began_at
    assert len(text_of(flooded)) < (64 << 10) + (took_s + 1) * (16 << 10)


def text_of(pieces: list[LogPiece]) -> bytes:
    return b"".join(piece.content for piece in pieces)


class Wire:
    """All that passes on the subject of a job's log."""

    def __init__(self) -> None:
        self.messages: list[Msg] = []

    async def hear(self, msg: Msg) -> None:
        self.messages.append(msg)

    async def goes_on(self) -> None:
        heard = len(self.messages)
        async with asyncio.timeout(TIME_S):
            while len(self.messages) < heard + 3:  # noqa: ASYNC110 - of a list
                await asyncio.sleep(0.01)

    async def is_silent_after(self, verb: Callable[[], object]) -> None:
        await asyncio.to_thread(verb)
        heard = len(self.messages)
        await asyncio.sleep(QUIET_S)
        assert len(self.messages) <= heard + 1  # one may have been on its way


async def test_after_the_owners_word_nothing_more_is_published(desk: Fleet, client: Client) -> None:
    job = await client.submit(["sh", "-c", TICKS])
    wire, owner = Wire(), desk.lenders["desk"]
    async with await connect(desk.url, name="wire", timeout_s=10) as connection:
        subject = subjects.task_log_filter(client.public_key, job.id)
        await connection.nc.subscribe(subject, cb=wire.hear)
        await wire.goes_on()
        await wire.is_silent_after(lambda: say(owner, "pause"))
        await asyncio.to_thread(say, owner, "resume")
        await wire.goes_on()
        await wire.is_silent_after(lambda: say(owner, "revoke", "--all"))
    await job.cancel()
    for workload in ("command", "python"):
        await asyncio.to_thread(desk.grant, owner, workload)


def say(owner: Lender, *verb: str) -> None:
    said = owner.owner(*verb)
    assert said.returncode == 0, said.stderr
