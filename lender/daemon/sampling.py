"""Reads the machine and its owner's presence every few seconds, and tells the core."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import replace

from lender.core.events import MachineSampled
from lender.core.signals import OutsideReading, Signals
from lender.daemon.agent_reports import AgentReports
from lender.daemon.clock import Clock
from lender.daemon.disk_space import DiskSpace
from lender.daemon.shell import Shell
from lender.daemon.signal_history import SignalHistory
from lender.sensors.machine import MachineSensors
from lender.sensors.metering import Leased
from lender.sensors.presence import PresenceSensors

BUSY_SAMPLE_S = 1.0
IDLE_SAMPLE_S = 5.0
"""With nothing lent the reading only decides on new work, and costs the idle machine less."""


class Sampler:
    """One reading after another, at once and then paced by whether anything is lent.

    Attributes:
        faults: sensors that give nonsense, and why nothing is recorded, in words.
    """

    def __init__(
        self,
        shell: Shell,
        machine: MachineSensors,
        presence: PresenceSensors,
        agents: AgentReports,
        history: SignalHistory,
        launcher_pid: int,
        clock: Clock,
        look: Callable[[], None],
        disk: DiskSpace,
        outside: Callable[[], tuple[OutsideReading, ...]] = tuple,
    ) -> None:
        self._look = look
        self._clock = clock
        self._shell = shell
        self._machine = machine
        self._disk = disk
        self._presence = presence
        self._agents = agents
        self._history = history
        self._outside = outside
        self._own_pids = (os.getpid(), launcher_pid)
        self.faults: tuple[str, ...] = ()

    async def run(self) -> None:
        """Tell readings until cancelled."""
        self._presence.start()
        try:
            await asyncio.sleep(self._machine.SETTLE_S)
            while True:
                self.sample()
                lends = bool(self._shell.executions)
                self._presence.watch_closely(lends)
                if lends:
                    await asyncio.sleep(BUSY_SAMPLE_S)
                else:
                    await self._until_lent(IDLE_SAMPLE_S)
        finally:
            self._presence.close()
            self._machine.close()
            self._history.close()

    async def _until_lent(self, duration_s: float) -> None:
        self._shell.opened.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(duration_s):
                await self._shell.opened.wait()
                # Short work comes and goes: the first reading of it is not worth more.
                await asyncio.sleep(BUSY_SAMPLE_S)

    def sample(self) -> None:
        """Take one reading and tell it; a millisecond, more beside hundreds of processes."""
        self._clock.reread()
        self._look()
        standing = {one.name: one for one in self._shell.executions.values()}
        leased = {
            name: Leased(tuple(root.pid for root in one.roots), one.cgroup)
            for name, one in standing.items()
        }
        reading = self._machine.read(leased, self._own_pids)
        signals = self._with_people(reading.signals)
        self.faults = (*reading.faults, *([self._history.fault] if self._history.fault else ()))
        self._history.record(time.time(), signals)
        for name, used in reading.metered.items():
            self._shell.post(standing[name].metered(used))
        self._shell.post(self._disk.read())
        self._shell.post(MachineSampled(signals))

    def _with_people(self, signals: Signals) -> Signals:
        surroundings = self._presence.read(self._agents.sightings(time.monotonic()))
        return replace(
            signals,
            presence=surroundings.presence,
            inhibited_by=surroundings.inhibited_by,
            game=surroundings.game,
            metered=surroundings.metered,
            utc_offset_s=time.localtime().tm_gmtoff,
            outside=self._outside(),
        )
