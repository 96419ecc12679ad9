"""The devices of a machine in words, from the fields of a status: each, and what becomes of it."""

from collections.abc import Iterator
from typing import Any

from lender.cli.reading import Fields
from lender.cli.words import count, printable, size


def lines(status: Fields) -> list[str] | None:
    """A line for each, GPUs among them; None where there is none."""
    gpus = (status.get("machine") or {}).get("gpus") or ()
    said = [_gpu(number, gpu, status) for number, gpu in enumerate(gpus)]
    return [*said, *(_line(one, status) for one in status.get("devices") or ())] or None


def _gpu(number: int, gpu: dict[str, Any], status: Fields) -> str:
    free = size(gpu.get("vram_free_bytes") or 0)
    lent = any(grant.get("vram_bytes") for grant in status.get("grants", ()))
    whom = "lent" if lent else "lent to nobody: lender grant … --gpu"
    return printable(f"GPU {number} ({gpu.get('id')}) · {free} of its memory free · {whom}")


def _line(device: dict[str, Any], status: Fields) -> str:
    label, name = str(device.get("label")), str(device.get("name"))
    if device.get("fault"):
        return printable(f"! {name}: {device['fault']} (lender doctor)")
    parts = [name if name == label else f"{name} ({label})", *_attributes(device)]
    return printable(" · ".join([*parts, _use(label, device, status)]))


def _attributes(device: dict[str, Any]) -> Iterator[str]:
    told = device.get("attributes") or {}
    if "count" in told:
        yield f"{told.get('ready')} of {count(told['count'], 'phone')} ready"
    if "battery_min" in told:
        yield f"battery {100 * told['battery_min']:.0f} % or more"
    if "temperature_c" in told:
        yield f"{told['temperature_c']:.0f} °C"


def _use(label: str, device: dict[str, Any], status: Fields) -> str:
    if not device.get("given"):
        return "a label alone, no job is given it"
    for one in status.get("running", ()):
        if label in (one.get("devices") or ()):
            return f"used by {one.get('job')}"
    if any(label in (grant.get("devices") or ()) for grant in status.get("grants", ())):
        return "free"
    return f"lent to nobody: lender grant … --device {label}"
