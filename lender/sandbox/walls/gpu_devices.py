"""The NVIDIA GPUs that a sandbox sees: their device nodes, and no other's.

A node is called by its minor number, which is neither NVML's index (by PCI address) nor CUDA's (by
speed, unless CUDA_DEVICE_ORDER says otherwise): NVML tells the minor number of an index, and
without NVML no GPU is given. /dev/nvidia-caps, through which a GPU is divided up anew, stays out.
"""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lender.sandbox.port import PrepareFailedError

_DEV = Path("/dev")
# Of the driver as a whole: without a GPU's own node nothing can be computed through them.
_DRIVER = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
_PCI = Path("/sys/bus/pci/devices")
# What the driver's libraries look up about the machine; no serial numbers, no network interfaces.
_MACHINE = ("/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/module/nvidia")


class Gpu(NamedTuple):
    """One GPU of this machine.

    Attributes:
        minor: the number in its node's name.
        pci: its folder in sysfs, resolved; None where there is none.
    """

    minor: int
    pci: Path | None = None


def preload() -> None:
    """Load NVML's binding where there is a driver, while its files can still be read."""
    if (_DEV / _DRIVER[0]).exists():
        with contextlib.suppress(ImportError):
            import pynvml  # noqa: F401, PLC0415 - 2 MiB that a machine without a GPU must not carry


def find(indices: Sequence[int], dev: Path = _DEV) -> list[Gpu]:
    """Look up the GPUs of a plan; standard library only where it has none.

    Args:
        indices: NVML's.
        dev: where the nodes are.

    Raises:
        PrepareFailedError: the driver doesn't know one of them, or its node is missing.
    """
    if not indices:
        return []
    try:
        import pynvml  # noqa: PLC0415 - see preload
    except ImportError as error:
        raise PrepareFailedError(f"nvidia-ml-py can't be loaded: {error}") from error
    try:
        pynvml.nvmlInit()
        try:
            found = [_look_up(pynvml, index) for index in indices]
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise PrepareFailedError(
            f"the driver doesn't know GPUs {list(indices)}: {error}"
        ) from error
    for gpu in found:
        if not (dev / f"nvidia{gpu.minor}").is_char_device():
            raise PrepareFailedError(f"{dev}/nvidia{gpu.minor} is missing")
    return found


def options(gpus: Iterable[Gpu], dev: Path = _DEV) -> list[str]:
    """The words for bubblewrap that bring them in; none without a GPU.

    A node of the driver as a whole is taken where it exists: not every driver has each.
    """
    granted = list(gpus)
    if not granted:
        return []
    words = [w for name in _DRIVER for w in ("--dev-bind-try", f"{dev}/{name}", f"/dev/{name}")]
    for gpu in granted:
        name = f"nvidia{gpu.minor}"
        words += ["--dev-bind", f"{dev}/{name}", f"/dev/{name}"]
        if gpu.pci is not None:
            folder = str(gpu.pci)
            words += ["--ro-bind", folder, folder, "--symlink", folder, f"{_PCI}/{gpu.pci.name}"]
    return words + [word for place in _MACHINE for word in ("--ro-bind-try", place, place)]


def rules(gpus: Iterable[Gpu]) -> list[tuple[str, str]]:
    """The rules for them, as in `enter.RULES`."""
    nodes = [("-d", f"/dev/nvidia{gpu.minor}") for gpu in gpus]
    if not nodes:
        return []
    nodes += [("-d", f"/dev/{name}") for name in _DRIVER]
    # The driver's library names its threads by writing to their /proc/self/task/*/comm.
    return [*nodes, ("-r", "/sys"), ("-d", "/proc")]


def _look_up(nvml: Any, index: int) -> Gpu:  # noqa: ANN401 - pynvml has no types
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    minor = int(nvml.nvmlDeviceGetMinorNumber(handle))
    # "00000000:65:00.0" is 0000:65:00.0 in sysfs.
    told = nvml.nvmlDeviceGetPciInfo(handle).busId
    domain, rest = (told.decode() if isinstance(told, bytes) else str(told)).split(":", 1)
    link = _PCI / f"{int(domain, 16):04x}:{rest.lower()}"
    return Gpu(minor, link.resolve() if link.exists() else None)
