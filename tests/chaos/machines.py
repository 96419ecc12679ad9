"""The processes under test, and the lines between them, each through a proxy of its own."""

import asyncio
import contextlib
import json
import os
import pwd
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fault_proxy import FaultProxy, Way
from nats_cluster import NatsCluster

from chaos.schedule import Cast
from deploy.local.fleet import (
    DEDICATED,
    ORDINARY_USER,
    FleetError,
    Lender,
    Part,
    command,
    wait_until,
)
from deploy.local.guard import Guard

SUBMITTERS = ("alice", "bob")
READY_S = 40.0
_LOOK_AGAIN_S = 0.5
_STOP_S = 25.0
_LEADS_S = 120.0
_AT_ONCE = 4
_TRIES = 4
_TWICE = 0.05
"""Of the messages that may come twice."""

_MAY_COME_TWICE = ("done.", "offer.", "query.", "submit.", "cancel.", "work.", "ctl.", "event.")


class Line:
    """One party's way to the cluster: a proxy before each node, all in the same weather."""

    def __init__(self, ports: Sequence[int], chance: random.Random) -> None:
        def doubled(_way: Way, subject: str) -> bool:
            return subject.startswith(_MAY_COME_TWICE) and chance.random() < _TWICE

        self._proxies = [FaultProxy(port, chance, doubled) for port in ports]
        for proxy in self._proxies:
            proxy.pass_on()

    @property
    def url(self) -> str:
        return ",".join(proxy.url for proxy in self._proxies)

    def each(self, do: Callable[[FaultProxy], None]) -> None:
        for proxy in self._proxies:
            do(proxy)

    async def close(self) -> None:
        await asyncio.gather(*(proxy.close() for proxy in self._proxies))


class Machines:
    """Everything that runs. What ends although nobody struck it is started again, and counted.

    Attributes:
        down: what was killed and is not to be started before `bring_back`.
        deaths: what ended by itself, and the last line that it said.
    """

    def __init__(self, folder: Path, chance: random.Random, token: str, lenders: int) -> None:
        """Prepare.

        Args:
            folder: one that an ordinary user may enter.
            chance: for the weather.
            token: in the environment of whatever is started here.
            lenders: how many.
        """
        self.folder = folder
        self.cluster = NatsCluster(folder / "nats")
        self._chance = chance
        self._token = token
        self._guard = Guard()
        self.cast = Cast(
            lenders=[f"lender-{number:02}" for number in range(1, lenders + 1)],
            brokers=["broker-1", "broker-2"],
            nodes=list(self.cluster.nodes),
            submitters=SUBMITTERS,
        )
        self.lenders: dict[str, Lender] = {}
        self.brokers: dict[str, Part] = {}
        self.lines: dict[str, Line] = {}
        self.keys: dict[str, str] = {}
        self.down: set[str] = set()
        self.deaths: list[str] = []

    def key_file(self, submitter: str) -> Path:
        return self.folder / f"{submitter}.nk"

    def part(self, name: str) -> Part:
        return self.lenders.get(name) or self.brokers[name]

    async def start_core(self) -> None:
        """Start the cluster and the brokers, and prepare the lenders; no lenderd runs yet."""
        await self.cluster.start()
        for name in (*self.cast.brokers, *self.cast.lenders, *SUBMITTERS):
            self.lines[name] = Line(self.cluster.ports, self._chance)
        for submitter in SUBMITTERS:
            self.keys[submitter] = await asyncio.to_thread(self._new_key, submitter)
        for name in self.cast.brokers:
            self.brokers[name] = await asyncio.to_thread(self._broker, name)
            self.brokers[name].start()
        for name in self.cast.lenders:
            self.lenders[name] = self._lender(name)
        ready = [self.folder / f"{name}.json" for name in self.brokers]
        await self._wait(
            lambda: any(one.exists() for one in ready), "a broker that leads", _LEADS_S
        )

    async def start_lenders(self) -> None:
        """Start them, a few at a time."""
        left = list(self.lenders.values())
        while left:
            now, left = left[:_AT_ONCE], left[_AT_ONCE:]
            for lender in now:
                lender.start()
            for lender in now:
                await self._until_lending(lender)

    async def keep_running(self) -> None:
        """Start again what has ended by itself, as a machine's own service manager does."""
        while True:
            await asyncio.sleep(_LOOK_AGAIN_S)
            for name, part in (*self.brokers.items(), *self.lenders.items()):
                if name not in self.down and not part.alive():
                    self.deaths.append(f"{name}: {(part.said().splitlines() or [''])[-1]}")
                    part.start()

    def strike_down(self, name: str) -> None:
        """Kill a process; it stays away."""
        self.down.add(name)
        if name in self.cluster.nodes:
            self.cluster.kill(name)
        else:
            self.part(name).kill()

    async def bring_back(self, name: str) -> None:
        if name in self.cluster.nodes:
            await self.cluster.start_node(name)
        else:
            self.part(name).start()
        self.down.discard(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        if name in self.cluster.nodes:
            self.cluster.signal(name, number)
        elif self.part(name).alive():
            os.kill(self.part(name).pid, number)

    async def heal(self) -> None:
        """Take every fault back."""
        for line in self.lines.values():
            line.each(FaultProxy.pass_on)
        for name in (*self.brokers, *self.cluster.nodes):
            self.signal(name, signal.SIGCONT)
        for name in sorted(self.down):
            await self.bring_back(name)
        await self.cluster.until_whole()
        for lender in self.lenders.values():
            await self._until_lending(lender)

    async def stop(self) -> None:
        """End everything in good order, lenders first; what does not heed is killed."""
        await _end(list(self.lenders.values()))
        await _end(list(self.brokers.values()))

    async def close(self) -> None:
        """Leave no process and no socket behind."""
        try:
            await self.stop()
        finally:
            self.cluster.close()
            await asyncio.gather(*(line.close() for line in self.lines.values()))
            self._guard.close()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _until_lending(self, lender: Lender) -> None:
        """Start it anew where it does not lend: its self-test gives up on a machine too busy."""
        for _ in range(_TRIES):
            with contextlib.suppress(FleetError):
                await self._wait(lender.lending, f"{lender.name} lends")
                return
            self.strike_down(lender.name)
            await self.bring_back(lender.name)
        await self._wait(lender.lending, f"{lender.name} lends")

    async def _wait(
        self, condition: Callable[[], bool], what: str, within_s: float = READY_S
    ) -> None:
        await asyncio.to_thread(wait_until, condition, what, within_s)

    def _new_key(self, submitter: str) -> str:
        said = subprocess.run(
            [command("lender"), "keygen", "--key", str(self.key_file(submitter)), "--json"],
            capture_output=True,
            text=True,
            check=True,
        )
        return str(json.loads(said.stdout)["public_key"])

    def _broker(self, name: str) -> Part:
        state = self.folder / name
        for submitter, key in self.keys.items():
            allow = ("allow", "--state", str(state), submitter, key)
            subprocess.run([command("lender-broker"), *allow], check=True)
        argv = [command("lender-broker"), "serve", "--state", str(state)]
        argv += ["--url", self.lines[name].url, "--ready-file", str(self.folder / f"{name}.json")]
        env = {"LENDER_BROKER_REPLICAS": "3"}
        return Part(name, argv, self._env(env), self.folder / f"{name}.log", self._guard)

    def _lender(self, name: str) -> Lender:
        env = {
            "LENDERD_POLICY": DEDICATED,
            "LENDERD_SLOTS": "1",
            "LENDERD_RUNTIMES": '["process"]',
            "LENDERD_RESERVE_MEMORY_BYTES": str(64 << 20),
        }
        state = self.folder / name
        state.mkdir(mode=0o711)
        if os.geteuid() == 0:
            env["LENDERD_USER"] = ORDINARY_USER
            user = pwd.getpwnam(ORDINARY_USER)
            os.chown(state, user.pw_uid, user.pw_gid)
        return Lender(name, self.folder, self.lines[name].url, self._env(env), self._guard)

    def _env(self, more: Mapping[str, str]) -> dict[str, str]:
        return {"LENDER_CHAOS": self._token, **more}


async def _end(parts: Sequence[Part]) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _STOP_S
    while left := [part for part in parts if part.alive()]:
        for part in left:
            if loop.time() > deadline:
                part.kill()
            else:
                part.ask_to_end()
        await asyncio.sleep(0.5)
