"""The catalogue's modules, run by wasmtime with the working folder that a sandbox gives them."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lender.client.catalogue import load
from workloads.render.picture import assemble

wasmtime = pytest.importorskip("wasmtime", reason="wasmtime has no wheel for this machine")
ENGINE = wasmtime.Engine()

# SHA-256 of the picture of 96 x 60 pixels.
GOLDEN = "2401bbb804590bfadfaa26bbc7264ac3852bfbe704c274e5274f6fd3c64cceab"


class Ended(NamedTuple):
    code: int
    stdout: bytes
    stderr: str


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@cache
def compiled(workload: str) -> Any:  # noqa: ANN401  # wasmtime is imported only where it exists
    return wasmtime.Module.from_file(ENGINE, str(load()[workload].module))


def run(work: Path, workload: str, *arguments: str, task: str | None = "0") -> Ended:
    """Run a task; stdout and stderr go to files beside the working folder, out of its reach."""
    module = compiled(workload)
    wasi = wasmtime.WasiConfig()
    wasi.argv = [workload, *arguments]
    wasi.env = [] if task is None else [("LENDER_TASK", task)]
    wasi.stdout_file = str(work.with_name("stdout"))
    wasi.stderr_file = str(work.with_name("stderr"))
    # Both names: a libc without a current folder looks relative names up below ".".
    for name in ("/work", "."):
        wasi.preopen_dir(str(work), name)
    store = wasmtime.Store(ENGINE)
    store.set_wasi(wasi)
    linker = wasmtime.Linker(ENGINE)
    linker.define_wasi()
    code = 0
    try:
        linker.instantiate(store, module).exports(store)["_start"](store)
    except wasmtime.ExitTrap as trap:
        code = trap.code
    store.close()  # flushes the output files
    return Ended(
        code, work.with_name("stdout").read_bytes(), work.with_name("stderr").read_text("utf-8")
    )


# 55 and 56 bytes: the length still fits the last block, or needs one more. 65,536: the buffer.
@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 65_535, 65_536, 1_000_000])
def test_checksum_agrees_with_hashlib(work: Path, size: int) -> None:
    content = bytes(i * 31 & 255 for i in range(size))
    (work / "file.bin").write_bytes(content)
    expected = f"{hashlib.sha256(content).hexdigest()}  file.bin\n".encode()
    assert run(work, "checksum", "file.bin") == Ended(0, expected, "")


@pytest.mark.parametrize(
    "name",
    ["a.bin", "./a.bin", "/work/a.bin", "folder/b.bin", "/work/folder/b.bin", "mit Umlaut ä.bin"],
)
def test_checksum_finds_files_by_relative_and_absolute_names(work: Path, name: str) -> None:
    file = work / name.removeprefix("/work/")
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"abc")
    # FIPS 180-4's own example.
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert run(work, "checksum", name) == Ended(0, f"{digest}  {name}\n".encode(), "")


@pytest.mark.parametrize("name", ["absent.bin", "folder", "../secret", "/work/../secret", "/etc"])
def test_checksum_of_what_is_no_readable_file_fails_and_names_it(work: Path, name: str) -> None:
    (work / "folder").mkdir()
    work.with_name("secret").write_bytes(b"outside")
    ended = run(work, "checksum", name)
    assert (ended.code, ended.stdout) == (1, b"")
    assert ended.stderr.startswith(f"checksum: {name}: ")


@pytest.mark.parametrize("arguments", [(), ("a", "b")])
def test_checksum_takes_exactly_one_file(work: Path, arguments: tuple[str, ...]) -> None:
    assert run(work, "checksum", *arguments) == Ended(2, b"", "usage: checksum FILE\n")


def picture(work: Path, columns: int, rows: int, *, backwards: bool = False) -> bytes:
    order = reversed(range(columns * rows)) if backwards else range(columns * rows)
    tiles = {}
    for task in order:
        ended = run(work, "render", "96", "60", str(columns), str(rows), task=str(task))
        assert (ended.code, ended.stderr) == (0, "")
        tiles[task] = ended.stdout
    return assemble(96, 60, columns, rows, tiles)


def test_render_makes_the_same_bytes_on_every_machine(work: Path) -> None:
    whole = picture(work, 1, 1)
    assert hashlib.sha256(whole).hexdigest() == GOLDEN
    assert len(set(zip(*[iter(whole)] * 3, strict=True))) > 1000  # a picture, not a flat area


@pytest.mark.parametrize(("columns", "rows"), [(4, 3), (1, 60), (96, 1), (2, 1)])
def test_render_makes_the_same_picture_in_any_tiles_and_order(
    work: Path, columns: int, rows: int
) -> None:
    assert picture(work, columns, rows, backwards=True) == picture(work, 1, 1)


def test_render_gives_each_tile_its_size_and_place(work: Path) -> None:
    tiles = [run(work, "render", "96", "60", "4", "3", task=str(task)) for task in range(12)]
    assert {len(tile.stdout) for tile in tiles} == {24 * 20 * 3}
    assert len({tile.stdout for tile in tiles}) == 12


def test_render_repeats_itself(work: Path) -> None:
    arguments = ("96", "60", "4", "3", "2")
    first = run(work, "render", *arguments, task="5")
    assert run(work, "render", *arguments, task="5") == first
    assert first.code == 0


def test_render_looks_different_in_more_detail(work: Path) -> None:
    coarse = run(work, "render", "96", "60", "4", "3", task="5")
    fine = run(work, "render", "96", "60", "4", "3", "3", task="5")
    assert len(fine.stdout) == len(coarse.stdout)
    assert fine.stdout != coarse.stdout


@pytest.mark.parametrize(
    ("arguments", "task", "message"),
    [
        ("", "0", "usage: render width height columns rows [detail]"),
        ("96 60 4", "0", "usage: "),
        ("96 60 4 3 1 1", "0", "usage: "),
        ("96 60 5 3", "0", "width 96 is not divisible by columns 5"),
        ("96 60 4 7", "0", "height 60 is not divisible by rows 7"),
        ("0 60 4 3", "0", "width must be a whole number from 1 to 16384, got '0'"),
        ("-96 60 4 3", "0", "width must be"),
        ("96 16385 1 1", "0", "height must be"),
        ("96 60 0 3", "0", "columns must be a whole number from 1 to 96"),
        ("96 60 4 3.0", "0", "rows must be"),
        ("96 60 4 99999999999999999999", "0", "rows must be"),
        ("96 60 4 3 9", "0", "detail must be a whole number from 1 to 8"),
        ("96 60 4 3 x", "0", "detail must be"),
        ("96 60 4 3", "12", "LENDER_TASK must be a whole number from 0 to 11, got '12'"),
        ("96 60 4 3", "-1", "LENDER_TASK must be"),
        ("96 60 4 3", "", "LENDER_TASK must be"),
        ("96 60 4 3", None, "LENDER_TASK must be"),
    ],
)
def test_render_refuses_bad_arguments_and_says_why(
    work: Path, arguments: str, task: str | None, message: str
) -> None:
    ended = run(work, "render", *arguments.split(), task=task)
    assert (ended.code, ended.stdout) == (2, b"")
    assert message in ended.stderr
