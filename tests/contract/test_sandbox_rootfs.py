"""Images are unpacked below their folder, within bounds, once, and whole."""

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
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import images
import pytest
from images import entry, file, folder, layout, link, second_name, tar

from lender.sandbox.files import images as image_files
from lender.sandbox.files import rootfs, scratch, tar_tree
from lender.sandbox.files.images import Image
from lender.sandbox.files.rootfs import Rootfs
from lender.sandbox.port import PrepareFailedError

Obtain = Callable[..., Rootfs]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of short name, with a file beside the cache that nothing may touch."""
    made = Path(tempfile.mkdtemp(prefix="lender-rootfs-"))
    (made / "owners").write_bytes(b"the owner's")
    yield made
    assert (made / "owners").read_bytes() == b"the owner's"
    assert {path.name for path in made.iterdir()} <= {"owners", "archive", "cache"}
    assert not list((made / "cache").glob(".partial-*")), "something half unpacked was left"
    scratch.remove(made)


@pytest.fixture
def obtain(place: Path) -> Iterator[Obtain]:
    held = []

    def unpack(content: bytes, limit_bytes: int | None = 1 << 30) -> Rootfs:
        (place / "archive").write_bytes(content)
        held.append(rootfs.obtain(place / "archive", place / "cache", limit_bytes))
        return held[-1]

    yield unpack
    for one in held:
        one.close()


def refused(obtain: Obtain, content: bytes, limit_bytes: int | None = 1 << 30) -> str:
    """Why it is not unpacked: the job's own fault."""
    with pytest.raises(PrepareFailedError) as caught:
        obtain(content, limit_bytes)
    assert caught.value.invalid, caught.value.reason
    assert caught.value.field == "program"
    return caught.value.reason


def content_of(root: Path) -> dict[str, bytes | str | None]:
    """Each name below a tree: a file's content, a link's target, None for a folder."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    for name in tar_tree.MOUNT_POINTS:
        assert found.pop(name, "missing") is None
    return found


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


# Ways out.


@pytest.mark.parametrize("name", ["../owners", "a/../../owners", "..", "a/..", "/../owners"])
def test_a_name_that_climbs_is_refused(obtain: Obtain, name: str) -> None:
    assert "leads out" in refused(obtain, tar(file(name, b"stolen")))
    assert "leads out" in refused(obtain, layout(tar(file(name, b"stolen"))))
    assert "leads out" in refused(obtain, tar(second_name("x", name)))


def test_absolute_names_are_taken_to_begin_at_the_root(obtain: Obtain, place: Path) -> None:
    found = obtain(tar(file("/etc/passwd", b"mine"), file(f"{place}/owners", b"mine")))
    assert content_of(found.root)["etc/passwd"] == b"mine"


def test_links_lead_nowhere_but_below_the_root(obtain: Obtain, place: Path) -> None:
    found = obtain(
        tar(
            link("absolute", str(place)),
            file("absolute/owners", b"1"),
            link("relative", "../../.."),
            file("relative/owners", b"2"),
            link("one", "two"),
            link("two", "usr/three/../.."),
            folder("usr/three"),
            file("one/through", b"3"),
            link("etc", "/usr/three"),
            link("usr/three/four", "/absolute"),
            file("etc/four/deep", b"4"),
        )
    )
    said = content_of(found.root)
    inside = str(place).lstrip("/")
    assert said[f"{inside}/owners"] == b"1"
    assert said["owners"] == b"2"
    assert said["through"] == b"3"
    assert said[f"{inside}/deep"] == b"4"


def test_a_link_that_is_replaced_by_a_file_is_not_followed(obtain: Obtain, place: Path) -> None:
    archives = [
        tar(link("x", str(place / "owners")), file("x", b"mine")),
        layout(tar(link("x", str(place / "owners"))), tar(file("x", b"mine"))),
    ]
    for archive in archives:
        assert content_of(obtain(archive).root) == {"x": b"mine"}


def test_a_folder_replaces_a_link_and_is_then_gone_through(obtain: Obtain, place: Path) -> None:
    lower = tar(link("x", str(place)), file("x/before", b""))
    upper = tar(folder("x"), file("x/owners", b"mine"))
    said = content_of(obtain(layout(lower, upper)).root)
    assert (said["x"], said["x/owners"]) == (None, b"mine")


def test_links_in_a_circle_are_refused(obtain: Obtain) -> None:
    reason = refused(obtain, tar(link("a", "b"), link("b", "a"), file("a/x")))
    assert "circle" in reason


@pytest.mark.parametrize("target", ["/etc/passwd", "missing", "d", "", "x"])
def test_a_second_name_of_what_is_no_file_in_it_is_refused(obtain: Obtain, target: str) -> None:
    assert "second name" in refused(obtain, tar(folder("d"), second_name("x", target)))


def test_a_second_name_through_a_link_stays_below_the_root(obtain: Obtain, place: Path) -> None:
    archive = tar(link("out", str(place)), second_name("stolen", "out/owners"))
    assert "second name" in refused(obtain, archive)


def test_a_name_below_a_file_is_refused(obtain: Obtain) -> None:
    assert "below a file" in refused(obtain, tar(file("a"), file("a/b")))


def test_devices_and_fifos_are_left_out(obtain: Obtain) -> None:
    found = obtain(
        tar(
            entry("disk", tarfile.BLKTYPE, devmajor=8, devminor=0),
            entry("memory", tarfile.CHRTYPE, devmajor=1, devminor=1),
            entry("fifo", tarfile.FIFOTYPE),
            entry("future", b"Z", size=0),
            file("file"),
        )
    )
    assert content_of(found.root) == {"file": b""}


def test_mount_points_are_folders_whatever_the_image_has_there(obtain: Obtain, place: Path) -> None:
    found = obtain(tar(link("work", str(place)), file("dev"), link("proc", "/"), file("tmp/x")))
    assert content_of(found.root) == {"tmp/x": b""}


# Bombs.


def test_a_sparse_file_is_refused(obtain: Obtain) -> None:
    """A few bytes that say they are a terabyte."""
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}
    info = entry("big", size=512, pax_headers=sparse)
    archive = tar((info, b"0\n".ljust(512, b"\0")), form=tarfile.PAX_FORMAT)
    assert "sparse" in refused(obtain, archive)


def test_a_decompression_bomb_ends_at_the_bound(obtain: Obtain) -> None:
    layer = tar(file("zeros", bytes(64 << 20)))
    for archive in (gzip.compress(layer), layout(layer)):
        assert len(archive) < 1 << 20
        with pytest.raises(PrepareFailedError) as caught:
            obtain(archive, 8 << 20)
        assert "does not fit" in caught.value.reason
        assert not caught.value.invalid, "another machine may have the room"


def test_what_lies_behind_the_end_counts_as_well(obtain: Obtain) -> None:
    archive = gzip.compress(tar(file("a")) + bytes(64 << 20))
    with pytest.raises(PrepareFailedError, match="does not fit"):
        obtain(archive, 8 << 20)


def test_small_entries_count_more_than_their_content(obtain: Obtain) -> None:
    archive = tar(*(file(f"{number}") for number in range(3000)))
    with pytest.raises(PrepareFailedError, match="does not fit"):
        obtain(archive, 8 << 20)


def test_entries_are_bounded(obtain: Obtain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_tree, "ENTRIES_MAX", 100)
    assert "entries" in refused(obtain, tar(*(file(f"{n}") for n in range(101))))
    assert "entries" in refused(obtain, tar(*(file(f"{n}/{n}/{n}/x") for n in range(30))))
    assert "entries" in refused(obtain, tar(*(file("same") for n in range(101))))
    obtain(tar(*(file(f"{n}") for n in range(90))))


def test_depth_is_bounded(obtain: Obtain) -> None:
    assert "deep" in refused(obtain, tar(file("d/" * 500 + "x")))
    circle = [link(f"{'d/' * n}again", "/" + "d/" * n) for n in range(3)]
    assert "deep" in refused(obtain, tar(*circle, file("d/d/again/" + "e/" * 127 + "x")))
    obtain(tar(file("d/" * 100 + "x")))


def test_a_name_longer_than_the_kernel_takes_is_refused(obtain: Obtain) -> None:
    refused(obtain, tar(file("n" * 300)))
    refused(obtain, tar(link("x", "t" * 5000)))


def test_a_header_that_would_fill_the_memory_is_refused(obtain: Obtain) -> None:
    header = entry("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=1 << 30)
    archive = gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    assert "a header of" in refused(obtain, archive)


def test_headers_in_front_of_headers_are_refused(obtain: Obtain) -> None:
    header = entry("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=5)
    one = header.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(512, b"\0")
    refused(obtain, one * 5000 + tar(file("x")))


@pytest.mark.parametrize("size", [-1, -512, -(1 << 40), 1 << 62])
def test_a_size_that_leads_backwards_or_nowhere_is_refused(obtain: Obtain, size: int) -> None:
    honest = entry("x").tobuf(tarfile.GNU_FORMAT)
    number = (b"\xff" if size < 0 else b"\x80") + (size % (1 << 88)).to_bytes(11, "big")
    broken = bytearray(honest[:124] + number + honest[136:])
    broken[148:156] = b" " * 8
    broken[148:156] = b"%06o\0 " % sum(broken)
    refused(obtain, bytes(broken) + bytes(4096))
    refused(obtain, tar(file("a"))[:512] + bytes(broken) + bytes(4096))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 5000,
        b"\x1f\x8bnot compressed",
        gzip.compress(tar(file("a", b"x" * 5000)))[:-200],
        tar(file("a", b"x" * 5000))[:2000],
    ],
)
def test_garbage_is_refused(obtain: Obtain, content: bytes) -> None:
    refused(obtain, content)


def test_what_this_python_cannot_decompress_is_handed_back(
    obtain: Obtain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "_zstd", None)
    with pytest.raises(PrepareFailedError, match="zstd") as caught:
        obtain(b"\x28\xb5\x2f\xfd" + bytes(100))
    assert not caught.value.invalid


# What an image says is held against its digests.


def test_a_part_with_another_digest_is_refused(obtain: Obtain) -> None:
    layer, other = tar(file("a", b"honest")), tar(file("a", b"forged"))
    config = images.configuration([layer])
    packed = gzip.compress(layer, mtime=0)
    forged = {
        images.sha256(packed): gzip.compress(other, mtime=0),
        images.sha256(config): images.configuration([layer], {"Cmd": ["forged"]}),
    }
    for digest, content in forged.items():
        reason = refused(obtain, layout(layer, tamper={digest: content}))
        assert "another digest" in reason
    # The manifest's digests are right, the configuration's is not.
    reason = refused(obtain, layout(layer, config=images.configuration([other])))
    assert "another digest" in reason
    reason = refused(obtain, layout(layer, config=images.configuration([layer, layer])))
    assert "other layers" in reason


def test_a_docker_layer_with_another_digest_is_refused(obtain: Obtain) -> None:
    layer = tar(file("a", b"honest"))
    archive = images.docker_archive(layer)
    assert archive.count(b"honest") == 1
    assert "another digest" in refused(obtain, archive.replace(b"honest", b"forged"))
    assert "another digest" in refused(obtain, archive.replace(b'"linux"', b'"xinul"'))


def test_an_image_of_another_machine_is_handed_back(obtain: Obtain) -> None:
    layer = tar(file("a"))
    config = json.loads(images.configuration([layer])) | {"architecture": "pdp11"}
    with pytest.raises(PrepareFailedError, match="pdp11") as caught:
        obtain(layout(layer, config=json.dumps(config).encode()))
    assert not caught.value.invalid


@pytest.mark.parametrize(
    "said",
    [
        {"Cmd": "sh"},
        {"Cmd": [1]},
        {"Env": ["A\0B=C"]},
        {"Env": {"A": "B"}},
        {"Env": 5},
        {"WorkingDir": ["/"]},
        {"Entrypoint": {"sh": 1}},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(
    obtain: Obtain, said: dict[str, object]
) -> None:
    refused(obtain, layout(tar(file("a")), said=said))


@pytest.mark.parametrize(
    "index",
    [
        b"[]",
        b"{}",
        b"nonsense",
        b"[" * 100_000,
        b'{"manifests": {}}',
        b'{"manifests": [{"digest": "sha256:../../../../etc/passwd"}]}',
        b'{"manifests": [{"digest": "md5:00"}]}',
        b'{"manifests": [{"digest": "sha256:%b"}]}' % (b"0" * 64),
        b'{"manifests": ["x"]}',
        b" " * (image_files.JSON_BYTES_MAX + 1),
    ],
)
def test_an_index_that_makes_no_sense_is_not_unpacked(obtain: Obtain, index: bytes) -> None:
    with pytest.raises(PrepareFailedError):
        obtain(tar(file("oci-layout", b"{}"), file("index.json", index)))


def test_an_index_within_itself_ends(obtain: Obtain) -> None:
    """It can't hold its own digest, but any number of others."""
    inner = b'{"manifests": []}'
    blobs = {}
    for _ in range(8):
        digest = images.sha256(inner)
        blobs[digest] = inner
        inner = json.dumps({"manifests": [{"digest": digest}]}).encode()
    parts = [file(f"blobs/sha256/{digest[7:]}", blob) for digest, blob in blobs.items()]
    archive = tar(file("oci-layout", b"{}"), file("index.json", inner), *parts)
    assert "without end" in refused(obtain, archive)


@pytest.mark.parametrize(
    "manifest",
    [
        b"{}",
        b"[]",
        b"[{}, {}]",
        b'[{"Config": 1, "Layers": []}]',
        b'[{"Config": "c", "Layers": [1]}]',
    ],
)
def test_a_docker_manifest_that_makes_no_sense_is_refused(obtain: Obtain, manifest: bytes) -> None:
    config = images.configuration([tar()])
    refused(obtain, tar(file("manifest.json", manifest), file("c", config)))


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
        begun = (".partial-*/root/f*", "*/image.json")
        while not any(list((place / "cache").glob(pattern)) for pattern in begun):
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
