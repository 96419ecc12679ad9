"""Submitters that keep asking for work whose every value is known beforehand."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lender.client.client import Client
from lender.client.errors import ClientError
from lender.client.job import Job
from lender.protocol.job import JobSpec, Limits

OUTSTANDING_MAX = 5
"""Jobs of one submitter that have not ended."""

FAILS_WITH = 3
_LIMITS = Limits(memory_bytes=64 << 20, processes=16, time_s=120)
_PAUSE_S = 0.3


class Kind(NamedTuple):
    """One kind of job; its name and a number K are the job's name.

    Attributes:
        script: of sh; K stands for the number, {task} for the task.
        value: what a task of it prints; None: it fails.
        tasks: fewest and most; None: no array.
        weight: how often it is drawn.
    """

    script: str
    value: Callable[[int, int], int | None]
    tasks: tuple[int, int] | None
    weight: int


KINDS = {
    "squares": Kind("sleep 0.2; echo $(({task} * {task} + K))", lambda k, n: n * n + k, (5, 60), 5),
    "halves": Kind(
        f"sleep 0.1; [ $(({{task}} % 2)) = 0 ] || exit {FAILS_WITH}; echo $(({{task}} / 2 + K))",
        lambda k, n: None if n % 2 else n // 2 + k,
        (5, 30),
        2,
    ),
    "one": Kind("sleep 0.3; echo $((K * 7))", lambda k, _: k * 7, None, 5),
    "long": Kind("sleep 6; echo $((K * 9))", lambda k, _: k * 9, None, 2),
    "cancelled": Kind("sleep 0.5; echo $((K + {task}))", lambda k, n: k + n, (20, 40), 1),
}


def expected(spec: JobSpec, task: int) -> bytes | None:
    """What a task prints; None where it fails."""
    kind, number = spec.name.split()
    value = KINDS[kind].value(int(number), task)
    return None if value is None else b"%d\n" % value


class Submitting:
    """One submitter.

    Attributes:
        accepted: ids of the jobs whose submission was answered.
        unsure: how many submissions had no answer in time; they may be accepted, or not.
        ended: how many jobs it knows to have ended.
    """

    def __init__(self, url: str, key: Path, chance: random.Random, token: str) -> None:
        """Prepare; `token` is in the environment of every task."""
        self._url = url
        self._key = key
        self._chance = chance
        self._token = token
        self._stopping = asyncio.Event()
        self._outstanding: set[asyncio.Task[None]] = set()
        self.accepted: set[str] = set()
        self.unsure = 0
        self.ended = 0

    def stop(self) -> None:
        """Submit nothing more."""
        self._stopping.set()

    async def run(self) -> None:
        """Submit until `stop`, then wait for the end of every job that was accepted."""
        async with Client(self._url, self._key, timeout_s=30.0, connect_timeout_s=30.0) as client:
            try:
                while not self._stopping.is_set():
                    await self._submit_one(client)
                    await self._breathe()
                await asyncio.gather(*self._outstanding)
            finally:
                left = tuple(self._outstanding)
                for waiting in left:
                    waiting.cancel()
                await asyncio.gather(*left, return_exceptions=True)

    async def _submit_one(self, client: Client) -> None:
        (name,) = self._chance.choices(list(KINDS), [kind.weight for kind in KINDS.values()])
        kind, number = KINDS[name], self._chance.randrange(10_000)
        try:
            job = await client.submit(
                ["sh", "-c", kind.script.replace("K", str(number))],
                name=f"{name} {number}",
                array=kind.tasks and self._chance.randint(*kind.tasks),
                env={"LENDER_CHAOS": self._token},
                limits=_LIMITS,
            )
        except ClientError:
            self.unsure += 1
            return
        self.accepted.add(job.id)
        waiting = asyncio.create_task(self._follow(job, cancels=name == "cancelled"))
        self._outstanding.add(waiting)
        waiting.add_done_callback(self._outstanding.discard)

    async def _follow(self, job: Job, *, cancels: bool) -> None:
        while cancels:
            await asyncio.sleep(self._chance.uniform(0.0, 3.0))
            with contextlib.suppress(ClientError):
                await job.cancel()
                cancels = False
        while True:
            with contextlib.suppress(ClientError):
                await job.ended()
                self.ended += 1
                return
            await asyncio.sleep(_PAUSE_S)

    async def _breathe(self) -> None:
        """Wait until there is room for another job, or all is over."""
        pause_s = self._chance.expovariate(1 / _PAUSE_S)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({stopping}, timeout=pause_s)
            while len(self._outstanding) >= OUTSTANDING_MAX and not self._stopping.is_set():
                await asyncio.wait(
                    {stopping, *self._outstanding}, return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            stopping.cancel()
