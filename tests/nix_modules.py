"""What our Nix modules make of configurations, evaluated by Nix itself where it is installed."""

import functools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests/nix"
BIN = "/nix/store/00000000000000000000000000000000-lender/bin"
"""Where programs are by tests/nix/world/pkgs.nix."""

needs_nix = pytest.mark.skipif(
    shutil.which("nix-instantiate") is None, reason="nix-instantiate (package nix-bin) is missing"
)


def nix(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Ask Nix; it writes nothing, to no store."""
    words = ("nix-instantiate", "--readonly-mode", "--store", "dummy://", *arguments)
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@functools.cache
def evaluated(attribute: str, file: str = "evaluate.nix") -> Any:  # noqa: ANN401 - whatever JSON
    """Return what an attribute of a file in tests/nix comes to."""
    done = nix("--eval", "--strict", "--json", str(FOLDER / file), "-A", attribute)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def sources() -> list[Path]:
    """Return every file of Nix that is ours."""
    places = ("nix", "tests/nix")
    return [
        ROOT / "flake.nix",
        *(one for place in places for one in ROOT.glob(f"{place}/**/*.nix")),
    ]
