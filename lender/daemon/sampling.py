"""Reads the machine every few seconds and tells the core its headroom."""

import asyncio

from lender.core.events import MachineSampled
from lender.core.signals import GpuSignal, Signals
from lender.daemon.shell import Shell
from lender.sensors import memory
from lender.sensors.cpu import CpuMeter
from lender.sensors.gpu import GpuMeter

BUSY_SAMPLE_S = 1.0
IDLE_SAMPLE_S = 5.0
"""With nothing lent the reading only decides on new work, and costs the idle machine less."""


async def sample_forever(shell: Shell, gpu: GpuMeter | None) -> None:
    """Tell a reading at once, and then one after another."""
    meter = CpuMeter()
    while True:
        roots = [root.pid for one in shell.executions.values() for root in one.roots]
        signals = Signals(
            cpu_others=meter.read(roots),
            memory_available_bytes=memory.available_bytes(),
            gpus=(GpuSignal("all", gpu.vram_free_bytes()),) if gpu else (),
        )
        shell.post(MachineSampled(signals))
        await asyncio.sleep(BUSY_SAMPLE_S if shell.executions else IDLE_SAMPLE_S)
