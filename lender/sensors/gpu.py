"""NVIDIA GPUs: memory, use and energy, ours told apart from others' (NVML through nvidia-ml-py).

Seven calls into the driver for each GPU a reading. Which process held and used what is the
driver's word; what it doesn't tell counts as others'.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from lender.core.signals import GpuSignal

DRIVER_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""What the driver leaves behind: its control device; under WSL2, DirectX's."""


@dataclass(slots=True)
class GpuShare:
    """One process of ours, on all GPUs together.

    Attributes:
        vram_bytes: held now; 0 where the driver doesn't tell.
        busy_s: time that a GPU computed for it since the reading before.
        joules: energy by its share of the GPUs' use since the reading before.
    """

    vram_bytes: int = 0
    busy_s: float = 0.0
    joules: float = 0.0


@dataclass(slots=True)
class GpuReading:
    """All GPUs, and by process id what ours have of them."""

    gpus: tuple[GpuSignal, ...] = ()
    ours: dict[int, GpuShare] = field(default_factory=dict)

    def share(self, pid: int) -> GpuShare:
        """The share of one of ours, to be added to."""
        return self.ours.setdefault(pid, GpuShare())


class _Gpu:
    """One GPU, and what was seen of it at the last reading."""

    def __init__(self, nvml: Any, handle: object, name: str) -> None:  # noqa: ANN401 - pynvml has no types
        self._nvml = nvml
        self._handle = handle
        self.name = name
        self._sampled_at_us = 0
        self._millijoules: int | None = None

    def memory(self) -> tuple[int, int]:
        """Free and used bytes; the driver's own reserve is used too."""
        memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        return int(memory.free), int(memory.used)

    def holders(self) -> dict[int, int | None]:
        """Process id to the memory that it holds; None where the driver doesn't tell how much."""
        held: dict[int, int | None] = {}
        for ask in (
            self._nvml.nvmlDeviceGetComputeRunningProcesses,
            self._nvml.nvmlDeviceGetGraphicsRunningProcesses,
        ):
            for process in ask(self._handle):
                told, known = process.usedGpuMemory, held.get(process.pid, 0)
                held[process.pid] = None if told is None or known is None else max(told, known)
        return held

    def use(self) -> dict[int, float]:
        """Process id to the share of the time that the GPU worked for it, 0 to 1.

        Raises:
            NVMLError: this driver can't tell, or nobody used it since the reading before.
        """
        samples = self._nvml.nvmlDeviceGetProcessUtilization(self._handle, self._sampled_at_us)
        # The array is as long as the driver's buffer: unused places have no time.
        fresh = [s for s in samples if s.timeStamp > self._sampled_at_us]
        self._sampled_at_us = max((s.timeStamp for s in fresh), default=self._sampled_at_us)
        percents: dict[int, list[int]] = {}
        for s in fresh:
            percents.setdefault(s.pid, []).append(max(s.smUtil, s.encUtil, s.decUtil))
        return {pid: min(1.0, sum(p) / len(p) / 100) for pid, p in percents.items()}

    def whole_use(self) -> float:
        """Share of the time that it worked for anybody, 0 to 1."""
        return min(1.0, int(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu) / 100)

    def grown_j(self) -> float:
        """Energy since the reading before; 0 before Volta, which doesn't tell."""
        try:
            now = int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._nvml.NVMLError:
            return 0.0
        before, self._millijoules = self._millijoules, now
        return max(0, now - before) / 1000 if before is not None else 0.0


class GpuMeter:
    """An open NVML session; `open` returns None where there is no driver or no GPU.

    Attributes:
        fault: GPUs that stopped answering, in words; they count as full and busy.
    """

    def __init__(self, nvml: Any, gpus: list[_Gpu]) -> None:  # noqa: ANN401 - pynvml has no types
        self._nvml = nvml
        self._gpus = gpus
        self._at: float | None = None
        self.fault = ""

    @classmethod
    def open(cls, driver_devices: Iterable[Path] = DRIVER_DEVICES) -> Self | None:
        """Start NVML and find the GPUs."""
        if not any(device.exists() for device in driver_devices):
            return None
        # 2 MiB that a machine without a GPU must not carry.
        import pynvml  # noqa: PLC0415

        try:
            pynvml.nvmlInit()
            gpus = list(_find(pynvml))
        except pynvml.NVMLError:
            return None
        return cls(pynvml, gpus) if gpus else None

    def read(self, now: float, our_pids: Collection[int]) -> GpuReading:
        """One reading at `now`, seconds of a steady clock."""
        elapsed_s = max(0.0, now - self._at) if self._at is not None else 0.0
        self._at = now
        reading, lost = GpuReading(), []
        for gpu in self._gpus:
            try:
                signal = self._read(gpu, elapsed_s, our_pids, reading)
            except self._nvml.NVMLError as error:
                lost.append(f"GPU {gpu.name}: {error}")
                signal = GpuSignal(gpu.name, 0, 0, 1.0, carries_lent=bool(our_pids))
            reading.gpus += (signal,)
        self.fault = "; ".join(lost)
        return reading

    def _read(
        self, gpu: _Gpu, elapsed_s: float, our_pids: Collection[int], reading: GpuReading
    ) -> GpuSignal:
        free_bytes, used_bytes = gpu.memory()
        holders, use, joules = self._holders(gpu), self._use(gpu), gpu.grown_j()
        ours = set(our_pids) & {*(holders or ()), *(use or ())}
        for pid in ours:
            share, used = reading.share(pid), (use or {}).get(pid, 0.0)
            share.vram_bytes += (holders or {}).get(pid) or 0
            share.busy_s += used * elapsed_s
            if used > 0:
                share.joules += joules * used / max(sum((use or {}).values()), used)
        return GpuSignal(
            id=gpu.name,
            vram_free_bytes=free_bytes,
            vram_others_bytes=_of_others(holders, our_pids, used_bytes),
            use_others=self._use_of_others(gpu, holders, use, our_pids),
            carries_lent=bool(our_pids if holders is None else ours),
        )

    def _holders(self, gpu: _Gpu) -> dict[int, int | None] | None:
        try:
            return gpu.holders()
        except self._nvml.NVMLError:
            return None

    def _use(self, gpu: _Gpu) -> dict[int, float] | None:
        try:
            return gpu.use()
        except self._nvml.NVMLError:
            return None

    def _use_of_others(
        self,
        gpu: _Gpu,
        holders: dict[int, int | None] | None,
        use: dict[int, float] | None,
        our_pids: Collection[int],
    ) -> float:
        if use is not None:
            return min(1.0, sum(share for pid, share in use.items() if pid not in our_pids))
        if holders and all(pid in our_pids for pid in holders):
            return 0.0
        try:
            return gpu.whole_use()
        except self._nvml.NVMLError:
            # A GPU in MIG mode doesn't tell: it may be busy for whoever holds memory there.
            return 0.0 if holders == {} else 1.0


def _find(nvml: Any) -> Iterator[_Gpu]:  # noqa: ANN401 - pynvml has no types
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        try:
            uuid = nvml.nvmlDeviceGetUUID(handle)
            name = uuid.decode() if isinstance(uuid, bytes) else str(uuid)
        except nvml.NVMLError:
            name = f"index {index}"
        yield _Gpu(nvml, handle, name)


def _of_others(
    holders: dict[int, int | None] | None, our_pids: Collection[int], used_bytes: int
) -> int:
    """GPU memory that processes hold that are not ours; all that isn't known to be ours."""
    if holders is not None and None not in holders.values():
        return sum(held or 0 for pid, held in holders.items() if pid not in our_pids)
    ours = sum(held or 0 for pid, held in (holders or {}).items() if pid in our_pids)
    return max(0, used_bytes - ours)
