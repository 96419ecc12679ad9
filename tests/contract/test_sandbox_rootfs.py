"""Images are unpacked below their folder, once, and whole."""

import errno
import gzip
import hashlib
import io
import json
import os
import resource
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import images
import live_files
import pytest
from images import entry, file, folder, layout, link, second_name, tar
from unpacking import Obtain, content_of, obtain, place, refused

from lender.sandbox.files import rootfs, tar_tree
from lender.sandbox.files.images import Image
from lender.sandbox.files.rootfs import Rootfs
from lender.sandbox.port import PrepareFailedError

__all__ = ["obtain", "place"]  # fixtures


# What honest archives become.


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_root_file_system_is_unpacked(
    obtain: Obtain, form: int, compress: Callable[[bytes], bytes]
) -> None:
    long = "/".join(["folder-with-a-long-name"] * 5)
    found = obtain(
        compress(
            tar(
                folder("./"),
                folder("./usr/"),
                file("./usr/a", b"content", 0o755),
                file("usr/old", b"1"),
                file("usr/old", b"2"),
                link("bin", "usr"),
                second_name("usr/b", "usr/a"),
                file(f"{long}/x", b"deep"),
                form=form,
            )
        )
    )
    assert found.image is None
    said = content_of(found.root)
    assert {name: said[name] for name in ("usr", "usr/a", "usr/b", "usr/old", "bin")} == {
        "usr": None,
        "usr/a": b"content",
        "usr/b": b"content",
        "usr/old": b"2",
        "bin": "usr",
    }
    assert said[f"{long}/x"] == b"deep"


def test_nothing_in_it_can_be_written_or_gains_privileges(obtain: Obtain) -> None:
    found = obtain(
        tar(
            file("su", b"x", 0o6755),
            file("open", b"x", 0o1666),
            file("secret", b"x", 0o600),
            entry("shared", tarfile.DIRTYPE, mode=0o3777),
        )
    )
    modes = {p.name: stat.S_IMODE(p.lstat().st_mode) for p in [found.root, *found.root.rglob("*")]}
    folders = dict.fromkeys(["root", "shared", *tar_tree.MOUNT_POINTS], 0o555)
    assert modes == {**folders, "su": 0o555, "open": 0o444, "secret": 0o444}
    assert all(p.lstat().st_uid == os.geteuid() for p in found.root.rglob("*"))


def test_times_are_kept_as_far_as_they_make_sense(obtain: Obtain) -> None:
    found = obtain(
        tar(
            entry("module.py", mtime=1_600_000_000),
            entry("future", mtime=1 << 60),
            entry("past", mtime=-5),
        )
    )
    times = {path.name: path.lstat().st_mtime for path in found.root.iterdir() if path.is_file()}
    assert times == {"module.py": 1_600_000_000, "future": 1 << 33, "past": 0}


@pytest.mark.parametrize("compress", [False, True])
def test_an_image_layout_is_its_layers_over_each_other(
    obtain: Obtain,
    compress: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    lower = tar(file("bin/sh", b"old", 0o755), file("etc/kept", b"kept"))
    upper = tar(file("bin/sh", b"new", 0o755), file("app/run", b"run"))
    said = {
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["run"],
        "Env": ["PATH=/bin", "EMPTY=", "A=b=c"],
        "WorkingDir": "/app",
        "User": "root",
    }
    found = obtain(layout(lower, upper, said=said, compress=compress))
    assert content_of(found.root) == {
        "app": None,
        "app/run": b"run",
        "bin": None,
        "bin/sh": b"new",
        "etc": None,
        "etc/kept": b"kept",
    }
    assert found.image == Image(
        ("/bin/sh", "-c", "run"), {"PATH": "/bin", "EMPTY": "", "A": "b=c"}, "/app"
    )


def test_a_docker_archive_is_its_layers_over_each_other(obtain: Obtain) -> None:
    once, between = tar(file("a", b"1")), tar(file("a", b"2"), file("b", b"2"))
    content = images.docker_archive(once, between, once, said={"Cmd": ["a"]})
    for archive in (content, gzip.compress(content)):
        found = obtain(archive)
        assert content_of(found.root) == {"a": b"1", "b": b"2"}
        assert found.image == Image(("a",), {}, "")


def test_the_manifest_for_this_machine_is_taken(obtain: Obtain) -> None:
    layer = tar(file("mine", b""))
    config = images.configuration([layer])
    manifest = json.dumps(
        {
            "config": {"digest": images.sha256(config)},
            "layers": [{"digest": images.sha256(layer)}],
        }
    ).encode()
    here = {"os": "linux", "architecture": images.ARCHITECTURE}
    others = [{"os": "linux", "architecture": "pdp11"}, {"os": "plan9", "architecture": "amd64"}]
    inner = json.dumps(
        {
            "manifests": [
                *({"digest": images.sha256(b""), "platform": other} for other in others),
                {"digest": images.sha256(manifest), "platform": here},
            ]
        }
    ).encode()
    index = json.dumps({"manifests": [{"digest": images.sha256(inner)}]}).encode()
    blobs = (config, layer, manifest, inner)
    found = obtain(
        tar(
            file("oci-layout", b"{}"),
            file("index.json", index),
            *(file(f"blobs/sha256/{images.sha256(blob)[7:]}", blob) for blob in blobs),
        )
    )
    assert content_of(found.root) == {"mine": b""}


# Whiteouts.


def test_whiteouts_hide_what_lies_below(obtain: Obtain) -> None:
    lower = tar(
        *(file(name, b"lower") for name in ("gone", "d/gone", "d/kept", "opaque/a/b", "opaque/c")),
        file("gone-folder/x/y"),
    )
    upper = tar(
        file(".wh.gone"),
        file("d/.wh.gone"),
        file(".wh.gone-folder"),
        file("opaque/new", b"upper"),
        file("opaque/.wh..wh..opq"),
        file("opaque/a/new", b"upper"),
        file(".wh..wh.plnk"),
        file(".wh.was-never-there"),
    )
    assert content_of(obtain(layout(lower, upper)).root) == {
        "d": None,
        "d/kept": b"lower",
        "opaque": None,
        "opaque/new": b"upper",
        "opaque/a": None,
        "opaque/a/new": b"upper",
    }


def test_a_whiteout_hides_nothing_of_its_own_layer(obtain: Obtain) -> None:
    lower = tar(file("d/lower", b""), file("f", b"lower"))
    upper = tar(file("d/upper", b""), file(".wh.d"), file("f", b"upper"), file(".wh.f"))
    assert content_of(obtain(layout(lower, upper)).root) == {
        "d": None,
        "d/upper": b"",
        "f": b"upper",
    }


@pytest.mark.parametrize("name", [".wh..", ".wh...", ".wh.", "a/.wh.."])
def test_a_whiteout_of_no_name_is_refused(obtain: Obtain, name: str) -> None:
    assert "hides no name" in refused(obtain, layout(tar(file("a/b")), tar(file(name))))


def test_a_whiteout_through_a_link_stays_below_the_root(obtain: Obtain, place: Path) -> None:
    lower = tar(link("out", str(place)), link("up", "../../../../../.."), file("etc/x", b""))
    upper = tar(file("out/.wh.owners"), file("up/.wh.etc"), file("out/.wh..wh..opq"))
    assert "etc/x" not in content_of(obtain(layout(lower, upper)).root)


def test_in_a_plain_root_file_system_they_are_names(obtain: Obtain) -> None:
    assert content_of(obtain(tar(file("a"), file(".wh.a"))).root) == {"a": b"", ".wh.a": b""}


# The cache.


def test_it_is_unpacked_once(obtain: Obtain) -> None:
    content = tar(file("a"))
    first, again = obtain(content), obtain(content)
    assert first.root == again.root
    assert first.root.lstat().st_ino == again.root.lstat().st_ino
    assert obtain(tar(file("b"))).root != first.root


def test_a_file_that_is_not_what_its_name_says_is_not_unpacked(place: Path) -> None:
    content = tar(file("a"))
    name = hashlib.sha256(content).hexdigest()
    archive = place / "archive"
    archive.mkdir()
    (archive / name).write_bytes(content)
    rootfs.obtain(archive / name, place / "cache").close()
    (archive / ("0" * 64)).write_bytes(content)
    with pytest.raises(PrepareFailedError, match="not what its name says"):
        rootfs.obtain(archive / ("0" * 64), place / "cache")


def test_the_least_recently_used_makes_room_and_what_is_in_use_never(obtain: Obtain) -> None:
    def tree(name: str) -> Rootfs:
        return obtain(tar(file(name, bytes(1 << 20))), 4 << 20)

    first, second, third = tree("first"), tree("second"), tree("third")
    for number, one in enumerate((first, second, third)):
        os.utime(one.root.parent, (1000 + number, 1000 + number))
    fourth_content = tar(file("fourth", bytes(1 << 20)))
    with pytest.raises(PrepareFailedError, match="does not fit") as caught:
        obtain(fourth_content, 4 << 20)
    assert not caught.value.invalid
    assert all(one.root.exists() for one in (first, second, third))
    second.close()
    assert obtain(fourth_content, 4 << 20).root.exists()
    assert not second.root.exists()
    assert first.root.exists()
    assert third.root.exists()


def test_what_a_crash_or_an_earlier_boot_left_is_cleared(obtain: Obtain, place: Path) -> None:
    kept = obtain(tar(file("kept")))
    cache = place / "cache"
    half = cache / ".partial-of-somebody-killed"
    (half / "root" / "x").mkdir(parents=True)
    digest = "1" * 64
    old = cache / f"{digest}-{'0' * 32}"
    (old / "root").mkdir(parents=True)
    (old / "image.json").write_text('{"image": null, "size_bytes": 5}')
    obtain(tar(file("new")))
    assert not half.exists()
    assert not old.exists()
    assert kept.root.exists()


def test_a_folder_that_others_can_write_is_not_used(obtain: Obtain, place: Path) -> None:
    (place / "cache").mkdir()
    (place / "cache").chmod(0o777)
    with pytest.raises(PrepareFailedError, match="others can write") as caught:
        obtain(tar(file("a")))
    assert not caught.value.invalid


def test_without_room_on_the_disk_nothing_is_left(
    obtain: Obtain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(tar_tree.os, "write", full)
        with pytest.raises(PrepareFailedError, match="No space left") as caught:
            obtain(tar(file("a", b"content")))
    assert not caught.value.invalid
    assert content_of(obtain(tar(file("a", b"content"))).root) == {"a": b"content"}


def test_the_limit_of_address_space_is_given_back(obtain: Obtain) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    obtain(tar(file("a")))
    refused(obtain, b"garbage")
    assert resource.getrlimit(resource.RLIMIT_AS) == before


_TAKE = """
import sys
from pathlib import Path
from lender.sandbox.files import rootfs
found = rootfs.obtain(Path(sys.argv[1]), Path(sys.argv[2]), 1 << 30)
names = sorted(path.name for path in found.root.iterdir())
assert (found.root / "last").read_bytes() == b"last", names
print(found.root.lstat().st_ino, flush=True)
sys.stdin.read()
"""


def test_processes_that_want_the_same_at_once_share_one(place: Path) -> None:
    """Whoever is killed half way: the next one unpacks it whole."""
    entries = [file(f"f{number}", bytes(20_000)) for number in range(300)]
    (place / "archive").write_bytes(tar(*entries, file("last", b"last")))
    argv = [sys.executable, "-c", _TAKE, str(place / "archive"), str(place / "cache")]
    running = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)
    ]
    try:
        while not [*live_files.contents(place / "cache")]:
            assert all(one.poll() is None for one in running)
        running[0].kill()
        inodes = {one.stdout.readline() for one in running[1:] if one.stdout is not None}
        assert len(inodes) == 1
        assert b"" not in inodes
    finally:
        for one in running:
            one.kill()
            one.communicate()
    rootfs.obtain(place / "archive", place / "cache", 1 << 30).close()


def test_what_is_in_use_by_another_process_stays(place: Path) -> None:
    archive = place / "archive"
    archive.write_bytes(tar(file("last", b"last"), file("big", bytes(1 << 20))))
    argv = [sys.executable, "-c", _TAKE, str(archive), str(place / "cache")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        (used,) = place.glob("cache/*/root")
        archive.write_bytes(tar(file("mine", bytes(1 << 20))))
        with pytest.raises(PrepareFailedError, match="does not fit"):
            rootfs.obtain(archive, place / "cache", 3 << 19)
        assert used.exists()
        other.kill()
    rootfs.obtain(archive, place / "cache", 3 << 19).close()
    assert not used.exists()


def test_reading_stops_at_a_backward_step() -> None:
    reader = tar_tree.TarReader(io.BytesIO(bytes(100)))
    assert reader.read(10) == bytes(10)
    with pytest.raises(tar_tree.ArchiveRefusedError):
        reader.seek(5)
    assert reader.seek(500) == 100
