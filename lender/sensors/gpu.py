"""NVIDIA GPUs and their free memory (NVML through nvidia-ml-py)."""

from typing import Self

import pynvml


class GpuMeter:
    """An open NVML session; `open` returns None where there is no driver or no GPU."""

    def __init__(self, handles: list[object]) -> None:
        self._handles = handles

    @classmethod
    def open(cls) -> Self | None:
        """Start NVML and find the GPUs."""
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except pynvml.NVMLError:
            return None
        return cls(handles) if handles else None

    def vram_free_bytes(self) -> int:
        """Return the free memory over all GPUs; one that stopped answering counts as full."""
        free_bytes = 0
        for handle in self._handles:
            try:
                free_bytes += int(pynvml.nvmlDeviceGetMemoryInfo(handle).free)
            except pynvml.NVMLError:
                continue
        return free_bytes
