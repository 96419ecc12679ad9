"""Archives for tests: root file systems, layers and images, honest and hostile, made in memory."""

import gzip
import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    """An entry of a tar, exactly as asked for."""
    made = tarfile.TarInfo(name)
    made.type = kind
    made.mode = 0o644
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def file(name: str, content: bytes = b"", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, size=len(content), mode=mode), content


def folder(name: str) -> tarfile.TarInfo:
    return entry(name, tarfile.DIRTYPE, mode=0o755)


def link(name: str, target: str) -> tarfile.TarInfo:
    return entry(name, tarfile.SYMTYPE, linkname=target)


def second_name(name: str, target: str) -> tarfile.TarInfo:
    return entry(name, tarfile.LNKTYPE, linkname=target)


Entry = tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]


def tar(*entries: Entry, form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar with these entries."""
    content = io.BytesIO()
    with tarfile.TarFile(fileobj=content, mode="w", format=form) as archive:
        for one in entries:
            info, data = one if isinstance(one, tuple) else (one, b"")
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def configuration(layers: Iterable[bytes], said: Mapping[str, object] | None = None) -> bytes:
    """An image's configuration; `said` is what it says of its command."""
    fields = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "config": dict(said or {}),
        "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
    }
    return json.dumps(fields).encode()


def layout(
    *layers: bytes,
    said: Mapping[str, object] | None = None,
    compress: bool = True,
    config: bytes | None = None,
    tamper: Mapping[str, bytes] | None = None,
) -> bytes:
    """An OCI image layout in a tar.

    Args:
        layers: tars, the lowest first.
        said: see `configuration`.
        compress: the layers, by gzip.
        config: instead of an honest one.
        tamper: digest -> content that lies in its place.
    """
    packed = [gzip.compress(layer, mtime=0) if compress else layer for layer in layers]
    config = config or configuration(layers, said)
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": {"digest": sha256(config), "size": len(config)},
            "layers": [{"mediaType": kind, "digest": sha256(p), "size": len(p)} for p in packed],
        }
    ).encode()
    kind = "application/vnd.oci.image.manifest.v1+json"
    descriptor = {"mediaType": kind, "digest": sha256(manifest), "size": len(manifest)}
    index = {"schemaVersion": 2, "manifests": [descriptor]}
    blobs = {sha256(blob): blob for blob in (config, manifest, *packed)} | dict(tamper or {})
    return tar(
        file("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
        file("index.json", json.dumps(index).encode()),
        *(file(f"blobs/sha256/{digest[7:]}", blob) for digest, blob in blobs.items()),
    )


def docker_archive(*layers: bytes, said: Mapping[str, object] | None = None) -> bytes:
    """What `docker save` wrote before it wrote layouts; equal layers are links."""
    config = configuration(layers, said)
    name = f"{sha256(config)[7:]}.json"
    names = [f"{number:064x}/layer.tar" for number in range(len(layers))]
    parts: list[Entry] = [file(name, config)]
    for number, layer in enumerate(layers):
        first = layers.index(layer)
        if first < number:
            parts.append(link(names[number], f"../{names[first]}"))
        else:
            parts.append(file(names[number], layer))
    manifest = json.dumps([{"Config": name, "RepoTags": None, "Layers": names}]).encode()
    return tar(*parts, file("manifest.json", manifest))


def of_host_programs(*names: str) -> bytes:
    """A layer with programs of this machine and the libraries that they need."""
    paths: dict[str, Path] = {}
    for name in names:
        found = shutil.which(name, path="/usr/bin:/bin")
        assert found is not None, f"{name} is not installed"
        paths[f"bin/{name}"] = Path(found)
        listed = subprocess.run(["ldd", found], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            paths[library.lstrip("/")] = Path(library)
    return tar(*(file(name, path.read_bytes(), 0o755) for name, path in paths.items()))


def names(content: bytes) -> set[str]:
    """The names of a tar's entries."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return set(archive.getnames())
