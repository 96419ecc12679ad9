"""The network fails between NATS and its clients, or a node of NATS: each task ends once."""

import asyncio
import base64
import contextlib
import os
import pwd
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import nats as nats_py
import pytest
from broker_parts import (
    ALICE,
    LENDERS,
    BrokerProcess,
    FakeLender,
    Submitter,
    class_token,
    connect,
    spec_fields,
    until,
)
from fault_proxy import FaultProxy
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from nats_cluster import NatsCluster, cluster

from deploy.local.fleet import DEDICATED, ORDINARY_USER, Lender, wait_until
from deploy.local.guard import Guard
from lender.link.embedded import EmbeddedServer
from lender.state.folder import StateFolder
from lender.state.receipts import ReceiptLog

__all__ = ["cluster"]  # fixtures

TASKS = 200
TASK_S = 0.02
JOB = "job-0001"
# Shorter than the silence that costs a lender its leases, 2.5 s.
SHORT_S = 1.2
# Longer than that, and than a leader's term of 3 s.
LONG_S = 4.5

Disaster = Callable[[], Awaitable[None]]


class Stage:
    """A broker and two lenders, each at the end of a line of its own; the submitter's is sound.

    Attributes:
        broker_line: the broker's.
        lines: the lenders'.
    """

    broker_line: FaultProxy

    def __init__(self, broker: BrokerProcess, alice: Submitter) -> None:
        self.broker = broker
        self.alice = alice
        self.lines: list[FaultProxy] = []
        self.lenders: list[FakeLender] = []

    @property
    def runs(self) -> int:
        return sum(lender.ran.total() for lender in self.lenders)

    async def array_survives(self, disaster: Disaster) -> None:
        """Have an array run, with the disaster in its middle; each task has one result."""
        await self.alice.submit(spec_fields(JOB, array={"count": TASKS}))
        await until(lambda: self.runs >= TASKS // 4, "a quarter of the tasks")
        await disaster()
        await each_task_once(self.alice, TASKS, within_s=45)
        assert self.broker.alive, self.broker.log()

    async def full_hands(self) -> None:
        """Wait until the first lender holds all that it can, so that no lease is on its way to it.

        One that is lost on its way comes again by the queue's own clock, after 30 s.
        """
        first = self.lenders[0]
        await until(lambda: len(first.held) == first.slots, "all slots in use", pause_s=0.001)


async def each_task_once(alice: Submitter, tasks: int, within_s: float) -> None:
    terminal = await alice.terminal(JOB, within_s)
    assert (terminal["state"], terminal["tasks_succeeded"]) == ("succeeded", tasks)
    results = await results_of(alice)
    assert sorted(result["task"] for result in results) == list(range(tasks))
    assert all(int(base64.b64decode(one["value"])) == one["task"] for one in results)


async def results_of(alice: Submitter) -> list[dict[str, Any]]:
    """Read them; a cluster that has just lost a node may have no room for a consumer yet."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await alice.all_results(JOB)
            except (NatsError, JetStreamError):
                await asyncio.sleep(0.5)


@pytest.fixture
async def stage(nats: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Stage]:
    assert nats.port is not None
    async with contextlib.AsyncExitStack() as stack:
        broker_line = await stack.enter_async_context(FaultProxy(nats.port))
        broker = BrokerProcess(tmp_path / "broker", broker_line.url)
        stack.callback(broker.kill)
        broker.allow("alice", ALICE.public_key)
        await broker.start()
        set_up = Stage(broker, Submitter(await connected(stack, nats.url)))
        set_up.broker_line = broker_line
        classes = [class_token(spec_fields(JOB))]
        for name in LENDERS[:2]:
            line = await stack.enter_async_context(FaultProxy(nats.port))
            lender = FakeLender(await connected(stack, line.url), name, classes, task_s=TASK_S)
            set_up.lines.append(line)
            set_up.lenders.append(await stack.enter_async_context(lender))
        yield set_up


async def connected(stack: contextlib.AsyncExitStack, url: str) -> Client:
    nc = await connect(url)
    stack.push_async_callback(nc.close)
    return nc


async def test_the_brokers_line_is_cut(stage: Stage) -> None:
    async def disaster() -> None:
        for _ in range(3):
            stage.broker_line.cut()
            await asyncio.sleep(0.2)

    await stage.array_survives(disaster)
    assert stage.runs < 1.5 * TASKS, "only what was being fed at a cut may run again"


async def test_the_broker_is_half_deaf_and_what_it_commits_lands_unanswered(stage: Stage) -> None:
    async def disaster() -> None:
        stage.broker_line.swallow("down")
        await asyncio.sleep(SHORT_S)
        stage.broker_line.pass_on()

    await stage.array_survives(disaster)
    assert stage.runs < 1.5 * TASKS


async def test_the_brokers_line_is_half_open_beyond_its_term(stage: Stage) -> None:
    async def disaster() -> None:
        stage.broker_line.swallow()
        await asyncio.sleep(LONG_S)
        stage.broker_line.pass_on()

    await stage.array_survives(disaster)


async def test_the_brokers_network_is_parted_and_whole_again(stage: Stage) -> None:
    """What either side said meanwhile comes late, all of it."""

    async def disaster() -> None:
        stage.broker_line.hold()
        await asyncio.sleep(LONG_S)
        stage.broker_line.pass_on()

    await stage.array_survives(disaster)


async def test_a_lenders_line_is_cut(stage: Stage) -> None:
    async def disaster() -> None:
        for _ in range(3):
            await stage.full_hands()
            stage.lines[0].cut()
            await asyncio.sleep(0.2)

    await stage.array_survives(disaster)
    assert stage.runs == TASKS, "a cut shorter than a lease's patience costs nothing"


async def test_a_lender_that_is_not_heard_loses_its_leases_and_they_count_once(
    stage: Stage,
) -> None:
    silent = stage.lenders[0]

    async def disaster() -> None:
        await stage.full_hands()
        stage.lines[0].swallow("up")
        # The other one runs all the rest, and what the silent one held once more.
        await stage.alice.terminal(JOB, within_s=45)
        stage.lines[0].pass_on()
        await until(lambda: silent.verdicts["stale"] > 0, "an answer to what it held")

    await stage.array_survives(disaster)
    assert TASKS < stage.runs < 2 * TASKS, "only what was lost is run again"


async def test_reports_whose_answers_are_lost_are_repeated_and_count_once(stage: Stage) -> None:
    deaf = stage.lenders[0]

    async def disaster() -> None:
        await stage.full_hands()
        stage.lines[0].swallow("down")
        await stage.alice.terminal(JOB, within_s=45)
        assert len(deaf.held) == deaf.slots, "it has heard of no commit"
        stage.lines[0].pass_on()
        await until(lambda: not deaf.held, "the answers")

    await stage.array_survives(disaster)
    assert set(deaf.verdicts) == {"committed"}
    assert stage.runs == TASKS


async def test_reports_and_offers_that_come_twice_count_once(stage: Stage) -> None:
    def doubled(_way: str, subject: str) -> bool:
        return subject.startswith(("done.", "offer.", "query."))

    for line in (stage.broker_line, *stage.lines):
        line.doubled = doubled
        line.cut()  # from the beginning of a connection on

    async def disaster() -> None:
        """It lasts all the time."""

    await stage.array_survives(disaster)
    assert stage.runs == TASKS
    assert {verdict for lender in stage.lenders for verdict in lender.verdicts} == {"committed"}


async def test_the_node_of_a_cluster_that_answers_for_the_results_is_killed(
    cluster: NatsCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENDER_BROKER_REPLICAS", "3")
    broker = BrokerProcess(tmp_path / "broker", cluster.url)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(broker.kill)
        broker.allow("alice", ALICE.public_key)
        await broker.start()
        clients = []
        for _ in range(3):
            nc = await nats_py.connect(
                cluster.url.split(","),
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.05,
                error_cb=ignore,
            )
            stack.push_async_callback(nc.close)
            clients.append(nc)
        stage = Stage(broker, Submitter(clients[0]))
        classes = [class_token(spec_fields(JOB))]
        for nc, name in zip(clients[1:], LENDERS, strict=False):
            lender = FakeLender(nc, name, classes, task_s=TASK_S)
            stage.lenders.append(await stack.enter_async_context(lender))

        async def disaster() -> None:
            cluster.kill(await cluster.leader_of("RESULTS"))

        await stage.array_survives(disaster)


async def ignore(_: Exception) -> None:
    """Servers are killed here."""


@pytest.fixture
def desk(open_folder: Path) -> Iterator[Callable[[str], Lender]]:
    """Makes a lenderd whose owner lets Alice run commands."""
    guard = Guard()

    def start(url: str) -> Lender:
        env = {
            "LENDERD_POLICY": DEDICATED,
            "LENDERD_SLOTS": "1",
            "LENDERD_RUNTIMES": '["process"]',
        }
        state = open_folder / "desk"
        state.mkdir(mode=0o711)
        if os.geteuid() == 0:
            env["LENDERD_USER"] = ORDINARY_USER
            user = pwd.getpwnam(ORDINARY_USER)
            os.chown(state, user.pw_uid, user.pw_gid)
        lender = Lender("desk", open_folder, url, env, guard)
        grant = ("grant", f"alice={ALICE.public_key}", "--workload", "command", "--mem", "1G")
        said = lender.owner(*grant, "--when", "always", "--expires", "1d", "--yes")
        assert said.returncode == 0, said.stderr
        lender.start()
        return lender

    yield start
    guard.close()


@pytest.mark.timeout(150)
async def test_a_lenderd_behind_a_line_that_is_cut_and_says_things_twice_runs_each_task_once(
    nats: EmbeddedServer, tmp_path: Path, desk: Callable[[str], Lender]
) -> None:
    assert nats.port is not None
    tasks = 12  # few: beside others' work a sandbox is given next to no time

    def doubled(way: str, subject: str) -> bool:
        return subject.startswith("work." if way == "down" else ("done.", "offer."))

    async with contextlib.AsyncExitStack() as stack:
        line = await stack.enter_async_context(FaultProxy(nats.port, doubled=doubled))
        broker = BrokerProcess(tmp_path / "broker", nats.url)
        stack.callback(broker.kill)
        broker.allow("alice", ALICE.public_key)
        await broker.start()
        alice = Submitter(await connected(stack, nats.url))
        lenderd = await asyncio.to_thread(desk, line.url)
        argv = ["sh", "-c", "sleep 0.1; echo {task}"]
        await alice.submit(spec_fields(JOB, argv=argv, array={"count": tasks}))
        receipts = ReceiptLog(StateFolder(lenderd.state).receipts)
        for _ in range(3):
            await asyncio.to_thread(wait_until, lenderd.busy, "work")
            line.cut()
            await asyncio.sleep(0.5)
        await each_task_once(alice, tasks, within_s=120)
        await until(lambda: _tasks_run(receipts) >= tasks, "every receipt")
        assert _tasks_run(receipts) == tasks
        leases = [one["lease"] for one in receipts.read()]
        assert len(set(leases)) == len(leases), "a lease that comes twice is run once"
        await asyncio.to_thread(lenderd.stop)


def _tasks_run(receipts: ReceiptLog) -> int:
    return sum(one.get("tasks_run", 0) for one in receipts.read())
