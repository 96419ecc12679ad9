"""What installing comes down to: steps that can be told, and then be carried out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Name = Literal["lenderd", "lender-broker", "lender-agent"]
"""What can be a service."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be a service, and whose.

    Attributes:
        name: of the unit.
        system: the machine's, not the user's own.
    """

    name: Name
    system: bool

    @property
    def whose(self) -> str:
        """For people."""
        return "a service of this machine" if self.system else "a service of your own"


@dataclass(frozen=True, slots=True)
class Write:
    """Write a file; with `kept`, what is there is put out of the way first."""

    path: Path
    content: str
    kept: Path | None = None


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a file; with `kept`, by giving it that name."""

    path: Path
    kept: Path | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Run a command.

    Attributes:
        command: with its arguments.
        may_fail: go on, whatever comes of it.
        within_s: one that fails is tried again for so long.
    """

    command: tuple[str, ...]
    may_fail: bool = False
    within_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Wipe:
    """Delete a lenderd's state folder, for good."""

    path: Path


Step = Write | Remove | Run | Wipe


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do in this order, and what the owner is to know besides."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()


def kept(path: Path) -> Path:
    """Return where a file goes that gives way to ours. No manager of services reads it there."""
    return path.with_name(f"{path.name}.kept")


def draft(path: Path) -> Path:
    """Return where a file is written before it takes its place; who was cut off left it there."""
    return path.with_name(f".{path.name}.new")


def told(step: Step) -> str:
    """Say what a step does, for people."""
    match step:
        case Write(path, kept=None):
            return f"write {path}"
        case Write(path, kept=kept):
            return f"write {path}; what is there now goes to {kept}"
        case Remove(path, kept=None):
            return f"remove {path}"
        case Remove(path, kept=kept):
            return f"remove {path}, and keep it as {kept}"
        case Run(command):
            return f"run {' '.join(command)}"
        case Wipe(path):
            return f"delete {path} with all that is in it"


def as_json(steps: Sequence[Step]) -> list[dict[str, str | list[str]]]:
    """For `--json`."""
    found: list[dict[str, str | list[str]]] = []
    for step in steps:
        if isinstance(step, Run):
            found.append({"do": "run", "command": list(step.command)})
        else:
            found.append({"do": type(step).__name__.lower(), "path": str(step.path)})
    return found
