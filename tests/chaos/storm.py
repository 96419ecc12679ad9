"""Carries faults out and takes each one back after its time."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from fault_proxy import BOTH, FaultProxy, Way

from chaos.machines import Machines
from chaos.owners import Owner
from chaos.schedule import Fault

_DELAYS_S = (0.02, 0.1, 0.3)


class Storm:
    """One storm over all machines.

    Attributes:
        struck: how many faults of each kind there were.
    """

    def __init__(
        self,
        machines: Machines,
        owners: Mapping[str, Owner],
        chance: random.Random,
        say: Callable[[str], None],
    ) -> None:
        """Prepare; `say` takes a line for each fault."""
        self._machines = machines
        self._owners = owners
        self._chance = chance
        self._say = say
        self.struck: Counter[str] = Counter()

    async def run(self, faults: Sequence[Fault]) -> None:
        """Let every fault strike in its time; returns once all are over."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for fault in faults:
                await asyncio.sleep(max(0.0, begun + fault.at_s - loop.time()))
                self._say(str(fault))
                self.struck[f"{fault.kind} {fault.target.partition('-')[0]}"] += 1
                tasks.create_task(self._strike(fault))

    async def _strike(self, fault: Fault) -> None:
        match fault.kind:
            case "kill":
                self._machines.strike_down(fault.target)
                await asyncio.sleep(fault.lasts_s)
                await self._machines.bring_back(fault.target)
            case "stop":
                self._machines.signal(fault.target, signal.SIGSTOP)
                await asyncio.sleep(fault.lasts_s)
                self._machines.signal(fault.target, signal.SIGCONT)
            case "pause" | "drain" | "revoke":
                await self._speak(fault, self._owners[fault.target])
            case _:
                await self._disturb(fault)

    async def _disturb(self, fault: Fault) -> None:
        line = self._machines.lines[fault.target]
        ways = _ways(fault.detail)
        match fault.kind:
            case "cut":
                line.each(FaultProxy.cut)
                return
            case "refuse":
                line.each(FaultProxy.refuse)
            case "half-open":
                line.each(lambda proxy: proxy.swallow(*ways))
            case "part":
                line.each(lambda proxy: proxy.hold(*ways))
            case _:
                delay_s = self._chance.choice(_DELAYS_S)
                line.each(lambda proxy: proxy.delay(delay_s, delay_s))
        await asyncio.sleep(fault.lasts_s)
        line.each(FaultProxy.pass_on)

    async def _speak(self, fault: Fault, owner: Owner) -> None:
        if fault.kind == "revoke":
            if trusted := owner.trusted():
                name = self._chance.choice(trusted)
                await owner.revoke(name)
                await asyncio.sleep(fault.lasts_s)
                await owner.grant(name)
            return
        await (owner.pause() if fault.kind == "pause" else owner.drain())
        await asyncio.sleep(fault.lasts_s)
        await owner.resume()


def _ways(detail: str) -> tuple[Way, ...]:
    match detail:
        case "up":
            return ("up",)
        case "down":
            return ("down",)
        case _:
            return BOTH
