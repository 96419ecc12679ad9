"""Compiled wasm modules on disk: used again, bounded, never run when not as written."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import wasmtime

from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes import module_cache


def program(folder: Path, number: int) -> Path:
    """A module of its own that returns its number."""
    path = folder / f"{number}.wasm"
    text = f'(module (func (export "number") (result i32) (i32.const {number})))'
    path.write_bytes(bytes(wasmtime.wat2wasm(text)))
    return path


def run(program: Path, cache: Path | None, bytes_max: int = 1 << 20) -> int:
    """Load it as a new process would, and call it."""
    engine = wasmtime.Engine()
    module = module_cache.load(engine, program, cache, bytes_max)
    store = wasmtime.Store(engine)
    exports = wasmtime.Instance(store, module, []).exports(store)
    return int(exports["number"](store))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Called upon once the cache alone is to serve."""

    def refuse(_engine: object, _source: object) -> None:
        raise PrepareFailedError("compiled again")

    monkeypatch.setattr(module_cache, "_compile", refuse)
    return monkeypatch


def test_a_module_is_compiled_once(
    tmp_path: Path, cache: Path, request: pytest.FixtureRequest
) -> None:
    assert run(program(tmp_path, 7), cache) == 7
    request.getfixturevalue("no_compiler")
    assert run(program(tmp_path, 7), cache) == 7
    with pytest.raises(PrepareFailedError, match="compiled again"):
        run(program(tmp_path, 8), cache)


def test_one_changed_bit_is_seen_and_mended(
    tmp_path: Path, cache: Path, request: pytest.FixtureRequest
) -> None:
    path = program(tmp_path, 7)
    run(path, cache)
    (entry,) = cache.iterdir()
    content = bytearray(entry.read_bytes())
    for place in (len(content) // 2, len(content) - 1):
        changed = content.copy()
        changed[place] ^= 1
        entry.write_bytes(changed)
        assert run(path, cache) == 7
        assert list(cache.iterdir()) == [entry]
        assert entry.read_bytes() == content
    request.getfixturevalue("no_compiler")
    assert run(path, cache) == 7


def test_the_least_recently_used_makes_room(
    tmp_path: Path, cache: Path, request: pytest.FixtureRequest
) -> None:
    paths = [program(tmp_path, number) for number in range(3)]
    run(paths[0], cache)
    (first,) = cache.iterdir()
    size_bytes = first.stat().st_size
    run(paths[1], cache)
    for age_s, entry in enumerate(sorted(cache.iterdir(), key=lambda entry: entry == first)):
        os.utime(entry, (0, time.time() - 100 - age_s))
    run(paths[0], cache, 2 * size_bytes + 100)  # used again, though it is the oldest
    run(paths[2], cache, 2 * size_bytes + 100)
    assert len(list(cache.iterdir())) == 2
    request.getfixturevalue("no_compiler")
    assert [run(paths[0], cache), run(paths[2], cache)] == [0, 2]
    with pytest.raises(PrepareFailedError, match="compiled again"):
        run(paths[1], cache)


def test_what_is_larger_than_the_cache_is_not_kept_and_takes_nobodys_place(
    tmp_path: Path, cache: Path
) -> None:
    run(program(tmp_path, 1), cache)
    (entry,) = cache.iterdir()
    assert run(program(tmp_path, 2), cache, entry.stat().st_size // 2) == 2
    assert list(cache.iterdir()) == [entry]


def test_what_a_killed_writer_left_behind_goes(tmp_path: Path, cache: Path) -> None:
    run(program(tmp_path, 1), cache)
    abandoned, busy = cache / "tmpabandoned", cache / "tmpbusy"
    for partial in (abandoned, busy):
        partial.write_bytes(b"half")
    os.utime(abandoned, (0, time.time() - 3600))
    run(program(tmp_path, 2), cache)
    assert not abandoned.exists()
    assert busy.exists()


@pytest.mark.parametrize("place", ["a file in the way", "no folder"])
def test_without_a_cache_everything_still_runs(tmp_path: Path, place: str) -> None:
    cache = None
    if place == "a file in the way":
        cache = tmp_path / "cache"
        cache.touch()
    assert run(program(tmp_path, 3), cache) == 3


def test_many_at_once_share_a_folder_that_is_too_small_for_all(tmp_path: Path, cache: Path) -> None:
    paths = [program(tmp_path, number) for number in range(6)]
    run(paths[0], cache)
    bytes_max = 3 * next(cache.iterdir()).stat().st_size
    with ThreadPoolExecutor(6) as pool:
        wanted = [number % 6 for number in range(60)]
        found = pool.map(lambda number: run(paths[number], cache, bytes_max), wanted)
        assert list(found) == wanted
    assert {entry.suffix for entry in cache.iterdir()} == {".cwasm"}
