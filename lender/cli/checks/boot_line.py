"""What has to be switched on as the kernel boots, and in which file that is said here.

A Raspberry Pi's firmware adds `cgroup_disable=memory` to what it boots, and its kernels have PSI
built in and off; what stands in cmdline.txt later wins (kernel-parameters.txt).
"""

from collections.abc import Sequence
from pathlib import Path

_PI_FILES = ("boot/firmware/cmdline.txt", "boot/cmdline.txt")
_POINTS_ELSEWHERE = "DO NOT EDIT"
"""In what the second is on systems that have moved it to the first place."""


def pi_model(root: Path = Path("/")) -> str | None:
    """Return which Raspberry Pi this is; None: none.

    Args:
        root: of the file system.
    """
    try:
        model = (root / "proc/device-tree/model").read_text(errors="replace").rstrip("\0\n")
    except OSError:
        return None
    return model if model.startswith("Raspberry Pi") else None


def mend(words: Sequence[str], root: Path = Path("/")) -> str:
    """Return what to do so that the kernel boots with some words on its command line.

    Args:
        words: that it needs.
        root: of the file system.
    """
    said = " ".join(words)
    if pi_model(root) is None:
        return f"{said} on the kernel's command line, then reboot"
    for name in _PI_FILES:
        try:
            line = (root / name).read_text()
        except (OSError, ValueError):
            continue
        if _POINTS_ELSEWHERE in line:
            continue
        if set(words) <= set(line.split()):
            return f"reboot: /{name} says {said} already"
        return f"add {said} to the end of the one line in /{name} (no new line), then reboot"
    return f"add {said} to the end of the one line in cmdline.txt on the boot disk, then reboot"
