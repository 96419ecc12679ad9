"""What the owner lets be told of this machine's own programs: `nix`, `docker`, `nix-gpu`.

Labels alone: no sandbox sees the Nix store, its daemon or Docker's socket. They say what kind of
machine it is to submitters whose work was agreed on beside us.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, Literal, get_args

from lender.sensors.devices.adapter import Device

Announced = Literal["nix", "docker", "nix-gpu"]
ANNOUNCED: Final[tuple[Announced, ...]] = get_args(Announced)

_NIX: Final = ("nix/store",)
_DOCKER: Final = ("run/docker.sock", "var/run/docker.sock", "run/podman/podman.sock")
_NVIDIA: Final = ("dev/nvidiactl", "dev/dxg")


class HostToolsAdapter:
    """Looks below `root` for what of `announced` is there."""

    def __init__(self, announced: Collection[Announced], root: Path = Path("/")) -> None:
        self._announced = announced
        self._root = root

    def find(self) -> list[Device]:
        """See `Adapter`."""
        return [self._device(label) for label in ANNOUNCED if label in self._announced]

    def _device(self, label: Announced) -> Device:
        wanted = {"nix": (_NIX,), "docker": (_DOCKER,), "nix-gpu": (_NIX, _NVIDIA)}[label]
        missing = [places[0] for places in wanted if not self._any(places)]
        fault = f"there is no /{missing[0]}" if missing else ""
        mend = "install it, or take it out of `announce` in lenderd.toml" if missing else ""
        return Device(label, label, fault=fault, mend=mend)

    def _any(self, places: Sequence[str]) -> bool:
        return any((self._root / place).exists() for place in places)
