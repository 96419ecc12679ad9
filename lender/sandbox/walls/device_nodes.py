"""The devices that a sandbox was given: their nodes and what sysfs says of them, nothing else's."""

import stat
from collections.abc import Iterable
from pathlib import Path

from lender.sandbox.plan import DeviceView
from lender.sandbox.port import PrepareFailedError


def check(devices: Iterable[DeviceView]) -> None:
    """Look whether they are all still there.

    Raises:
        PrepareFailedError: one was unplugged since it was found.
    """
    for device in devices:
        for node, inside in device.nodes:
            if not _is_character_device(node):
                raise PrepareFailedError(f"the device {inside} is missing")


def options(devices: Iterable[DeviceView]) -> list[str]:
    """The words for bubblewrap that bring them in."""
    words = []
    for device in devices:
        for node, inside in device.nodes:
            words += ["--dev-bind", node, inside]
        for folder, link in device.folders:
            words += ["--ro-bind-try", folder, folder]
            # sysfs leads a device's own folder back to its class by the same link.
            words += ["--symlink", folder, link] if folder != link else []
    return words


def rules(devices: Iterable[DeviceView]) -> list[tuple[str, str]]:
    """The rules for them, as in `enter.RULES`."""
    given = list(devices)
    found = [("-d", inside) for device in given for _, inside in device.nodes]
    return [*found, *(("-r", folder) for device in given for folder, _ in device.folders)]


def _is_character_device(node: str) -> bool:
    try:
        return stat.S_ISCHR(Path(node).stat().st_mode)
    except OSError:
        return False
