"""The port of devices: what an adapter finds, and how that becomes labels."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

Attribute = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Device:
    """Something that was found.

    Attributes:
        label: by which submitters ask for it; empty where it can't be told what it is.
        name: for its owner.
        attributes: what else is known of it, for its owner alone: `temperature_c`, `count`.
        nodes: device files that whoever uses it opens: where each is, and what it is called
            in a sandbox. None: only the label is offered, and a sandbox sees nothing of it.
        folders: of sysfs, in which libraries look it up: the folder, and the link that leads there.
        fault: why it can't be used, in words; empty where it can.
        mend: what its owner can do about that.
    """

    label: str
    name: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    nodes: tuple[tuple[str, str], ...] = ()
    folders: tuple[tuple[str, str], ...] = ()
    fault: str = ""
    mend: str = ""

    @property
    def usable(self) -> bool:
        """Whether it may be offered."""
        return bool(self.label) and not self.fault


class Adapter(Protocol):
    """Finds the devices of one kind. Used by one thread; bounded in time, may block."""

    def find(self) -> Sequence[Device]:
        """Look; raises nothing for what is missing or broken."""
        ...


def labels_of(devices: Iterable[Device]) -> tuple[str, ...]:
    """Return what may be offered, each label once."""
    return tuple(dict.fromkeys(one.label for one in devices if one.usable))


def first_usable(devices: Iterable[Device], label: str) -> Device | None:
    """Return the device that a lease gets which asks for `label`."""
    return next((one for one in devices if one.usable and one.label == label), None)


def not_allowed(node: Path) -> str:
    """Return why this user can't open a device file, in words; empty where they can."""
    if not node.exists():
        return f"{node} is missing"
    if not os.access(node, os.R_OK | os.W_OK):
        return f"{node} can't be opened by this user"
    return ""
