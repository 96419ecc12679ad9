"""What becomes of submissions that go together, when something goes wrong; nothing is sent."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from lender.client.errors import LedgerFull, Rejected
from lender.client.gathering import Gathering, may_go_together
from lender.client.job import Job
from lender.client.specs import JobRequest

BOUND_S = 20


class Fleet:
    """Takes what is sent once it is told to; a handle is the command line."""

    def __init__(self) -> None:
        self.sent: list[tuple[JobRequest, list[tuple[str, ...]]]] = []
        self.given_up = 0
        self.takes = asyncio.Event()
        self.fault: Exception | None = None
        self.gathering = Gathering(self.send)

    async def send(self, request: JobRequest, lines: Sequence[Sequence[str]]) -> Sequence[Job]:
        self.sent.append((request, [tuple(line) for line in lines]))
        try:
            await self.takes.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.fault is not None:
            raise self.fault
        return cast("Sequence[Job]", list(lines))

    def submit(self, *argv: str, **fields: object) -> "asyncio.Task[Job]":
        request = JobRequest(argv=argv, **fields)  # type: ignore[arg-type]
        return asyncio.ensure_future(self.gathering.submit(request))

    async def has_sent(self, count: int) -> None:
        async with asyncio.timeout(BOUND_S):
            while len(self.sent) < count:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0)


async def test_what_everybody_gives_up_is_given_up_and_what_follows_goes() -> None:
    fleet = Fleet()
    first = [fleet.submit(word) for word in ("a", "b")]
    await fleet.has_sent(1)
    then = fleet.submit("c")
    first[0].cancel()
    await asyncio.wait(first[:1])
    assert fleet.given_up == 0
    first[1].cancel()
    await fleet.has_sent(2)
    assert fleet.given_up == 1
    fleet.takes.set()
    assert await then == ("c",)


async def test_nobody_waits_for_ever_for_what_nobody_sends_any_more() -> None:
    fleet = Fleet()
    asked = [fleet.submit("a")]
    await fleet.has_sent(1)
    asked.append(fleet.submit("b"))
    await asyncio.sleep(0)
    (sender,) = asyncio.all_tasks() - {asyncio.current_task(), *asked} - _messages()
    sender.cancel()
    done, pending = await asyncio.wait(asked, timeout=BOUND_S)
    assert (len(done), len(pending)) == (2, 0)


def _messages() -> set[object]:
    return {
        task
        for task in asyncio.all_tasks()
        if getattr(task.get_coro(), "__qualname__", "") == "Fleet.send"
    }


async def test_what_is_sent_is_what_was_asked_for_whatever_changes_meanwhile() -> None:
    fleet = Fleet()
    fleet.submit("first")
    await fleet.has_sent(1)
    argv, env = ["a"], {"N": "1"}
    request = JobRequest(argv=argv, env=env)
    one = asyncio.ensure_future(fleet.gathering.submit(request))
    await asyncio.sleep(0)
    argv[0], env["N"] = "b", "2"
    other = asyncio.ensure_future(fleet.gathering.submit(request))
    await asyncio.sleep(0)
    fleet.takes.set()
    await asyncio.gather(one, other)
    told = [(dict(request.env), lines) for request, lines in fleet.sent[1:]]
    assert told == [({"N": "1"}, [("a",)]), ({"N": "2"}, [("b",)])]


@pytest.mark.parametrize("fault", [LedgerFull(), Rejected("argv", "no")])
async def test_a_fault_is_told_to_each_who_waits(fault: Exception) -> None:
    fleet = Fleet()
    fleet.fault = fault
    asked = [fleet.submit(word) for word in ("a", "b", "c")]
    fleet.takes.set()
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert told == [fault] * 3


async def test_a_job_with_a_time_of_its_own_in_the_queue_goes_alone() -> None:
    """Of an array that ends once the first of its tasks begins."""
    assert may_go_together(JobRequest(argv=["a"]))
    assert not may_go_together(JobRequest(argv=["a"], queue_s=5.0))
