"""What was found in this machine that jobs can be given, and what keeps a device from them."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lender.cli.checks.check import Check
from lender.cli.owner import Told
from lender.cli.words import printable
from lender.protocol.devices import KNOWN
from lender.sensors.devices.nvidia import NvidiaAdapter

_ROOT = Path("/")


def devices(told: Told, root: Path = _ROOT) -> Iterator[Check]:
    """What lenderd has found; without one, what this user finds, unless that is root.

    Root may open everything, which says nothing of who lenderd will be.
    """
    found: list[dict[str, Any]] = told.reply.get("devices") or []
    if told.outcome != "answered" and os.geteuid() != 0:
        found = _look(root)
    for device in found:
        name = f"device.{device.get('label') or 'unknown'}"
        if device.get("fault"):
            text, mend = f"{device.get('name')}: {device['fault']}", str(device.get("mend") or "")
            yield Check(name, "warning", printable(text), printable(mend))
            continue
        text = f"{device.get('label')} is told as a label; no job is given it"
        if device.get("label") in KNOWN:
            text = f"{device.get('name')} can be lent: lender grant … --device {device['label']}"
        yield Check(name, "ok", printable(text))


def gpus(root: Path = _ROOT) -> Iterator[Check]:
    """NVIDIA's GPUs, whether lenderd runs or not: who does not lend his needs no mend."""
    for device in NvidiaAdapter(root).find():
        if device.fault:
            yield Check("gpu", "info", f"{device.name}: {device.fault}", device.mend)
        else:
            yield Check("gpu", "ok", f"{device.name} can be lent: lender grant … --gpu")


def _look(root: Path) -> list[dict[str, Any]]:
    # Only without a lenderd.
    from lender.sensors.devices.accelerators import accelerators  # noqa: PLC0415

    return [asdict(device) for adapter in accelerators(root) for device in adapter.find()]
