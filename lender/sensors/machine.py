"""All hardware sensors together: the machine's part of `Signals`, and what each lease has used."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from lender.core.signals import GpuSignal, Signals
from lender.sensors.battery import BatterySensor
from lender.sensors.cpu import Cpu, CpuSensor
from lender.sensors.energy import EnergySensor
from lender.sensors.gpu import GpuMeter
from lender.sensors.memory import MemorySensor
from lender.sensors.metering import Leased, Meter, Metered
from lender.sensors.pressure import Pressure, PressureSensor, own_cgroup
from lender.sensors.programs import ProgramSensor
from lender.sensors.temperature import TemperatureSensor
from lender.sensors.throttling import ThrottlingSensor

_METERING_SHARE_MAX = 0.01
_METERING_PAUSE_S_MAX = 5.0


@dataclass(frozen=True, slots=True)
class MachineReading:
    """One reading of the machine.

    Attributes:
        signals: all but the presence of people, their desktop and their network.
        metered: what each lease has used, by the name that it was passed under.
        faults: sensors that gave nonsense, in words.
    """

    signals: Signals
    metered: Mapping[str, Metered]
    faults: tuple[str, ...]


class MachineSensors:
    """Reads every hardware sensor, each at its own pace. One call at a time.

    Attributes:
        SETTLE_S: rates need two looks. A reading sooner than this after the start counts every
            core as busy for others.
    """

    SETTLE_S = 0.2

    def __init__(self, exclusive_programs: Iterable[str] = (), watts_per_core: float = 0.0) -> None:
        """Find out what the machine has.

        Args:
            exclusive_programs: names of programs beside which nothing is to run.
            watts_per_core: what the owner reckons for a busy core, W; 0: nothing.
        """
        self._cpu = CpuSensor()
        self._meter = Meter()
        self._memory = MemorySensor()
        self._pressure = PressureSensor(own=own_cgroup())
        self._gpu = GpuMeter.open()
        self._temperature = TemperatureSensor()
        self._throttling = ThrottlingSensor()
        self._battery = BatterySensor()
        self._energy = EnergySensor(watts_per_core=watts_per_core)
        self._programs = ProgramSensor(tuple(exclusive_programs))
        self._metered: dict[str, Metered] = {}
        self._meter_again_at = 0.0
        self._last: tuple[Cpu, Pressure] | None = None

    def read(self, leased: Mapping[str, Leased], own_pids: Iterable[int] = ()) -> MachineReading:
        """One reading of everything; never raises, never waits for another process.

        Args:
            leased: where each lease's processes are, by any name that is wanted back.
            own_pids: lenderd's own processes, which work for no lease in particular.
        """
        now = time.monotonic()
        cpu, pressure = self._read_ours(now, leased, own_pids)
        memory = self._memory.read(now)
        gpus = self._read_gpus(now)
        temperature = self._temperature.read(now)
        power = self._battery.read(now)
        energy = self._energy.read(cpu.busy_s, cpu.elapsed_s, power.discharge_w)
        ours = {pid for pids in self._meter.pids.values() for pid in pids}
        signals = Signals(
            cpu_others=cpu.others,
            memory_available_bytes=memory.available_bytes,
            swap_in_bytes_per_s=memory.swap_in_bytes_per_s,
            pressure_cpu=pressure.cpu,
            pressure_memory=pressure.memory,
            pressure_io=pressure.io,
            gpus=gpus,
            temperature_c=temperature.celsius if temperature else None,
            temperature_limit_c=temperature.limit_c if temperature else None,
            throttled=self._throttling.read(now),
            on_battery=power.on_battery,
            battery=power.charge,
            exclusive_app=self._programs.read(now, ours),
            joules_per_cpu_s=energy.joules_per_cpu_s,
            energy_method=energy.method,
        )
        return MachineReading(signals, dict(self._metered), self._faults())

    def close(self) -> None:
        """End what a sensor has started."""
        self._throttling.close()

    def _read_ours(
        self, now: float, leased: Mapping[str, Leased], own_pids: Iterable[int]
    ) -> tuple[Cpu, Pressure]:
        """What needs to know how much is ours, so often that it takes a hundredth of a core.

        That is longer than a second apart only beside hundreds of our own processes.
        """
        same = leased.keys() == self._metered.keys()
        if self._last is not None and same and now < self._meter_again_at:
            cpu, pressure = self._last
            return Cpu(cpu.others, 0.0, 0.0), pressure
        began_s = time.thread_time()
        used = self._meter.read(leased, own_pids)
        self._metered = {name: _joined(self._metered.get(name), one) for name, one in used.items()}
        cpu = self._cpu.read(now, self._meter.grown_s)
        pressure = self._pressure.read(now, leased.values(), self._meter.delayed_s.values())
        took_s = time.thread_time() - began_s
        self._meter_again_at = now + min(_METERING_PAUSE_S_MAX, took_s / _METERING_SHARE_MAX)
        self._last = cpu, pressure
        return self._last

    def _read_gpus(self, now: float) -> tuple[GpuSignal, ...]:
        if self._gpu is None:
            return ()
        lease_of = {pid: name for name, pids in self._meter.pids.items() for pid in pids}
        reading = self._gpu.read(now, lease_of.keys())
        for name, metered in self._metered.items():
            shares = [share for pid, share in reading.ours.items() if lease_of[pid] == name]
            vram_bytes = sum(share.vram_bytes for share in shares)
            self._metered[name] = replace(
                metered,
                gpu_s=metered.gpu_s + sum(share.busy_s for share in shares),
                vram_bytes=vram_bytes,
                vram_peak_bytes=max(metered.vram_peak_bytes, vram_bytes),
                gpu_joules=metered.gpu_joules + sum(share.joules for share in shares),
            )
        return reading.gpus

    def _faults(self) -> tuple[str, ...]:
        sensors = (
            self._memory,
            self._pressure,
            self._gpu,
            self._temperature,
            self._throttling,
            self._battery,
            self._programs,
        )
        return tuple(one.fault for one in sensors if one is not None and one.fault)


def _joined(before: Metered | None, now: Metered) -> Metered:
    """The meter's figures with those of the GPUs so far."""
    if before is None:
        return now
    return replace(
        before,
        cpu_s=now.cpu_s,
        memory_bytes=now.memory_bytes,
        memory_peak_bytes=now.memory_peak_bytes,
    )
