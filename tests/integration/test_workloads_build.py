"""The committed modules are what their committed source compiles to."""

import shutil
import subprocess
from pathlib import Path

import pytest

import workloads
from lender.client.catalogue import load

HOME = Path(workloads.__file__).parent
# The compiler and the C library decide the bytes: these built the committed modules.
CLANG = "14.0.6"
WASI_LIBC = "0.0~git20220510.9886d3d-2"


def output_of(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.mark.skipif(
    CLANG not in output_of("clang", "--version")
    or output_of("dpkg-query", "-W", "-f=${Version}", "wasi-libc") != WASI_LIBC
    or not output_of("wasm-ld", "--version")
    or not output_of("dpkg-query", "-W", "-f=${Version}", "libclang-rt-14-dev-wasm32"),
    reason=f"needs clang {CLANG}, lld, wasi-libc {WASI_LIBC} and libclang-rt-14-dev-wasm32,"
    " as packaged in Debian 12",
)
def test_the_source_reproduces_the_committed_modules(tmp_path: Path) -> None:
    subprocess.run([HOME / "build.sh", tmp_path], check=True, timeout=50)
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    committed = {one.module.name: one.module.read_bytes() for one in load().values() if one.module}
    assert built == committed


def test_a_machine_without_compiler_is_told_what_to_install(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "dirname"):
        (tools / tool).symlink_to(shutil.which(tool) or "")
    ended = subprocess.run(
        [HOME / "build.sh", tmp_path],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    assert ended.returncode == 1
    assert "apt-get install clang lld" in ended.stderr
    assert list(tmp_path.glob("*.wasm")) == []
