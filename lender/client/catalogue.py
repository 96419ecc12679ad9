"""Which workloads this machine knows: the product's own, and those of folders that people add."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lender.client.workload import DESCRIPTION, CatalogueError, Workload, read
from lender.protocol.ids import WORKLOAD_PATTERN
from lender.service.workload_folders import installed_workloads, own_workloads


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What can be named by `--workload`; read anew each time, so that nothing has to be restarted.

    Attributes:
        added: folders of workloads beside the product's, the first goes first.
        product: the folder of the product's own; no other can take one's name.
    """

    added: tuple[Path, ...] = ()
    product: Path = field(default_factory=installed_workloads)

    @classmethod
    def of_user(cls, first: Path | None = None) -> Self:
        """Return the catalogue of who runs this, with one more folder where one is named.

        Raises:
            CatalogueError: that one is no folder of workloads.
        """
        own = own_workloads()
        added = (() if first is None else (first,)) + (() if own is None else (own,))
        if first is not None:
            _folders(first)
        return cls(added)

    def find(self, name: str) -> Workload | None:
        """Return the workload of that name; None: nobody here has described it.

        Raises:
            CatalogueError: its description can't be used, or a folder takes a name of the
                product's.
        """
        if re.fullmatch(WORKLOAD_PATTERN, name) is None:
            return None
        added = [folder / name for folder in self.added if _describes(folder / name)]
        if not _describes(self.product / name):
            return read(added[0]) if added else None
        if added:
            raise _replaces(added[0])
        return read(self.product / name)

    def __getitem__(self, name: str) -> Workload:
        """Return the workload of that name.

        Raises:
            CatalogueError: nobody here has described it, or see `find`.
        """
        found = self.find(name)
        if found is None:
            raise CatalogueError(self.product, "", f"no workload {name!r} is known here")
        return found

    def survey(self) -> tuple[list[Workload], list[CatalogueError]]:
        """Return all that can be used, by name, the product's first; and what is wrong with others.

        Raises:
            CatalogueError: a folder can't be listed.
        """
        found: dict[str, Workload] = {}
        faults = []
        own = {one.name for one in _folders(self.product)}
        for catalogue in (self.product, *self.added):
            for folder in _folders(catalogue):
                if catalogue != self.product and folder.name in own:
                    faults.append(_replaces(folder))
                elif folder.name not in found:
                    try:
                        found[folder.name] = read(folder)
                    except CatalogueError as error:
                        faults.append(error)
        return list(found.values()), faults


def load(folder: Path | None = None) -> dict[str, Workload]:
    """Return the workloads described in the folders of `folder`, by name.

    Args:
        folder: the catalogue; None for the one that comes with the package.

    Raises:
        CatalogueError: a description can't be used.
    """
    return {one.name: read(one) for one in _folders(folder or installed_workloads())}


def _folders(catalogue: Path) -> list[Path]:
    try:
        found = [one for one in sorted(catalogue.iterdir()) if _describes(one)]
    except OSError as error:
        raise CatalogueError(catalogue, "", error.strerror or str(error)) from error
    if not found and _describes(catalogue):
        raise CatalogueError(catalogue, "", "is one workload: name the folder that it lies in")
    return found


def _describes(folder: Path) -> bool:
    return (folder / DESCRIPTION).exists()


def _replaces(folder: Path) -> CatalogueError:
    reason = f"{folder.name} is a workload of the product's own, and no folder replaces it: rename"
    return CatalogueError(folder, "", f"{reason} yours (the folder, and name in {DESCRIPTION})")
