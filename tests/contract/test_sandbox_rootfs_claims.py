"""What an image says of itself is held against its digests and its form."""

import gzip
import json

import images
import pytest
from images import file, layout, tar
from unpacking import Obtain, obtain, place, refused

from lender.sandbox.files import images as image_files
from lender.sandbox.port import PrepareFailedError

__all__ = ["obtain", "place"]  # fixtures


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
