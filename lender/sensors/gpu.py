"""NVIDIA GPUs and their free memory (NVML through nvidia-ml-py)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

DRIVER_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""What the driver leaves behind: its control device; under WSL2, DirectX's."""


class GpuMeter:
    """An open NVML session; `open` returns None where there is no driver or no GPU."""

    def __init__(self, nvml: Any, handles: list[object]) -> None:  # noqa: ANN401 - pynvml has no types
        self._nvml = nvml
        self._handles = handles

    @classmethod
    def open(cls, driver_devices: Iterable[Path] = DRIVER_DEVICES) -> Self | None:
        """Start NVML and find the GPUs."""
        if not any(device.exists() for device in driver_devices):
            return None
        # 2 MiB that a machine without a GPU must not carry.
        import pynvml  # noqa: PLC0415

        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except pynvml.NVMLError:
            return None
        return cls(pynvml, handles) if handles else None

    def vram_free_bytes(self) -> int:
        """Return the free memory over all GPUs; one that stopped answering counts as full."""
        free_bytes = 0
        for handle in self._handles:
            try:
                free_bytes += int(self._nvml.nvmlDeviceGetMemoryInfo(handle).free)
            except self._nvml.NVMLError:
                continue
        return free_bytes
