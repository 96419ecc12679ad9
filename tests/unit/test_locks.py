"""What is installed is locked: every package, in one version, by the hashes of its files."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, str]:
    """The packages of a lock, each with what follows its name."""
    text = (ROOT / "locks" / f"{name}.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(line.partition("==")[0]): line for line in lines}


def test_every_package_is_locked_by_hash() -> None:
    for path in (ROOT / "locks").glob("*.txt"):
        for line in locked(path.stem).values():
            assert re.match(r"[\w.-]+==\S+( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+$", line), line


def test_all_that_the_project_asks_for_is_locked_in_a_version_that_fits() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    asked = {"lender": PROJECT["project"]["dependencies"], **extras}
    asked["build"] = PROJECT["build-system"]["requires"]
    for name, requirements in asked.items():
        lock = locked(name)
        for requirement in map(Requirement, requirements):
            line = lock[canonicalize_name(requirement.name)]
            version = line.partition("==")[2].split()[0]
            assert requirement.specifier.contains(version), f"{requirement}: make lock"
