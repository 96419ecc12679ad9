"""Two pools on one server: accounts as in `deploy/nats`, a broker, lender and submitter in each."""

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from broker_parts import (
    LENDERS,
    BrokerProcess,
    FakeLender,
    Submitter,
    class_token,
    connect,
    spec_fields,
    until,
)
from nats.aio.msg import Msg

from lender.link.embedded import EmbeddedServer
from lender.protocol.signature import Signer, seed_from_entropy

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "nats"
POOLS = ("office", "render")
ROLES = ("broker", "lender", "submitter")


class Pool:
    """What has to do with one pool, and all that is said in its account."""

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.seeds: dict[str, Path] = {}
        self.keys: dict[str, Signer] = {}
        for index, role in enumerate(ROLES):
            seed = seed_from_entropy(bytes([50 + 10 * number + index] * 32))
            self.keys[role] = Signer(seed)
            self.seeds[role] = folder / f"{role}.nk"
            self.seeds[role].write_bytes(seed + b"\n")
            self.seeds[role].chmod(0o600)
        self.lender_id = LENDERS[number]
        self.heard: list[tuple[str, bytes]] = []

    def spec(self, job: str, pool: str | None = None, **changes: object) -> dict[str, Any]:
        requires = {"pool": pool or self.name}
        return spec_fields(job, self.keys["submitter"], requires=requires, **changes)

    async def open(self, url: str, stack: contextlib.AsyncExitStack, classes: list[str]) -> None:
        config = self.folder / "broker.toml"
        config.write_text(f'credentials = "{self.seeds["broker"]}"\npools = ["{self.name}"]\n')
        self.broker = BrokerProcess(self.folder / "state", url, "--config", str(config))
        stack.callback(self.broker.kill)
        submitter = self.keys["submitter"]
        self.broker.allow(self.name, submitter.public_key)
        await self.broker.start()
        lines = {}
        for role in ROLES:
            lines[role] = await connect(url, self.seeds[role])
            stack.push_async_callback(lines[role].close)
        await lines["broker"].subscribe(">", cb=self._hear)
        self.submitter = Submitter(lines["submitter"], submitter)
        self.lender = FakeLender(lines["lender"], self.lender_id, classes, task_s=0.01)
        await stack.enter_async_context(self.lender)

    async def _hear(self, msg: Msg) -> None:
        self.heard.append((msg.subject, msg.data))


@pytest.fixture
async def pools(tmp_path: Path) -> AsyncIterator[tuple[Pool, Pool]]:
    folder = tmp_path / "nats"
    folder.mkdir()
    both = []
    for number, name in enumerate(POOLS):
        (tmp_path / name).mkdir()
        both.append(Pool(name, number, tmp_path / name))
    (folder / "keys.conf").write_text(
        "".join(
            f"{one.name.upper()}_{role.upper()}: {key.public_key}\n"
            for one in both
            for role, key in one.keys.items()
        )
    )
    shutil.copy(DEPLOY / "pools.conf", folder)
    # Every lender would run whatever either submitter asks for, in either pool.
    classes = [class_token(one.spec("job-0001", pool)) for one in both for pool in POOLS]
    async with contextlib.AsyncExitStack() as stack:
        server = EmbeddedServer(folder, extra_config="include ./pools.conf")
        await server.start()
        stack.callback(server.kill)
        for one in both:
            await one.open(server.url, stack, classes)
        yield both[0], both[1]


async def test_work_stays_in_its_pool_and_each_goes_on_without_the_other(
    pools: tuple[Pool, Pool],
) -> None:
    office, render = pools
    # Both know a job of the same name.
    for one in pools:
        await one.submitter.submit(one.spec("job-0001", array={"count": 20}))
    for one in pools:
        terminal = await one.submitter.terminal("job-0001")
        assert (terminal["state"], terminal["tasks_succeeded"]) == ("succeeded", 20)
        results = await one.submitter.all_results("job-0001")
        assert sorted(result["task"] for result in results) == list(range(20))
        await until(lambda one=one: not one.lender.held, "the answers")
        assert set(one.lender.ran.values()) == {1}

    await office.submitter.submit(office.spec("job-lost", pool="render"))
    terminal = await office.submitter.terminal("job-lost")
    assert (terminal["state"], terminal["field"]) == ("rejected", "requires.pool")
    assert "render is not served here, only office" in terminal["reason"]

    office.broker.kill()
    await office.submitter.submit(office.spec("job-0002"))  # accepted: the ledger stands
    await render.submitter.submit(render.spec("job-0002"))
    terminal = await render.submitter.terminal("job-0002")
    assert terminal["lender"] == render.lender_id
    record = f"res.{office.submitter.signer.public_key}.job-0002"
    assert await office.submitter.record(record) is None
    await office.broker.start()
    terminal = await office.submitter.terminal("job-0002")
    assert terminal["lender"] == office.lender_id

    for one, other in ((office, render), (render, office)):
        strangers = [other.lender_id, *(key.public_key for key in other.keys.values())]
        # What a lender would run is in its offers and pulls; nothing else names the other.
        said = [
            subject
            for subject, data in one.heard
            if not subject.startswith(("offer.", "$JS.API.CONSUMER."))
            and any(key in subject or key.encode() in data for key in strangers)
        ]
        assert said == []
        assert any(subject.startswith("work.") for subject, _ in one.heard)
