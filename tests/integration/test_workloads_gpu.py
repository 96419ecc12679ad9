"""gpu-matmul without a GPU: its host's part and its kernel's source, on a stand-in for the driver.

The compiled kernel (matmul.ptx) takes a GPU: tests/acceptance tries that where there is one.
"""

import os
import shutil
import subprocess
from pathlib import Path

import matrices
import pytest

from lender.service.workload_folders import installed_workloads

HOME = installed_workloads() / "gpu-matmul"
STAND_IN = Path(__file__).parents[1] / "libcuda_stand_in.c"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libcuda.so.1."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed (Debian packages: gcc, libc6-dev)")
    folder = tmp_path_factory.mktemp("driver")
    kernel = f'-DKERNEL="{HOME / "matmul.cu"}"'
    words = ["gcc", "-O1", "-w", "-shared", "-fPIC", "-pthread", kernel, str(STAND_IN)]
    subprocess.run([*words, "-o", str(folder / "libcuda.so.1")], check=True, timeout=60)
    return folder


def matmul(driver: Path | None, *names: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    libraries = {} if driver is None else {"LD_LIBRARY_PATH": str(driver)}
    return subprocess.run(
        ["/usr/bin/env", "python3", str(HOME / "matmul.py"), *names],
        env={"PATH": os.environ["PATH"], **libraries},
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


# Whole tiles, parts of them, one number, a row by a column.
@pytest.mark.parametrize(("m", "k", "n"), [(16, 32, 16), (40, 33, 17), (1, 1, 1), (1, 50, 1)])
def test_the_product_is_exact_for_shapes_of_all_kinds(
    driver: Path, tmp_path: Path, m: int, k: int, n: int
) -> None:
    a, b = matrices.sample(m, k, 5), matrices.sample(k, n, 3)
    matrices.write(tmp_path / "a.npy", a)
    matrices.write(tmp_path / "b.npy", b)
    done = matmul(driver, "a.npy", "b.npy", "c.npy", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Stand-in: {m} x {k} x {n} in ")
    assert matrices.read(tmp_path / "c.npy") == matrices.product(a, b)


def test_what_can_not_be_multiplied_is_told(driver: Path, tmp_path: Path) -> None:
    matrices.write(tmp_path / "a.npy", matrices.sample(2, 3, 5))
    matrices.write(tmp_path / "whole.npy", matrices.sample(3, 2, 5), "<i4")
    (tmp_path / "short.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    (tmp_path / "other.npy").write_bytes(b"\x93NUMPY\x01\x00\x02\x00{}")
    (tmp_path / "empty.npy").touch()
    for name, said in (
        ("a.npy", "2 x 3 times 2 x 3 is no product"),
        ("whole.npy", "wanted is <f4"),
        ("short.npy", "ends before its last number"),
        ("other.npy", "no header of a matrix"),
        ("empty.npy", "not written by numpy.save"),
        ("absent.npy", "No such file"),
    ):
        done = matmul(driver, "a.npy", name, "c.npy", cwd=tmp_path)
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.startswith("matmul: "), "no traceback"
    wide = [[1] * 3_000_000] * 3
    matrices.write(tmp_path / "large.npy", wide)
    done = matmul(driver, "a.npy", "large.npy", "c.npy", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "matmul: cuMemAlloc_v2: out of memory (2)\n")
    assert matmul(driver, "a.npy", cwd=tmp_path).returncode == 2
    assert not (tmp_path / "c.npy").exists()


def test_a_machine_without_a_driver_says_so(tmp_path: Path) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a driver")
    for name in ("a.npy", "b.npy"):
        matrices.write(tmp_path / name, [[1]])
    done = matmul(None, "a.npy", "b.npy", "c.npy", cwd=tmp_path)
    assert done.returncode == 1
    assert "no NVIDIA driver: libcuda.so.1" in done.stderr
