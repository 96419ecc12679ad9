"""Which workloads this machine knows: `workload.toml` of each folder of the catalogue.

Only what a lease is checked against is read here: name, runtime and the pinned program. The
format is described in workloads/README.md.
"""

import re
import tomllib
from pathlib import Path
from typing import get_args

from lender.core.admission import CatalogueEntry
from lender.protocol.ids import SHA256_PATTERN, WORKLOAD_PATTERN
from lender.protocol.job import Runtime
from lender.service.bounded_text import read_bounded

_RUNTIMES: dict[object, Runtime] = {one: one for one in get_args(Runtime)}


class CatalogueError(Exception):
    """A workload's description can't be used; the message names file and key."""


def read_catalogue(folder: Path, *added: Path) -> dict[str, CatalogueEntry]:
    """Return the workloads described in the folders of `folder` and of those added, by name.

    Raises:
        CatalogueError: a description is malformed, or takes the name of one before it.
    """
    found = dict(_read(path) for path in sorted(folder.glob("*/workload.toml")))
    for more in added:
        if not more.is_dir():
            raise CatalogueError(f"{more}: there is no such folder: see `added_workloads`")
        for path in sorted(more.glob("*/workload.toml")):
            name, entry = _read(path)
            if name in found:
                raise CatalogueError(f"{path}: name: there is a workload {name}; call yours else")
            found[name] = entry
    return found


def _read(path: Path) -> tuple[str, CatalogueEntry]:
    try:
        table = tomllib.loads(read_bounded(path))
    except (OSError, ValueError, RecursionError) as error:
        raise CatalogueError(f"{path}: {error}") from error
    name, runtime, sha256 = table.get("name"), table.get("runtime"), table.get("sha256")
    if not isinstance(name, str) or re.fullmatch(WORKLOAD_PATTERN, name) is None:
        raise CatalogueError(f"{path}: name: must match {WORKLOAD_PATTERN}")
    if not isinstance(runtime, str) or runtime not in _RUNTIMES:
        raise CatalogueError(f"{path}: runtime: must be one of {', '.join(get_args(Runtime))}")
    if sha256 is not None and (
        not isinstance(sha256, str) or re.fullmatch(SHA256_PATTERN, sha256) is None
    ):
        raise CatalogueError(f"{path}: sha256: must be 64 hexadecimal digits")
    return name, CatalogueEntry(_RUNTIMES[runtime], sha256)
