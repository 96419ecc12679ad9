"""A checkpoint folder that a hostile program filled, and archives that somebody else wrote."""

import fcntl
import io
import os
import signal
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lender.sandbox.files import checkpoint
from lender.sandbox.files.checkpoint import CheckpointRefusedError, pack, place, unpack
from lender.sandbox.plan import Limits, SandboxPlan

MAX = 1 << 20
LIMITS = Limits(1, 64 << 20, 1.5, 100, 1 << 20, 8)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A working folder with an empty checkpoint folder, and something beside it."""
    (tmp_path / "work" / "checkpoint").mkdir(parents=True)
    (tmp_path / "work" / "scratch.dat").write_bytes(b"not durable")
    (tmp_path / "owners.txt").write_text("secret")
    return tmp_path / "work"


def moved(work: Path, to: Path) -> Path:
    """Pack, unpack elsewhere, and return the new checkpoint folder."""
    archive = pack(work, MAX)
    assert archive is not None
    to.mkdir()
    (to.parent / "archive").write_bytes(archive)
    unpack(to.parent / "archive", to, MAX)
    return to / "checkpoint"


def test_files_and_folders_go_on_as_they_were(work: Path, tmp_path: Path) -> None:
    folder = work / "checkpoint"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "deep" / "er" / "state").write_bytes(b"41" * 1000)
    (folder / "nothing").touch()
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o4755)
    new = moved(work, tmp_path / "new")
    assert (new / "deep" / "er" / "state").read_bytes() == b"41" * 1000
    assert (new / "nothing").read_bytes() == b""
    found = {str(one.relative_to(new)): one.stat().st_mode & 0o7777 for one in new.rglob("*")}
    assert found == {
        **dict.fromkeys(["deep", "deep/er", "empty", "run.sh"], 0o700),
        **dict.fromkeys(["deep/er/state", "nothing"], 0o600),
    }
    assert not (tmp_path / "new" / "scratch.dat").exists(), "checkpoint/ alone is durable"


def test_names_of_any_bytes_go_on(work: Path, tmp_path: Path) -> None:
    names = {b"\xff\xfe", b"line\nbreak", "grün".encode(), b"-rf", b"x" * 100}
    for name in names:
        (work / "checkpoint" / os.fsdecode(name)).write_bytes(name)
    long = work / "checkpoint" / ("d" * 150)
    long.mkdir()
    (long / "state").touch()
    new = moved(work, tmp_path / "new")
    assert {os.fsencode(one.name) for one in new.iterdir()} == {*names, b"d" * 150}
    assert all(os.fsencode(one.name) == one.read_bytes() for one in new.iterdir() if one.is_file())
    assert (new / ("d" * 150) / "state").exists()


def test_equal_folders_make_equal_archives(work: Path, tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (work / "checkpoint" / name).write_text(name)
    first = pack(work, MAX)
    again = tmp_path / "again"
    (again / "checkpoint").mkdir(parents=True)
    for name in ("c", "b", "a"):
        (again / "checkpoint" / name).write_text(name)
        os.utime(again / "checkpoint" / name, (1, 1))
    assert pack(again, MAX) == first


def test_no_folder_or_an_empty_one_is_no_checkpoint(work: Path) -> None:
    assert pack(work, MAX) is None
    (work / "checkpoint").rmdir()
    assert pack(work, MAX) is None


def test_another_program_reads_the_archive(work: Path) -> None:
    (work / "checkpoint" / "state").write_text("41")
    archive = pack(work, MAX)
    assert archive is not None
    with tarfile.open(fileobj=io.BytesIO(archive)) as read:
        assert read.getnames() == ["state"]


def hard_link(work: Path) -> None:
    os.link(work / "scratch.dat", work / "checkpoint" / "state")


def device(work: Path) -> None:
    try:
        os.mknod(work / "checkpoint" / "state", 0o20666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")


def bound_socket(work: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        # Its path may be too long for an address.
        inside = os.open(work / "checkpoint", os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{inside}/state")
        os.close(inside)


def replaced(by: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(work: Path) -> None:
        (work / "checkpoint").rmdir()
        by(work / "checkpoint")

    return replace


def deep(work: Path) -> None:
    folder = work / "checkpoint"
    for _ in range(checkpoint.DEPTH_MAX + 1):
        folder /= "d"
    folder.mkdir(parents=True)


def many(work: Path) -> None:
    for number in range(checkpoint.ENTRIES_MAX + 1):
        (work / "checkpoint" / str(number)).touch()


def sparse(work: Path) -> None:
    with (work / "checkpoint" / "state").open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize(
    "fill",
    [
        lambda work: (work / "checkpoint" / "state").symlink_to(work.parent / "owners.txt"),
        lambda work: (work / "checkpoint" / "up").symlink_to(work.parent),
        lambda work: os.mkfifo(work / "checkpoint" / "state"),
        lambda work: (work / "checkpoint" / ("x" * 101)).touch(),
        hard_link,
        device,
        bound_socket,
        deep,
        many,
        sparse,
        replaced(lambda folder: folder.symlink_to("..")),
        replaced(lambda folder: folder.write_text("a file")),
        replaced(os.mkfifo),
    ],
)
def test_what_is_strange_or_too_much_is_refused(fill: Callable[[Path], None], work: Path) -> None:
    fill(work)
    with pytest.raises(CheckpointRefusedError):
        pack(work, MAX)


def test_a_lease_on_a_file_keeps_nobody_waiting(work: Path) -> None:
    """Its open would wait for a holder that stands still, fcntl(2), for 45 s."""
    state = work / "checkpoint" / "state"
    state.write_text("41")
    with state.open("r+b") as file:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            pytest.skip(f"this file system grants no leases: {error}")
        with pytest.raises(CheckpointRefusedError, match="can't be read"):
            pack(work, MAX)


def test_the_bound_is_that_of_the_archive(work: Path) -> None:
    (work / "checkpoint" / "state").write_bytes(b"x" * 1000)
    archive = pack(work, MAX)
    assert archive is not None
    assert pack(work, len(archive)) == archive
    with pytest.raises(CheckpointRefusedError, match="more than"):
        pack(work, len(archive) - 1)


def test_a_folder_that_is_gone_is_told_apart_from_none(work: Path) -> None:
    with pytest.raises(CheckpointRefusedError, match="can't be read"):
        pack(work / "elsewhere", MAX)


# archives


def member(name: str, content: bytes = b"", **fields: object) -> bytes:
    """One entry as any program may write it."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


END = bytes(1024)
FOLDER = {"type": tarfile.DIRTYPE, "mode": 0o700}

HOSTILE = {
    "nothing": b"",
    "no archive": b"\x7fELF" * 1000,
    "no end": member("a"),
    "half an end": member("a") + bytes(512),
    "half a header": member("a")[:500],
    "more behind its end": END + b"x",
    "cut off": member("a", b"x" * 600)[:800] + END,
    "absolute": member("/etc/x") + END,
    "up": member("../x") + END,
    "up within": member("d", **FOLDER) + member("d/../../x") + END,
    "here": member(".", **FOLDER) + END,
    "no name": member("") + END,
    "empty part": member("d", **FOLDER) + member("d//x") + END,
    "a folder as a file": member("d/") + END,
    "symbolic link": member("a", type=tarfile.SYMTYPE, linkname="..") + END,
    "through its own link": member("a", type=tarfile.SYMTYPE, linkname="..") + member("a/x") + END,
    "hard link": member("a", type=tarfile.LNKTYPE, linkname="/etc/passwd") + END,
    "a file with a link's name": member("a", linkname="/etc/passwd") + END,
    "device": member("a", type=tarfile.CHRTYPE, devmajor=1, devminor=5) + END,
    "pipe": member("a", type=tarfile.FIFOTYPE) + END,
    "sparse": member("a", type=tarfile.GNUTYPE_SPARSE) + END,
    "a longer name": member("a", b"../" * 100, type=tarfile.GNUTYPE_LONGNAME) + END,
    "extended header": member("a", b"20 path=../../evil\n", type=tarfile.XHDTYPE) + END,
    "setuid": member("a", mode=0o4700) + END,
    "others may write": member("a", mode=0o666) + END,
    "a folder with content": member("d", b"x", type=tarfile.DIRTYPE, mode=0o700) + END,
    "an open folder": member("d", type=tarfile.DIRTYPE, mode=0o777) + END,
    "negative size": member("a", size=-512) + END,
    "a size beyond all": member("a", size=1 << 60) + END,
    "twice": member("a") + member("a") + END,
    "a folder twice": member("d", **FOLDER) * 2 + END,
    "a file, then a folder": member("a") + member("a", **FOLDER) + END,
    "below a file": member("a") + member("a/x") + END,
    "below nothing": member("d/x") + END,
    "deep": b"".join(member("/".join("d" * n), **FOLDER) for n in range(1, 34)) + END,
    "many": b"".join(member(f"{n}") for n in range(checkpoint.ENTRIES_MAX + 1)) + END,
    "large": member("a", bytes(9 * MAX)) + END,
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    content: bytes, work: Path, tmp_path: Path
) -> None:
    (work / "checkpoint" / "old").write_text("of an earlier task")
    archive = tmp_path / "archive"
    archive.write_bytes(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointRefusedError):
        unpack(archive, work, 8 * MAX)
    assert list((work / "checkpoint").iterdir()) == []
    assert sorted(tmp_path.iterdir()) == before
    assert sorted(one.name for one in work.iterdir()) == ["checkpoint", "scratch.dat"]


@pytest.mark.parametrize("stands", ["link", "file", "folder", "nothing"])
def test_what_stands_in_the_folders_place_is_replaced(
    stands: str, work: Path, tmp_path: Path
) -> None:
    archive, folder = tmp_path / "archive", work / "checkpoint"
    archive.write_bytes(member("state", b"41") + END)
    if stands == "folder":
        (folder / "state").symlink_to(tmp_path / "owners.txt")
    else:
        folder.rmdir()
    if stands == "link":
        folder.symlink_to(tmp_path)
    if stands == "file":
        folder.write_text("x")
    unpack(archive, work, MAX)
    assert (folder / "state").read_bytes() == b"41"
    assert not folder.is_symlink()
    assert (tmp_path / "owners.txt").read_text() == "secret"


def test_an_archive_that_can_not_be_read_is_this_machines_fault(work: Path) -> None:
    with pytest.raises(FileNotFoundError):
        unpack(work / "no archive", work, MAX)


# placing


def plan(work: Path, **fields: object) -> SandboxPlan:
    return SandboxPlan(
        lease="l",
        runtime="process",
        job="j",
        task_count=2,
        program=None,
        argv=("true",),
        env={},
        inputs={},
        outputs=(),
        limits=LIMITS,
        scratch=work,
    )._replace(**fields)


def test_a_task_finds_its_own_checkpoint_and_no_others(work: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(member("state", b"41") + END)
    (work / "checkpoint").rmdir()
    declared = plan(work, checkpoint=True, checkpoints={1: archive})
    place(declared, 0)
    assert list((work / "checkpoint").iterdir()) == []
    place(declared, 1)
    assert (work / "checkpoint" / "state").read_bytes() == b"41"


def test_a_job_that_declares_none_has_no_folder(work: Path) -> None:
    (work / "checkpoint").rmdir()
    place(plan(work), 0)
    assert not (work / "checkpoint").exists()


def test_a_link_in_its_place_tells_nobody_where_it_leads(work: Path) -> None:
    # A thread of an interpreter that serves several tasks may put it there at any time.
    (work / "checkpoint").rmdir()
    for target in ("owners.txt", "no-such-file", "."):
        (work / "checkpoint").symlink_to(work.parent / target)
        place(plan(work, checkpoint=True), 0)
        (work / "checkpoint").unlink()


def test_a_refused_archive_lets_the_task_begin_anew(work: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(member("state", b"41") + member("../x") + END)
    place(plan(work, checkpoint=True, checkpoints={0: archive}), 0)
    assert list((work / "checkpoint").iterdir()) == []


def test_no_half_of_one_is_seen_where_there_is_no_room_for_all(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "checkpoint" / "a").write_bytes(b"a" * 4000)
    moved(work, tmp_path / "next")

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_make_file", no_room)
    (tmp_path / "third").mkdir()
    with pytest.raises(OSError, match="No space"):
        unpack(tmp_path / "archive", tmp_path / "third", MAX)
    assert not (tmp_path / "third" / "checkpoint").exists()
