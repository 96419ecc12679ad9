"""What the sensors say of each lease reaches the core whole."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from core_world import lease_id, make_lease, make_spec

from lender.core.effects import OpenSandbox
from lender.core.events import DiskSampled, Event, MachineSampled, UsageMetered
from lender.core.signals import Presence, Signals
from lender.daemon.execution import Execution
from lender.daemon.sampling import Sampler
from lender.daemon.task_logs import TaskLogs
from lender.sensors.machine import MachineReading
from lender.sensors.metering import Metered
from lender.state.folder import StateFolder

GIB = 1 << 30


async def test_all_that_a_lease_used_is_told_before_the_reading_of_the_machine(
    tmp_path: Path,
) -> None:
    told: list[Event] = []
    used = Metered(
        cpu_s=2.0,
        memory_bytes=1,
        memory_peak_bytes=3,
        gpu_s=1.5,
        vram_bytes=1,
        vram_peak_bytes=GIB,
        gpu_joules=60.0,
    )
    spec = make_spec(program=None, runtime="process", workload="command", argv=("true",))
    machinery: Any = SimpleNamespace(
        state=StateFolder(tmp_path),
        inputs=SimpleNamespace(for_lease=lambda _: None),
        records=None,
        seals=None,
        receipts=None,
        logs=TaskLogs("U" + "L" * 55),
        devices=None,
    )
    one = Execution(machinery, OpenSandbox(make_lease(spec), spec, "G-1"))
    one._work.cancel()
    signals = Signals(0.5, GIB)
    surroundings = SimpleNamespace(presence=Presence(), inhibited_by="", game=False, metered=False)
    parts: dict[str, Any] = {
        "shell": SimpleNamespace(executions={lease_id(1): one}, post=told.append),
        "machine": SimpleNamespace(
            read=lambda *_: MachineReading(signals, {lease_id(1): used}, ("a fault",))
        ),
        "presence": SimpleNamespace(read=lambda _: surroundings),
        "agents": SimpleNamespace(sightings=lambda _: ()),
        "history": SimpleNamespace(record=lambda *_: None, fault=""),
        "clock": SimpleNamespace(reread=lambda: None),
        "disk": SimpleNamespace(read=lambda: DiskSampled(7)),
    }
    sampler = Sampler(**parts, launcher_pid=1, look=lambda: None)
    sampler.sample()
    metered, disk, sampled = told
    assert disk == DiskSampled(7)
    assert metered == UsageMetered(lease_id(1), 2.0, 3, 0, 1.5, GIB, 60.0)
    assert isinstance(sampled, MachineSampled)
    assert sampled.signals.cpu_others == 0.5
    assert sampler.faults == ("a fault",)
