"""Container images as one file: OCI image layouts and docker archives in a tar, and plain trees.

The file itself was verified by its digest. What it says of its own parts is verified on the way: a
layout's manifest, configuration and layers by the digests that name them, and every layer's content
by the `diff_ids` of the configuration, which docker archives have too. Whatever does not match ends
the unpacking. Sources: OCI image specification ("Image Layout", "Image Manifest", "Image
Configuration"); Docker image specification 1.2 ("Combined Image JSON + Filesystem Changeset
Format").
"""

import contextlib
import gzip
import hashlib
import importlib
import json
import os
import platform
import posixpath
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, cast

from lender.sandbox.files.copying import PIECE_BYTES_MAX, Readable
from lender.sandbox.files.tar_tree import ArchiveRefusedError, TarReader, Tree, split

_zstd: Any = None
with contextlib.suppress(ImportError):
    _zstd = importlib.import_module("compression.zstd")  # since Python 3.14

JSON_BYTES_MAX: Final = 4 << 20
PARTS_MAX: Final = 20_000
"""How many files an image may consist of."""

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# What lies on top in an image; a root file system has folders such as `usr` there.
_IMAGE_PART = re.compile(
    r"oci-layout|index\.json|manifest\.json|repositories|blobs|[0-9a-f]{64}(\.json|\.tar)?"
)
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_NAMED_BY_DIGEST = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")
# Of images and of indexes of images; what is not said is taken for one of them.
_MANIFESTS = {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    None,
}
_INDEX_DEPTH_MAX = 3
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm"}
_BAD_JSON = (LookupError, TypeError, AttributeError, ValueError, RecursionError)


class Image(NamedTuple):
    """What an image says about how to run it.

    Attributes:
        argv: its entry point and default arguments; () when it has none.
        env: its environment.
        folder: where its command starts; "" when it does not say.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    folder: str


def unpack(archive: Path, tree: Tree, spare: Path) -> Image | None:
    """Unpack an image, or a plain root file system, into an empty tree.

    Args:
        archive: a tar, maybe compressed; nobody changes it meanwhile.
        tree: to be finished by the caller.
        spare: where nothing is yet; a compressed image is decompressed there, and removed.

    Returns:
        What the image says; None for a plain root file system.

    Raises:
        ArchiveRefusedError: it is malformed or hostile, or not for this machine.
        OSError: it can't be read, or not be written here.
    """
    with archive.open("rb") as file:
        whole = _Section.of(file)
        if not _is_image(_plain(whole, whole), tree.spend):
            whole = _Section.of(file)
            tree.add(_plain(whole, whole), is_layer=False)
            return None
        if not _is_compressed(whole):
            return _Parts(file).lay(tree)
        try:
            with spare.open("xb") as decompressed:
                again = _Section.of(file)
                reader = TarReader(_plain(again, again), tree.spend)
                while piece := reader.read(PIECE_BYTES_MAX):
                    decompressed.write(piece)
            with spare.open("rb") as decompressed_again:
                return _Parts(decompressed_again).lay(tree)
        finally:
            spare.unlink(missing_ok=True)


class _Section:
    """A part of a file, to be read forwards once."""

    def __init__(self, file: IO[bytes], start: int, size_bytes: int) -> None:
        self._file = file
        self._at = start
        self._end = start + size_bytes
        self.head = os.pread(file.fileno(), min(4, size_bytes), start)

    @classmethod
    def of(cls, file: IO[bytes]) -> "_Section":
        """The whole file."""
        return cls(file, 0, os.fstat(file.fileno()).st_size)

    def read(self, size: int, /) -> bytes:
        piece = os.pread(self._file.fileno(), min(size, self._end - self._at), self._at)
        self._at += len(piece)
        return piece

    def skip(self, size: int) -> None:
        self._at = min(self._at + size, self._end)


class _Hashed:
    """Passes on what it reads, and knows its SHA-256."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def read(self, size: int, /) -> bytes:
        piece = self._source.read(size)
        self._hash.update(piece)
        return piece


class _Decompressed:
    """A decompressor whose complaints say what is wrong with the archive."""

    def __init__(self, inner: Readable, faults: tuple[type[Exception], ...]) -> None:
        self._inner = inner
        self._faults: tuple[type[Exception], ...] = (*faults, EOFError)

    def read(self, size: int, /) -> bytes:
        try:
            return self._inner.read(size)
        except self._faults as error:
            raise ArchiveRefusedError(f"its compression is broken: {error}") from error


class _Layer(NamedTuple):
    """One layer: the part that holds it, and the digests of that and of its content."""

    part: str
    digest: str | None
    diff_id: str | None


class _Parts:
    """The files that an image archive consists of."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}
        self._other_names: dict[str, str] = {}
        whole = _Section.of(file)
        for entry in TarReader(whole, skip=whole.skip).entries():
            name = "/".join(split(entry.name))
            if entry.isreg() and not entry.issparse() and entry.size >= 0:
                self._places[name] = entry.offset_data, entry.size
            elif entry.issym():
                target = posixpath.join(posixpath.dirname(name), entry.linkname)
                self._other_names[name] = posixpath.normpath(target)
            elif entry.islnk():
                self._other_names[name] = posixpath.normpath(entry.linkname)
            if len(self._places) + len(self._other_names) > PARTS_MAX:
                raise ArchiveRefusedError(f"an image of more than {PARTS_MAX} files")

    def lay(self, tree: Tree) -> Image:
        """Lay the image's layers over each other."""
        try:
            config, layers = self._layout() if "index.json" in self._places else self._docker()
            image = _image(config)
            diff_ids = config["rootfs"]["diff_ids"]
            if len(diff_ids) != len(layers):
                raise ArchiveRefusedError("its configuration is that of other layers")
            layers = [layer._replace(diff_id=d) for layer, d in zip(layers, diff_ids, strict=True)]
        except _BAD_JSON as error:
            raise ArchiveRefusedError(f"a malformed image ({error!r})"[:300]) from error
        for layer in layers:
            self._lay(layer, tree)
        return image

    def _layout(self) -> tuple[dict[str, Any], list[_Layer]]:
        """An OCI image layout."""
        manifest = self._manifest(self._json("index.json"))
        config = _parsed(self._verified(manifest["config"]))
        layers = [_Layer(_blob(one), one["digest"], None) for one in manifest["layers"]]
        return config, layers

    def _manifest(self, index: dict[str, Any], depth: int = 0) -> dict[str, Any]:
        """The manifest for this machine."""
        if depth > _INDEX_DEPTH_MAX:
            raise ArchiveRefusedError("an index of indexes without end")
        for descriptor in _for_this_machine(index["manifests"]):
            found = _parsed(self._verified(descriptor))
            return self._manifest(found, depth + 1) if "manifests" in found else found
        raise ArchiveRefusedError(f"no image for {_architecture()} in it", invalid=False)

    def _docker(self) -> tuple[dict[str, Any], list[_Layer]]:
        """A docker archive."""
        if "manifest.json" not in self._places:
            raise ArchiveRefusedError("neither an OCI image layout nor a docker archive")
        images = self._json("manifest.json")
        if len(images) != 1:
            raise ArchiveRefusedError(f"{len(images)} images in one archive")
        (manifest,) = images
        name = manifest["Config"]
        content = self._read(name)
        digest = _NAMED_BY_DIGEST.fullmatch(name)
        if digest is not None and hashlib.sha256(content).hexdigest() != digest[1]:
            raise ArchiveRefusedError(f"{name} has another digest")
        layers = [_Layer(posixpath.normpath(one), None, None) for one in manifest["Layers"]]
        return _parsed(content), layers

    def _lay(self, layer: _Layer, tree: Tree) -> None:
        section = self._section(layer.part)
        packed = _Hashed(section)
        content = _Hashed(_plain(section, packed))
        tree.add(content, is_layer=True)
        while packed.read(PIECE_BYTES_MAX):
            pass  # what follows the compressed data counts for the digest
        if layer.digest not in (None, packed.digest) or layer.diff_id != content.digest:
            raise ArchiveRefusedError(f"layer {layer.part} has another digest")

    def _verified(self, descriptor: dict[str, Any]) -> bytes:
        content = self._read(_blob(descriptor))
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != descriptor["digest"]:
            raise ArchiveRefusedError(f"blob {descriptor['digest']} has another digest")
        return content

    def _json(self, name: str) -> Any:  # noqa: ANN401 - whatever somebody wrote
        return _parsed(self._read(name))

    def _read(self, name: str) -> bytes:
        section = self._section(name)
        content = TarReader(section)
        pieces = []
        while piece := content.read(PIECE_BYTES_MAX):
            pieces.append(piece)
            if content.tell() > JSON_BYTES_MAX:
                raise ArchiveRefusedError(f"{name} is longer than {JSON_BYTES_MAX} bytes")
        return b"".join(pieces)

    def _section(self, name: str) -> _Section:
        name = posixpath.normpath(name)
        place = self._places.get(self._other_names.get(name, name))
        if place is None:
            raise ArchiveRefusedError(f"{name!r} is missing in it")
        return _Section(self._file, *place)


def _plain(section: _Section, source: Readable) -> Readable:
    """The source, decompressed by what its section begins with."""
    if section.head.startswith(_GZIP):
        inner = gzip.GzipFile(fileobj=cast("IO[bytes]", source), mode="rb")
        return _Decompressed(inner, (gzip.BadGzipFile, zlib.error))
    if section.head == _ZSTD:
        if _zstd is None:
            reason = "compressed with zstd, which the Python of this lender can't read"
            raise ArchiveRefusedError(reason, invalid=False)
        return _Decompressed(_zstd.ZstdFile(source), (_zstd.ZstdError,))
    return source


def _is_compressed(section: _Section) -> bool:
    return section.head.startswith(_GZIP) or section.head == _ZSTD


def _is_image(source: Readable, spend: Callable[[int], None]) -> bool:
    for entry in TarReader(source, spend).entries():
        if parts := split(entry.name):
            return _IMAGE_PART.fullmatch(parts[0]) is not None
    return False


def _for_this_machine(descriptors: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for one in descriptors:
        platform_ = one.get("platform") or {"os": "linux", "architecture": _architecture()}
        if one.get("mediaType") not in _MANIFESTS:
            continue
        if (platform_["os"], platform_["architecture"]) == ("linux", _architecture()):
            yield one


def _architecture() -> str:
    """This machine as images name it (GOARCH)."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def _blob(descriptor: dict[str, Any]) -> str:
    digest = _DIGEST.fullmatch(descriptor["digest"])
    if digest is None:
        raise ArchiveRefusedError("a digest that is no SHA-256", invalid=False)
    return f"blobs/sha256/{digest[1]}"


def _parsed(content: bytes) -> Any:  # noqa: ANN401 - whatever somebody wrote
    return json.loads(content)


def _image(config: dict[str, Any]) -> Image:
    built_for = config.get("architecture") or _architecture()
    if built_for != _architecture():
        reason = f"an image for {built_for}, and this machine is {_architecture()}"
        raise ArchiveRefusedError(reason, invalid=False)
    said = config.get("config") or {}
    entry_point, arguments = said.get("Entrypoint") or [], said.get("Cmd") or []
    env = said.get("Env") or []
    pairs = [pair.partition("=") for pair in env]
    folder = said.get("WorkingDir") or ""
    argv = [*entry_point, *arguments]
    words = [*argv, folder, *(word for pair in pairs for word in pair)]
    lists = all(isinstance(one, list) for one in (entry_point, arguments, env))
    if not lists or any(not isinstance(word, str) or "\0" in word for word in words):
        raise ArchiveRefusedError("a command or an environment that is none")
    return Image(tuple(argv), {name: value for name, _, value in pairs if name}, folder)
