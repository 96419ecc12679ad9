"""Each submitter's inputs lie apart: what one sent is no other's, and a purge takes all of it."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from lender.daemon.inputs import InputCache, InputError
from lender.link.blobs import Blobs
from lender.state.folder import StateFolder
from lender.state.purge import kept_submitters, purge

ALICE, BOB = "U" + "A" * 55, "U" + "B" * 55
SHA256 = "ab" * 32


class Store:
    """Blobs of five bytes; `gate` holds every transfer back."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.transfers = 0

    async def get_to(self, _sha256: str, path: Path, *, max_bytes: int) -> None:
        self.transfers += 1
        await self.gate.wait()
        path.write_bytes(b"x" * min(5, max_bytes))  # noqa: ASYNC240 - five bytes


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "state")
    made.create()
    return made


def cache_of(state: StateFolder, store: Store) -> InputCache:
    return InputCache(state, cast("Blobs", store))


async def test_a_blob_is_fetched_once_for_each_submitter(state: StateFolder) -> None:
    store = Store()
    cache = cache_of(state, store)
    first, again = await asyncio.gather(*(cache.fetch(ALICE, SHA256, 5) for _ in range(2)))
    assert first == again == await cache.fetch(ALICE, SHA256, 5)
    assert store.transfers == 1
    assert first.stat().st_mode & 0o777 == 0o444
    other = await cache.fetch(BOB, SHA256, 5)
    assert other != first
    assert store.transfers == 2
    with pytest.raises(InputError, match="the specification says 6"):
        await cache.fetch(ALICE, SHA256, 6)


async def test_a_purge_takes_all_of_one_submitter_and_nothing_of_another(
    state: StateFolder,
) -> None:
    store = Store()
    cache = cache_of(state, store)
    mine, theirs = await cache.fetch(ALICE, SHA256, 5), await cache.fetch(BOB, SHA256, 5)
    state.modules(ALICE).mkdir()
    (state.modules(ALICE) / "module.cwasm").write_bytes(b"native")
    store.gate.clear()
    waiting = asyncio.create_task(cache.fetch(ALICE, "cd" * 32, 5))
    await asyncio.sleep(0)
    cache.purge(ALICE)
    cache.purge(ALICE)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not mine.exists()
    assert not state.modules(ALICE).exists()
    assert theirs.exists()
    await asyncio.gather(*cache._removing)
    assert [path.name for path in state.cache.iterdir()] == [BOB]
    store.gate.set()
    assert await cache.fetch(ALICE, SHA256, 5) == mine


def test_a_purge_takes_cache_and_spool_and_what_an_interrupted_one_left(
    state: StateFolder,
) -> None:
    for submitter in (ALICE, BOB):
        state.inputs(submitter).mkdir(parents=True)
        (state.inputs(submitter) / "blob").write_bytes(b"x" * 100_000)
        (state.inputs(submitter) / "blob").chmod(0o444)
        state.reports(submitter).mkdir()
        (state.reports(submitter) / "lease-000001.report").write_bytes(b"result")
    (state.cache / ".purged-0").mkdir()
    (state.cache / "not a key").mkdir()
    assert kept_submitters(state) == {ALICE, BOB}
    freed_bytes, left = purge(state, [ALICE])
    assert freed_bytes >= 100_000
    assert left == []
    assert kept_submitters(state) == {BOB}
    assert sorted(path.name for path in state.cache.iterdir()) == [BOB, "not a key"]
    assert purge(state, [ALICE]) == (0, [])


def test_a_link_in_place_of_a_folder_leads_nowhere(state: StateFolder, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    (state.cache / ALICE).symlink_to(precious)
    assert purge(state, [ALICE]) == (0, [])
    assert not (state.cache / ALICE).is_symlink()
    assert (precious / "file").read_text() == "mine"


def test_what_the_first_version_kept_of_all_together_is_cleared(state: StateFolder) -> None:
    old = state.cache / "sha256" / "ab"
    old.mkdir(parents=True)
    (old / SHA256).write_bytes(b"x")
    (state.cache / "modules").mkdir()
    (state.spool / "lease-000001.report").write_bytes(b"x")
    state.inputs(ALICE).mkdir(parents=True)
    state.create()
    assert [path.name for path in state.cache.iterdir()] == [ALICE]
    assert list(state.spool.iterdir()) == []
