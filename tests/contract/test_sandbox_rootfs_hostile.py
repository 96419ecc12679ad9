"""An archive leads nowhere but below its root, and ends at its bounds."""

import gzip
import tarfile
from pathlib import Path

import pytest
from images import entry, file, folder, layout, link, second_name, tar
from unpacking import Obtain, content_of, obtain, place, refused

from lender.sandbox.files import images as image_files
from lender.sandbox.files import tar_tree
from lender.sandbox.port import PrepareFailedError

__all__ = ["obtain", "place"]  # fixtures


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
