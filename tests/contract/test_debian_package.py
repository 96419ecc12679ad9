"""deploy/debian/build, as far as it goes without building anything."""

import subprocess
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[2] / "deploy/debian/build"
PAGE = BUILD.parents[2] / "docs/installing.md"


@pytest.mark.parametrize("architecture", ["armhf", "armel", "i386"])
def test_who_wants_a_package_for_32_bits_is_told_what_is_missing(architecture: str) -> None:
    done = subprocess.run(
        [str(BUILD), architecture, "3.11"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    for word in (f"32-bit {architecture}", "wasmtime has no build", "no wasm", "installing.md"):
        assert word in done.stderr
    (said,) = (one for one in PAGE.read_text().split("\n\n") if one.startswith("**32-bit"))
    assert "no `wasm` runtime" in said
    assert "no\nfilter of system calls" in said or "no filter of system calls" in said
