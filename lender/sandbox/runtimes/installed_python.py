"""Which interpreter a python job runs in, and what of this machine it sees for that.

The lender's own first, where the sandboxes' user can read it, since that is the Python that the
owner keeps up to date; else the system's. The own one moves to a place that tells nothing of the
owner's folders. Neither sees what is installed beside its standard library: only the packages that
are named.
"""

import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes import python_inside

_FOLDERS = ("/usr/bin", "/usr/local/bin", "/run/current-system/sw/bin")
_NAME = re.compile(r"python(3\.[0-9]+)")
_SHOWN_ANYWAY = "/usr/"
_NIX_STORE = "/nix/store"
_IN_STORE = MappingProxyType({_NIX_STORE: _NIX_STORE})


class InstalledPython(NamedTuple):
    """An interpreter.

    Attributes:
        executable: where it is inside.
        version: major and minor, such as `3.11`.
        shown: place inside -> path out here, of what no sandbox shows by itself.
        hidden: folders inside of those that are not its standard library.
        libraries: folder inside where it has to look for its own shared library; empty for none.
    """

    executable: str
    version: str
    shown: Mapping[str, str] = MappingProxyType({})
    hidden: tuple[str, ...] = ()
    libraries: str = ""


def find() -> InstalledPython:
    """The interpreter for this process's user.

    Raises:
        PrepareFailedError: there is none that the user can read.
    """
    candidates = [_own(), *map(_system, _FOLDERS)]
    found = next((one for one in candidates if one is not None), None)
    if found is None:
        raise PrepareFailedError("Python is not installed where the sandboxes' user can read it")
    return found


def find_in_place() -> InstalledPython:
    """This process's own interpreter, where nothing can be moved to another place: macOS.

    Its folder is what is `shown`, less its site-packages, which are `hidden`.

    Raises:
        PrepareFailedError: the sandboxes' user can't read it.
    """
    prefix, version = os.path.realpath(sys.base_prefix), _version()
    executable = os.path.realpath(f"{prefix}/bin/python{version}")
    library = f"{prefix}/lib/python{version}"
    if not (os.access(executable, os.X_OK) and os.access(f"{library}/os.py", os.R_OK)):
        raise PrepareFailedError("Python is not installed where the sandboxes' user can read it")
    # A package of Nix names others by their paths.
    top = _NIX_STORE if executable.startswith(f"{_NIX_STORE}/") else prefix
    return InstalledPython(executable, version, {top: top}, (f"{library}/site-packages",))


def packages(names: Iterable[str]) -> dict[str, str]:
    """Where packages and modules beside the lender lie: name of the file or folder -> path.

    Libraries that a wheel brings along, in `<name>.libs`, are among them.

    Raises:
        PrepareFailedError: one is not installed, or the sandboxes' user can't read it.
    """
    found: dict[str, str] = {}
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or not spec.has_location:
            raise PrepareFailedError(
                f"package {name} is not installed where the sandboxes' user can read it"
            )
        # A package is its folder, a module its file.
        place = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
        if not os.access(place, os.R_OK):
            raise PrepareFailedError(f"package {name}: the sandboxes' user can't read {place}")
        found[place.name] = str(place)
        libraries = place.with_name(f"{name}.libs")
        if libraries.is_dir():
            found[libraries.name] = str(libraries)
    return found


def _version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _own() -> InstalledPython | None:
    version = _version()
    prefix = os.path.realpath(sys.base_prefix)
    executable = os.path.realpath(f"{prefix}/bin/python{version}")
    library = f"{prefix}/lib/python{version}"
    if not (os.access(executable, os.X_OK) and os.access(f"{library}/os.py", os.R_OK)):
        return None
    if executable.startswith(_SHOWN_ANYWAY):
        return InstalledPython(executable, version)
    if executable.startswith(f"{_NIX_STORE}/"):
        return InstalledPython(executable, version, _IN_STORE)
    # It finds its library by where it lies itself (the module `site`, sys.prefix).
    moved, libraries = f"{python_inside.PREFIX}/bin/python{version}", python_inside.LIBRARIES
    shown = {moved: executable, libraries: f"{prefix}/lib"}
    packages = Path(library, "site-packages")
    hidden = (f"{libraries}/python{version}/site-packages",) if packages.is_dir() else ()
    # One that is built shared has the place of its library written into it, and that has moved.
    is_shared = any(Path(prefix, "lib").glob("libpython*.so*"))
    return InstalledPython(moved, version, shown, hidden, libraries if is_shared else "")


def _system(folder: str) -> InstalledPython | None:
    executable = os.path.realpath(f"{folder}/python3")
    name = _NAME.fullmatch(Path(executable).name)
    if name is None or not os.access(executable, os.X_OK):
        return None
    if executable.startswith(f"{_NIX_STORE}/"):
        return InstalledPython(executable, name[1], _IN_STORE)
    return InstalledPython(executable, name[1]) if executable.startswith(_SHOWN_ANYWAY) else None
