"""A lender as broker and server meet it, on a real connection, whose tasks take no time.

Its offers are paced, and its classes pulled, by `lender.core` itself; sandboxes, signatures and all
else that costs the lender alone is left out, so that a thousand of them fit into one process.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Sequence
from typing import Final, Self

import msgpack
from nats.aio.msg import Msg

from lender.core.offering import OfferPace
from lender.core.pulling import Pulls
from lender.link.connection import Connection, connect
from lender.link.errors import LinkError
from lender.link.puller import Delivery, PullEnd, PullEnded, Puller
from lender.protocol import codec, subjects
from lender.protocol.lease import Control, Done, HeldLease, Offer
from lender.protocol.result import TaskResult
from lender.protocol.streams import WORK

SLOTS: Final = 2
_DONE_S = 30.0


class SimLender:
    """One of many in one event loop; `on_done` hears how many tasks of a lease were committed."""

    def __init__(self, key: str, classes: Sequence[str], on_done: Callable[[int], None]) -> None:
        self.key = key
        self.classes = tuple(sorted(classes))
        self._allowed = frozenset(classes)
        self.offers = 0
        """So many were sent."""
        self.cancelled = 0
        """So many leases it was told to stop."""
        self._on_done = on_done
        self._held: dict[str, HeldLease] = {}
        self._pace, self._pulls = OfferPace(), Pulls("none")
        self._pullers: dict[str, Puller] = {}
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connection: Connection

    async def start(self, url: str) -> Self:
        """Connect, and take work from now on."""
        self._connection = await connect(url, name="sim", timeout_s=60)
        for name in (self.key, subjects.ALL_LENDERS):
            await self._connection.nc.subscribe(subjects.control(name), cb=self._on_control)
        self._spawn(self._live())
        return self

    async def stop(self) -> None:
        """Vanish."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.close()

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        self._pace.ask()
        while True:
            self._wake.clear()
            now, free = loop.time(), max(0, SLOTS - len(self._held))
            for pull in self._pulls.next(now, self._allowed, free):
                await self._puller(pull.work_class).pull(pull.batch, pull.expires_s)
            leases = tuple(self._held.values())
            if self._pace.due(now, (), (free, leases), holding=bool(leases)):
                await self._offer(free, leases)
            deadlines = (self._pace.next_deadline(), self._pulls.next_deadline())
            wait_s = min(at for at in deadlines if at is not None) - loop.time()
            try:
                async with asyncio.timeout(max(0.0, wait_s)):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _offer(self, free: int, leases: tuple[HeldLease, ...]) -> None:
        self.offers += 1
        offer = Offer(
            lender=self.key,
            name="sim",
            phase="lending",
            slots_total=SLOTS,
            slots_free=free,
            cpu_free=float(free),
            memory_free_bytes=free << 30,
            arch="x86_64",
            os="linux",
            runtimes=("process",),
            classes=self.classes,
            consent_digest="",
            leases=leases,
        )
        await self._connection.publish(subjects.offer(self.key), codec.encode(offer))

    async def _on_control(self, msg: Msg) -> None:
        control = codec.decode(Control, msg.data)
        if control.kind == "hello":
            self._pace.ask()
        elif control.kind == "cancel":
            self.cancelled += len(control.leases)
        elif control.kind == "open":
            now = asyncio.get_running_loop().time()
            self._pulls.opened(now, control.classes, self._allowed, control.stand_s)
        self._wake.set()

    def _puller(self, work_class: str) -> Puller:
        def delivered(delivery: Delivery) -> None:
            self._pulls.brought(asyncio.get_running_loop().time(), work_class)
            self._pulls.served(work_class)
            self._spawn(self._run(delivery))

        def ended(end: PullEnded) -> None:
            refused = end.reason in (PullEnd.NO_CONSUMER, PullEnd.REFUSED)
            now = asyncio.get_running_loop().time()
            self._pulls.ended(now, work_class, refused=refused)
            self._wake.set()

        if work_class not in self._pullers:
            self._pullers[work_class] = Puller(self._connection, WORK, work_class, delivered, ended)
        return self._pullers[work_class]

    async def _run(self, delivery: Delivery) -> None:
        lease = msgpack.unpackb(delivery.payload)
        name = lease["lease"]
        self._held[name] = HeldLease(
            lease=name, job=lease["job"], submitter=lease["submitter"], state="running"
        )
        tasks = itertools.chain.from_iterable(range(at, at + n) for at, n in lease["ranges"])
        results = tuple(TaskResult(task=task, state="succeeded", exit_code=0) for task in tasks)
        report = Done(
            lease=name, job=lease["job"], submitter=lease["submitter"], results=results, final=True
        )
        payload = codec.encode(report)
        while True:
            try:
                reply = await self._connection.request(
                    subjects.done(self.key), payload, timeout_s=_DONE_S
                )
                break
            except LinkError:
                await asyncio.sleep(0.1)
        await delivery.ack()
        del self._held[name]
        self._wake.set()
        if msgpack.unpackb(reply.data)["verdict"] == "committed":
            self._on_done(len(results))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
