"""The owner's house by MQTT, whole: the server that we ship, a real lenderd, strangers beside."""

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiomqtt import Client
from house_server import HouseServer

from deploy.local.fleet import Fleet
from lender.core.home_commands import CommandKey
from lender.state.consent_files import read_intent
from lender.state.folder import StateFolder
from lender.state.home_key import read_home_key

WITHIN_S = 30.0
SET, STATE, AVAILABLE = "lender/desk/set", "lender/desk/state", "lender/desk/available"
DISCOVERY = "homeassistant/device/lender_desk/config"
PRICE = "energy/price"


async def come_true(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for it, with a bound."""
    async with asyncio.timeout(WITHIN_S):
        while not await condition():  # noqa: ASYNC110 - it is another process's
            await asyncio.sleep(0.05)


class House:
    """What Home Assistant can see and do on the house's server, and what the meter can."""

    def __init__(self, client: Client, meter: Client, fleet: Fleet) -> None:
        self.client = client
        self.meter = meter
        self.fleet = fleet
        self.desk = fleet.lenders["desk"]
        self.state = StateFolder(self.desk.state)
        self.seen: dict[str, bytes] = {}
        self.log: list[tuple[str, bytes]] = []

    async def watch(self) -> None:
        topics = ("lender/+/state", "lender/+/available", "homeassistant/+/+/config")
        await self.client.subscribe([(topic, 0) for topic in topics])
        async for message in self.client.messages:
            payload = message.payload
            assert isinstance(payload, bytes)
            self.seen[str(message.topic)] = payload
            self.log.append((str(message.topic), payload))

    @property
    def key(self) -> CommandKey:
        key = read_home_key(self.state)
        assert key is not None
        return key

    async def say(self, payload: bytes | str) -> None:
        await self.client.publish(SET, payload, qos=1)

    def signed(
        self, word: str, *, ago_s: float = 0.0, key: CommandKey | None = None, node: str = "desk"
    ) -> str:
        at = f"{time.time() - ago_s:.6f}"
        return f"{word} {at} {(key or self.key).digest(node, word, at)}"

    async def until(self, **wanted: object) -> None:
        """Wait until the state that everybody sees says so."""

        async def is_so() -> bool:
            state = json.loads(self.seen.get(STATE, b"{}"))
            return all(state.get(name) == value for name, value in wanted.items())

        await come_true(is_so)

    async def status(self) -> dict[str, Any]:
        return await asyncio.to_thread(self.desk.status)

    async def refused(self, kind: str, words: str) -> None:
        """Wait until lenderd tells its owner that it did not follow a command, and why."""

        async def is_told() -> bool:
            return words in (await self.status())["home"][kind]

        await come_true(is_told)

    async def owner(self, *verb: str) -> str:
        done = await asyncio.to_thread(self.desk.owner, *verb)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout + done.stderr

    @property
    def paused(self) -> bool:
        return read_intent(self.state).holds(time.time())


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="lender-home-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
async def house(folder: Path) -> AsyncIterator[House]:
    """A house's MQTT server, which lets nobody do more than the shipped file says, and a fleet."""
    (folder / "house").mkdir(mode=0o711)
    async with HouseServer(folder / "house") as server:
        credentials, ca = server.credentials("desk"), folder / "house.pem"
        shutil.copyfile(server.ca, ca)
        settings = {
            "url": server.url,
            "credentials": str(credentials),
            "ca": str(ca),
            "signals": [{"topic": PRICE, "kind": "price", "below": 0.3, "expires_s": 3600}],
        }
        fleet = Fleet(
            folder / "fleet",
            ("desk",),
            workloads=("command",),
            env={"LENDERD_MQTT": json.dumps(settings)},
        )
        credentials_of(fleet, credentials)
        async with (
            server.client("homeassistant") as home,
            # It tries to end lenderd's line by taking its name as a client.
            server.client("meter", identifier="lender-desk") as meter,
            asyncio.TaskGroup() as tasks,
        ):
            await meter.publish(PRICE, "0.1", qos=1, retain=True)
            await home.publish(SET, "resume 1 1", qos=1, retain=True)
            await asyncio.to_thread(fleet.__enter__)
            try:
                one = House(home, meter, fleet)
                watching = tasks.create_task(one.watch())
                yield one
                watching.cancel()
            finally:
                await asyncio.to_thread(fleet.stop)


def credentials_of(fleet: Fleet, path: Path) -> None:
    """Root's lenderd becomes somebody else, who is to read the file."""
    user = fleet._env.get("LENDERD_USER")
    if user is not None:
        shutil.chown(path, user)


async def test_it_is_seen_paused_resumed_and_revoked_and_by_nobody_else(house: House) -> None:
    async def is_there() -> bool:
        return house.seen.get(AVAILABLE) == b"online" and DISCOVERY in house.seen

    await come_true(is_there)

    # What the server had kept since before is no command.
    await house.refused("refused_strange", "the server had kept it")

    # Without a key nothing is followed.
    stranger = CommandKey("1f" * 32, "2e" * 32)
    await house.say(house.signed("pause", key=stranger))
    await house.refused("refused_strange", "no key on this machine")
    printed = await house.owner("home")
    key = house.key
    assert key.inner in printed
    assert key.outer in printed

    # Discovery tells all there is, retained, and not the key.
    about = json.loads(house.seen[DISCOVERY])
    assert set(about["components"]) >= {"lending", "mode", "phase", "revoke"}
    assert house.seen[AVAILABLE] == b"online"

    # The owner's pause: all stands still, the word is on the disk, everybody sees it.
    await house.say(house.signed("pause"))
    await house.until(lending="off", mode="paused", phase="paused")
    assert house.paused
    assert "your home automation" in await house.owner("status")
    await house.say(resume := house.signed("resume"))
    await house.until(lending="on", phase="lending")
    await house.say(house.signed("pause-2h"))
    await house.until(mode="paused")
    assert (read_intent(house.state).until or 0) > time.time() + 7000

    # Of another user's nothing arrives (permissions/test_house_rights.py). This one may write here,
    # and has all but the key, and all that was ever said.
    for payload in (
        house.signed("resume", key=stranger),
        house.signed("resume", node="attic"),
        house.signed("resume").replace("resume", "revoke"),
        "resume",
        "ON",
        b"\xff" * 40_000,
    ):
        await house.say(payload)
    await house.say(resume)
    await house.refused("refused_strange", "it came before")
    await house.say(house.signed("resume", ago_s=60))
    await house.refused("refused_strange", "clocks must agree")
    assert house.paused

    # A pause said at the machine is the machine's to lift, also over one by MQTT.
    await house.owner("pause")
    await house.say(house.signed("resume"))
    await house.refused("refused", "paused at the machine")
    await house.say(house.signed("pause-1h"))
    await house.say(house.signed("resume"))
    await house.refused("refused", "paused at the machine")
    assert house.paused
    assert read_intent(house.state).until is None
    await house.owner("resume")

    submitted = await asyncio.to_thread(
        house.fleet.submit, "submit", "--no-wait", "--", "sleep", "600"
    )
    assert submitted.returncode == 0, submitted.stderr
    await come_true(lambda: asyncio.to_thread(house.desk.busy))
    # The price presses on the machine, in the owner's words.
    await house.meter.publish(PRICE, "0.9", qos=1)

    async def presses() -> bool:
        return "power price: 0.9, over 0.3" in (await house.status())["comfort"]["reason"]

    await come_true(presses)

    # Revoked: the job is dead, no grant holds, and no resume brings any of it back.
    await house.say(house.signed("revoke"))
    await house.until(phase="unconsented")
    status = await house.status()
    assert (status["running"], status["grants"]) == ([], [])
    assert len(list(house.state.tombstones.iterdir())) == 1
    await house.say(house.signed("pause"))
    await house.until(mode="paused")
    await house.say(house.signed("resume"))
    await house.refused("refused", "nothing is granted")

    # The key was never said, and a sudden end is.
    log = b"".join(payload for _, payload in house.log)
    assert key.inner.encode() not in log
    assert key.outer.encode() not in log
    assert key.inner not in house.desk.said()
    await asyncio.to_thread(house.desk.kill)

    async def is_gone() -> bool:
        return house.seen[AVAILABLE] == b"offline"

    await come_true(is_gone)
