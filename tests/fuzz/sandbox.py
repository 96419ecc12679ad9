"""What comes out of a sandbox, and what is put into one."""

import contextlib
import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path

import images
import wasmtime
from wasmtime import TableType

from fuzz.target import Target, taken
from lender.sandbox import frames
from lender.sandbox.egress import requests
from lender.sandbox.files import checkpoint
from lender.sandbox.files.images import unpack
from lender.sandbox.files.tar_tree import ArchiveRefusedError, Tree
from lender.sandbox.plan import TaskOutcome, outcomes_from_wire, outcomes_to_wire
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes import module_cache, python_inside, wasm_binding, wasm_tables
from lender.sandbox.runtimes.python_answers import Answers

_UNPACKED_BYTES_MAX = 16 << 20
_VALUE_BYTES_MAX = 64
_ANSWER = python_inside.ANSWER.pack(python_inside.CLEAN, 7, 12_000) + b"b\x00value"


def _frames(data: bytes) -> None:
    """In pieces of a size that the first byte says."""
    step = 1 + data[0] if data else 1
    decoder = frames.Decoder(4096)
    with contextlib.suppress(frames.FrameError):
        for at in range(1, len(data), step):
            for frame in decoder.feed(data[at : at + step]):
                written = frames.encode(frame)
                (again,) = frames.Decoder(4096).feed(written)
                assert frames.encode(again) == written
                _outcomes(frame)


def _outcomes(frame: frames.Frame) -> None:
    outcomes = taken(ValueError, outcomes_from_wire, frame.header.get("outcomes"), frame.body)
    if outcomes is not None:
        told, body = outcomes_to_wire(outcomes)
        assert outcomes_from_wire(told, body) == outcomes


def _python_answer(data: bytes) -> None:
    """In pieces of a size that the first byte says, or all at once."""
    step = 1 + data[0] if data else 1
    in_pieces, at_once = Answers(_VALUE_BYTES_MAX), Answers(_VALUE_BYTES_MAX)
    found = at_once.feed(data[1:])
    assert found == [
        answer
        for at in range(1, len(data), step)
        for answer in in_pieces.feed(data[at : at + step])
    ]
    assert in_pieces.fault == at_once.fault
    for answer in found:
        bound = _VALUE_BYTES_MAX if answer.is_value else python_inside.TEXT_BYTES_MAX
        assert len(answer.content) <= bound
        assert answer.text.isprintable()
        assert answer.after_s >= 0


def _request(data: bytes) -> None:
    request = taken(requests.BadRequestError, requests.parse, data)
    if request is None:
        return
    assert 1 <= request.port <= 65535
    assert request.host == request.host.lower()
    assert not set(request.host) & set("/@ \r\n\0\\")
    if request.opening:
        again = requests.parse(b"GET http://%s/ HTTP/1.1\r\n\r\n" % _host_said(request.opening))
        assert again.host == request.host, "the server is told the host that was judged"


def _host_said(opening: bytes) -> bytes:
    (said,) = [
        line[6:] for line in opening.split(b"\r\n") if line[:5].lower() == b"host:"
    ]  # exactly one
    return said


class _FullError(Exception):
    """More than may be unpacked."""


def _budget() -> Callable[[int], None]:
    left_bytes = _UNPACKED_BYTES_MAX

    def spend(size_bytes: int) -> None:
        nonlocal left_bytes
        left_bytes -= size_bytes
        if left_bytes < 0:
            raise _FullError

    return spend


def _image(data: bytes) -> None:
    """An image, or a root file system: refused, or unpacked below its root and nowhere else."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        root.mkdir()
        archive = Path(folder) / "archive"
        archive.write_bytes(data)
        with contextlib.suppress(ArchiveRefusedError, _FullError):
            tree = Tree(root, _budget())
            image = unpack(archive, tree, Path(folder) / "spare")
            tree.finish()
            assert image is None or all(isinstance(one, str) for one in image.argv)
        assert {one.name for one in Path(folder).iterdir()} <= {"root", "archive"}


def _checkpoint(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive, scratch = Path(folder) / "archive", Path(folder) / "scratch"
        scratch.mkdir()
        archive.write_bytes(data)
        try:
            checkpoint.unpack(archive, scratch, 1 << 20)
        except checkpoint.CheckpointRefusedError:
            assert not any((scratch / checkpoint.FOLDER).iterdir())
        assert [one.name for one in scratch.iterdir()] == [checkpoint.FOLDER]
        packed = taken(checkpoint.CheckpointRefusedError, checkpoint.pack, scratch, 2 << 20)
        if packed is not None:
            archive.write_bytes(packed)
            checkpoint.unpack(archive, scratch, 2 << 20)
            assert checkpoint.pack(scratch, 2 << 20) == packed


def _a_checkpoint() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / checkpoint.FOLDER / "inner"
        place.mkdir(parents=True)
        (place / "state.json").write_bytes(b'{"step": 3}')
        packed = checkpoint.pack(Path(folder), 1 << 20)
        assert packed is not None
        return packed


_ENGINE = wasmtime.Engine()


def _wasm(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as program:
        program.write(data)
        program.flush()
        found = taken(PrepareFailedError, module_cache.load, _ENGINE, Path(program.name), None)
        is_fixed = wasm_tables.are_fixed(data, 256)
        if found is not None:
            taken(PrepareFailedError, wasm_binding.check_command, found)
            tables = [one.type for one in found.exports if isinstance(one.type, TableType)]
            for limits in (table.limits for table in tables if is_fixed):
                assert limits.min == limits.max <= 256


_LAYER = images.tar(
    images.folder("etc"),
    images.file("etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
    images.link("bin", "usr/bin"),
    images.second_name("etc/shadow", "etc/passwd"),
)
_UPPER = images.tar(images.file("etc/.wh.shadow"), images.file("srv/.wh..wh..opq"))
_OUTCOMES, _BODY = outcomes_to_wire(
    [TaskOutcome(3, "succeeded", 0, b"value", b"tail"), TaskOutcome(4, "failed", limit="time")]
)

TARGETS = (
    Target(
        "sandbox-frames",
        _frames,
        (
            b"\x40" + frames.encode(frames.Frame({"outcomes": _OUTCOMES, "last": False}, _BODY)),
            b"\x02" + frames.encode(frames.Frame({"log": 3}, b"step 1\n")) * 2,
            b"\xff"
            + frames.encode(frames.Frame({"unprepared": "no", "invalid": True, "field": ""})),
        ),
        ("lender.sandbox.frames.Decoder._next",),
    ),
    Target(
        "sandbox-python-answer",
        _python_answer,
        (
            b"\x03" + _ANSWER * 3,
            b"\xff" + _ANSWER + python_inside.ANSWER.pack(python_inside.RAISED, 3, 0) + b"No!",
            b"\xff" + _ANSWER + python_inside.ANSWER.pack(python_inside.DONE, 65, 0),
        ),
        ("lender.sandbox.runtimes.python_answers.Answers.feed",),
    ),
    Target(
        "sandbox-request",
        _request,
        (
            b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
            (
                b"GET http://Example.org:8080/a?b#c HTTP/1.1\r\nHost: other\r\n"
                b"Connection: close, x\r\nX: y\r\nAccept: */*\r\n\r\n"
            ),
            b"GET http://[2001:db8::1]/ HTTP/1.0\r\n\r\n",
        ),
        words=(b"http://", b"CONNECT ", b"\r\n", b"0x7f.1", b"[::1]", b"%25", b"Host: ", b":65536"),
    ),
    Target(
        "sandbox-image",
        _image,
        (
            _LAYER,
            images.layout(_LAYER, _UPPER, said={"Cmd": ["/bin/sh"], "Env": ["A=b"]}),
            images.docker_archive(_LAYER, _UPPER, _LAYER),
            gzip.compress(images.tar(images.file("a", bytes(4096))), mtime=0),
        ),
        (
            "lender.sandbox.files.images._parsed",
            "lender.sandbox.files.images._plain",
            "lender.sandbox.files.tar_tree.TarReader.entries",
        ),
        (b".wh.", b"../", b"index.json", b"manifest.json", b"GNU.sparse.major=1", b"17 path=a\n"),
    ),
    Target(
        "sandbox-checkpoint",
        _checkpoint,
        (_a_checkpoint(),),
        ("lender.sandbox.files.checkpoint._unpack_below",),
        (b"ustar\x0000", b"../", b"\x00" * 512),
    ),
    Target(
        "sandbox-wasm",
        _wasm,
        (
            bytes(
                wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start")))')
            ),
            bytes(wasmtime.wat2wasm('(module (import "env" "f" (func)))')),
            bytes(wasmtime.wat2wasm('(module (table (export "t") 9 9 funcref) (memory 1))')),
            b"\0asm\x01\0\0\0",
        ),
        ("lender.sandbox.runtimes.module_cache._compile",),
    ),
)
