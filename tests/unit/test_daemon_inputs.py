"""What a lease reads is what its job names, in bounded space, and each submitter's lies apart."""

import asyncio
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from lender.daemon.disk_space import DiskSpace
from lender.daemon.inputs import InputCache, InputError
from lender.link.blobs import BlobCorruptError, BlobMissingError, Blobs, Reference
from lender.protocol.job import BlobRef
from lender.state.folder import StateFolder
from lender.state.purge import kept_submitters, purge

ALICE, BOB = "U" + "A" * 55, "U" + "B" * 55
SIZE = 64 * 1024
"""The least that a blob counts as."""


def sha256_of(name: str) -> str:
    return hashlib.sha256(content_of(name)).hexdigest()


def content_of(name: str) -> bytes:
    return name.encode() * (SIZE // len(name))


class Store:
    """Blobs a, b, c and d; `gate` holds every transfer back when half of it is there."""

    def __init__(self) -> None:
        self.contents = {sha256_of(name): content_of(name) for name in "abcd"}
        self.names = {sha256_of(name): name for name in "abcd"}
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()
        self.transfers: Counter[str] = Counter()

    async def get_to(self, submitter: str, blob: Reference, path: Path) -> None:
        assert submitter in path.parts
        sha256, content = blob.sha256, self.contents.get(blob.sha256)
        if content is None:
            raise BlobMissingError(sha256, "the bucket does not hold it")
        if len(content) > blob.size_bytes:
            raise BlobCorruptError(sha256, "too large")
        self.transfers[self.names[sha256]] += 1
        part = path.with_name(f".{path.name}.part")
        try:
            part.write_bytes(content[: SIZE // 2])
            self.begun.set()
            await self.gate.wait()
            part.write_bytes(content)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "state")
    made.create()
    return made


async def cache_of(state: StateFolder, store: Store, blobs_max: int = 4) -> InputCache:
    return await InputCache.open(state, cast("Blobs", store), blobs_max * SIZE)


async def use(cache: InputCache, name: str, submitter: str = ALICE) -> Path:
    """What a lease does that needs one blob and ends."""
    lease = cache.for_lease(submitter)
    try:
        return await lease.fetch(BlobRef(sha256=sha256_of(name), size_bytes=SIZE))
    finally:
        lease.release()


def on_disk(state: StateFolder) -> list[Path]:
    return [path for path in state.cache.rglob("*") if not path.is_dir()]


def kept(state: StateFolder, store: Store) -> str:
    """The names of the blobs on the disk; nothing else is there."""
    return "".join(sorted(store.names[path.name] for path in on_disk(state)))


async def test_a_blob_is_fetched_once_for_each_submitter(state: StateFolder) -> None:
    store = Store()
    cache = await cache_of(state, store)
    first, again = await asyncio.gather(*(use(cache, "a") for _ in range(2)))
    assert first == again == await use(cache, "a")
    assert store.transfers == {"a": 1}
    assert first.read_bytes() == content_of("a")
    assert first.stat().st_mode & 0o777 == 0o444
    assert await use(cache, "a", BOB) != first
    assert store.transfers == {"a": 2}


async def test_a_blob_of_another_size_than_the_job_says_is_the_jobs_fault(
    state: StateFolder,
) -> None:
    store = Store()
    cache = await cache_of(state, store)
    for size_bytes in (SIZE + 1, SIZE - 1):
        with pytest.raises(InputError) as refused:
            await cache.for_lease(ALICE).fetch(
                BlobRef(sha256=sha256_of("a"), size_bytes=size_bytes)
            )
        assert refused.value.invalid
    assert await use(cache, "a")
    with pytest.raises(InputError, match=f"the specification says {SIZE - 1}") as refused:
        await cache.for_lease(ALICE).fetch(BlobRef(sha256=sha256_of("a"), size_bytes=SIZE - 1))
    assert refused.value.invalid


async def test_a_blob_that_nobody_stored_is_the_jobs_fault_and_takes_no_room(
    state: StateFolder,
) -> None:
    store = Store()
    cache = await cache_of(state, store, blobs_max=1)
    lease = cache.for_lease(ALICE)
    with pytest.raises(InputError, match="does not hold it") as refused:
        await lease.fetch(BlobRef(sha256="0" * 64, size_bytes=SIZE))
    assert refused.value.invalid
    assert await lease.fetch(BlobRef(sha256=sha256_of("a"), size_bytes=SIZE))
    assert kept(state, store) == "a"


def rewrite(path: Path) -> None:
    """Same size, and the same time of the last write; the kernel's own clock can't be put back."""
    before, probe = path.stat(), path.with_name("probe")
    while not probe.exists() or probe.stat().st_ctime_ns <= before.st_ctime_ns:
        probe.touch()  # until that clock has ticked
    probe.unlink()
    path.chmod(0o600)
    path.write_bytes(b"y" * before.st_size)
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(path: Path) -> None:
    os.truncate(path, SIZE // 2)


def swap(path: Path) -> None:
    before = path.stat()
    path.with_name("swapped").write_bytes(b"y" * SIZE)
    path.with_name("swapped").replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def link(path: Path) -> None:
    path.rename(path.parents[4] / "elsewhere")
    path.symlink_to(path.parents[4] / "elsewhere")


def unlink(path: Path) -> None:
    path.unlink()


def write(path: Path) -> None:
    """Perhaps within the same tick."""
    path.chmod(0o600)
    path.write_bytes(b"y" * SIZE)
    path.chmod(0o444)


ALTERATIONS = [rewrite, write, cut, swap, link, unlink]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("alter", ALTERATIONS)
async def test_what_was_altered_on_the_disk_is_fetched_again(
    state: StateFolder,
    alter: Callable[[Path], None],
    restarted: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    store = Store()
    cache = await cache_of(state, store)
    path = await use(cache, "a")
    await use(cache, "b")
    alter(path)
    if restarted:
        cache = await cache_of(state, store)
    again = await use(cache, "a")
    assert not again.is_symlink()
    assert again.read_bytes() == content_of("a")
    await use(cache, "b")
    assert store.transfers == {"a": 2, "b": 1}
    assert kept(state, store) == "ab"


async def test_what_was_altered_is_not_read_while_the_store_is_out_of_reach(
    state: StateFolder,
) -> None:
    store = Store()
    cache = await cache_of(state, store)
    path = await use(cache, "a")
    rewrite(path)
    store.contents.clear()
    with pytest.raises(InputError):
        await use(cache, "a")
    assert on_disk(state) == []


async def test_what_is_unaltered_is_not_fetched_again(state: StateFolder) -> None:
    store = Store()
    path = await use(await cache_of(state, store), "a")
    cache = await cache_of(state, store)
    path.touch()
    assert await use(cache, "a") == path
    path.touch()
    assert await use(cache, "a") == path
    assert store.transfers == {"a": 1}


async def test_the_least_recently_used_makes_room_whoever_sent_it(state: StateFolder) -> None:
    store = Store()
    cache = await cache_of(state, store, blobs_max=3)
    for name, submitter in (("a", ALICE), ("b", BOB), ("c", ALICE), ("a", ALICE), ("d", BOB)):
        await use(cache, name, submitter)
    assert kept(state, store) == "acd"
    await use(cache, "b", BOB)
    assert kept(state, store) == "abd"


async def test_the_order_of_use_outlives_a_restart(state: StateFolder) -> None:
    store = Store()
    await use(await cache_of(state, store), "a")
    cache = await cache_of(state, store)
    await use(cache, "b")
    await use(cache, "c")
    await use(cache, "a")
    await use(await cache_of(state, store, blobs_max=3), "d")
    assert kept(state, store) == "acd"
    assert store.transfers == dict.fromkeys("abcd", 1)


async def test_a_limit_that_was_lowered_holds_from_the_start(state: StateFolder) -> None:
    store = Store()
    cache = await cache_of(state, store)
    for name in "abc":
        await use(cache, name)
    await cache_of(state, store, blobs_max=2)
    assert kept(state, store) == "bc"


async def test_what_a_lease_holds_stays_until_it_is_released(state: StateFolder) -> None:
    store = Store()
    cache = await cache_of(state, store, blobs_max=2)
    lease, other = cache.for_lease(ALICE), cache.for_lease(ALICE)
    for one in (lease, lease, other):  # a job may name one content twice
        await one.fetch(BlobRef(sha256=sha256_of("a"), size_bytes=SIZE))
    await use(cache, "b")
    await use(cache, "c")
    assert kept(state, store) == "ac"
    await lease.fetch(BlobRef(sha256=sha256_of("c"), size_bytes=SIZE))
    with pytest.raises(InputError, match=f"{2 * SIZE} of them for running work") as refused:
        await use(cache, "d", BOB)
    assert not refused.value.invalid
    assert kept(state, store) == "ac"
    lease.release()
    lease.release()
    await use(cache, "d", BOB)
    assert kept(state, store) == "ad"
    other.release()
    await use(cache, "b")
    assert kept(state, store) == "bd"


async def test_the_largest_that_are_there_are_told(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lender.daemon.inputs.OFFERED_BLOB_BYTES_MIN", SIZE)
    store = Store()
    cache = await cache_of(state, store)
    await use(cache, "a")
    await use(cache, "a", BOB)
    store.gate.clear()
    store.begun.clear()
    transfer = asyncio.create_task(use(cache, "b"))
    await store.begun.wait()
    assert cache.largest() == (sha256_of("a"),), "one that is on its way is not there"
    store.gate.set()
    await transfer
    assert set(cache.largest()) == {sha256_of("a"), sha256_of("b")}
    assert set((await cache_of(state, store)).largest()) == {sha256_of("a"), sha256_of("b")}


async def test_the_disk_is_read_before_and_after_there_is_a_cache(state: StateFolder) -> None:
    disk = DiskSpace(state.scratch)
    reading = disk.read()
    assert 0 < reading.free_bytes <= shutil.disk_usage(state.scratch).total
    assert reading.blobs == ()
    disk.inputs = await cache_of(state, Store())
    assert disk.read().blobs == ()


async def test_a_blob_larger_than_the_cache_is_not_the_jobs_fault(state: StateFolder) -> None:
    store = Store()
    cache = await cache_of(state, store, blobs_max=2)
    await use(cache, "a")
    with pytest.raises(InputError, match=f"has {3 * SIZE} bytes.* at most {2 * SIZE}") as refused:
        await cache.for_lease(ALICE).fetch(BlobRef(sha256=sha256_of("b"), size_bytes=3 * SIZE))
    assert not refused.value.invalid
    assert kept(state, store) == "a"
    assert store.transfers == {"a": 1}


async def test_without_a_setting_a_full_disk_leaves_less_room(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_bytes = 12 * SIZE
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=free_bytes))
    store = Store()
    cache = await InputCache.open(state, cast("Blobs", store))
    for name in "abc":
        await use(cache, name)
        free_bytes -= SIZE
    assert kept(state, store) == "abc"
    free_bytes = 3 * SIZE
    with pytest.raises(InputError, match=f"at most {SIZE * 6 // 4} bytes"):
        await cache.for_lease(ALICE).fetch(BlobRef(sha256=sha256_of("d"), size_bytes=2 * SIZE))
    await use(cache, "d")
    assert kept(state, store) == "d"
    free_bytes = 1 << 50
    with pytest.raises(InputError, match=f"at most {8 << 30} bytes"):
        await cache.for_lease(ALICE).fetch(BlobRef(sha256=sha256_of("a"), size_bytes=(8 << 30) + 1))


async def test_what_a_killed_daemon_left_is_cleared_by_the_next(state: StateFolder) -> None:
    store = Store()
    path = await use(await cache_of(state, store), "a")
    path.with_name(f".{path.name}.0123.part").write_bytes(b"half")
    path.with_name(".purged-0123").write_bytes(b"dropped")
    cache = await cache_of(state, store)
    assert kept(state, store) == "a"
    assert await use(cache, "a") == path
    assert store.transfers == {"a": 1}


async def test_a_lease_that_ends_early_takes_no_transfer_from_another(state: StateFolder) -> None:
    store = Store()
    cache = await cache_of(state, store)
    store.gate.clear()
    first, second = (asyncio.create_task(use(cache, "a")) for _ in range(2))
    await store.begun.wait()
    first.cancel()
    store.gate.set()
    assert (await second).read_bytes() == content_of("a")
    assert first.cancelled()
    assert kept(state, store) == "a"


async def test_a_transfer_has_its_room_until_it_is_broken_off(state: StateFolder) -> None:
    store = Store()
    cache = await cache_of(state, store, blobs_max=2)
    await use(cache, "a")
    store.gate.clear()
    store.begun.clear()
    waiting = asyncio.create_task(use(cache, "b"))
    await store.begun.wait()
    with pytest.raises(InputError, match=f"{SIZE} of them for running work"):
        await cache.for_lease(ALICE).fetch(BlobRef(sha256=sha256_of("c"), size_bytes=2 * SIZE))
    waiting.cancel()
    await asyncio.wait([waiting])
    assert kept(state, store) == "a"
    store.gate.set()
    await use(cache, "c")
    assert kept(state, store) == "ac"


async def test_a_purge_takes_all_of_one_submitter_and_nothing_of_another(
    state: StateFolder,
) -> None:
    store = Store()
    cache = await cache_of(state, store)
    await use(cache, "a")
    theirs = await use(cache, "a", BOB)
    state.modules(ALICE).mkdir()
    (state.modules(ALICE) / "module.cwasm").write_bytes(b"native")
    store.gate.clear()
    waiting = asyncio.create_task(use(cache, "b"))
    store.begun.clear()
    await store.begun.wait()
    cache.purge(ALICE)
    cache.purge(ALICE)
    assert not (state.cache / ALICE).exists()
    assert theirs.exists()
    store.gate.set()
    with pytest.raises(FileNotFoundError):
        await waiting
    await asyncio.get_running_loop().shutdown_default_executor()
    assert [path.name for path in state.cache.iterdir()] == [BOB]


async def test_a_purged_blob_is_fetched_again_and_its_room_was_given_back(
    state: StateFolder,
) -> None:
    store = Store()
    cache = await cache_of(state, store, blobs_max=2)
    theirs = await use(cache, "b", BOB)
    before = cache.for_lease(ALICE)
    path = await before.fetch(BlobRef(sha256=sha256_of("a"), size_bytes=SIZE))
    cache.purge(ALICE)
    await use(cache, "c", BOB)
    assert theirs.exists()
    after = cache.for_lease(ALICE)
    assert await after.fetch(BlobRef(sha256=sha256_of("a"), size_bytes=SIZE)) == path
    assert path.read_bytes() == content_of("a")
    before.release()
    with pytest.raises(InputError, match=f"{SIZE} of them for running work"):
        await cache.for_lease(BOB).fetch(BlobRef(sha256=sha256_of("d"), size_bytes=2 * SIZE))


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
    (old / sha256_of("a")).write_bytes(b"x")
    (state.cache / "modules").mkdir()
    (state.spool / "lease-000001.report").write_bytes(b"x")
    state.inputs(ALICE).mkdir(parents=True)
    state.create()
    assert [path.name for path in state.cache.iterdir()] == [ALICE]
    assert list(state.spool.iterdir()) == []


async def test_what_a_lease_opens_counts_as_kept_until_it_is_released(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lender.daemon.inputs.OFFERED_BLOB_BYTES_MIN", 1)
    cache = await cache_of(state, Store(), blobs_max=3)
    lease, other = cache.for_lease(ALICE), cache.for_lease(BOB)
    await lease.fetch(BlobRef(sha256=sha256_of("a"), size_bytes=SIZE))
    await lease.make_room("0", SIZE)
    assert cache.largest() == (sha256_of("a"),), "no blob is what it opened"
    with pytest.raises(InputError, match="keeps at most") as refused:
        await other.make_room("0", 2 * SIZE)
    assert not refused.value.invalid
    other.release()
    lease.release()
    await other.make_room("0", 3 * SIZE)
    assert on_disk(state) == [], "the cache made room"
    other.release()
