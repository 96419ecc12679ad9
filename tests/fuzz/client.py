"""The submitter's side: what lenders and servers send back, on its way to disk and screen."""

import contextlib
import tempfile
from hashlib import sha256
from pathlib import Path

from core_world import ALICE, array_spec, lease_id, results

from fuzz.messages import as_msg, read, written
from fuzz.target import Target, taken, why_not
from fuzz.wire import TARGETS as WIRE
from lender.client.collector import Collector, Sweep
from lender.client.destinations import destination
from lender.client.errors import ContentFault, KeyFault, UntrustedResult, UntrustedValue
from lender.client.executor.outcomes import RemoteError, outcome
from lender.client.keys import read_key
from lender.client.log_pieces import LogAssembly
from lender.client.records import decode_record
from lender.client.trust import Trust
from lender.client.values import decode
from lender.protocol import codec
from lender.protocol.codec import ContentType
from lender.protocol.errors import ProtocolError
from lender.protocol.result import Chunk, Terminal
from lender.protocol.signature import seed_from_entropy
from lender.protocol.signed_results import proof_of, result_digest, signed_bytes
from lender.protocol.strangers_text import visible
from lender.protocol.subjects import last_token
from lender.protocol.task_log import TaskLogPiece
from lender.sandbox.runtimes.python_inside import encode

_VALUE = {"a": (1, 2.5, None), 3: [b"bytes", {"b": True}], "n": {"m": float("inf")}}


def _value(data: bytes) -> None:
    """A value never runs anything, and plain data comes back as it went."""
    found = taken((ContentFault, UntrustedValue), lambda: [decode(data)])
    if found is not None:
        with contextlib.suppress(RecursionError):  # a tree that is nearly too deep
            again = encode(found[0])
            assert again[:1] in b"bj"
            assert encode(decode(again)) == again


def _outcome(data: bytes) -> None:
    """What a lender says of a call runs nothing but Python's own exceptions."""
    found = taken((ContentFault, UntrustedValue), lambda: outcome(data, trust=False))
    if found is not None and found.error is not None:
        kind = type(found.error)
        assert kind is RemoteError or (
            kind.__module__ == "builtins" and issubclass(kind, Exception)
        )
        visible(found.printed + str(found.error.__cause__))


def _record(data: bytes) -> None:
    subject, headers, payload = read(data)
    record = taken(ContentFault, decode_record, subject, headers, payload)
    if record is None:
        return
    collector = Collector(((0, 3), (7, 2)))
    for one in collector.take(record):
        visible(one.lender)
        visible(one.result.error or "")
    if isinstance(record, Terminal):
        assert collector.terminal is record
    sweep = Sweep(collector)
    for _ in range(10):
        if collector.complete or not (tasks := sweep.plan()):
            break
        sweep.looked(tasks, 0)


def _trusted(data: bytes) -> None:
    """Nobody but the lender makes results that count as signed."""
    record = taken(ContentFault, decode_record, *read(data))
    if record is None:
        return
    trust = Trust([ALICE.public_key])
    signed = taken(UntrustedResult, trust.check, _JOB, sha256(_SPEC).digest(), record) or ()
    results = record.results if isinstance(record, Chunk) else (record.result,)
    for one in results:
        if one is not None and one.task in signed:
            assert result_digest(one) == result_digest(_RESULTS[one.task])


def _signed(content_type: ContentType) -> bytes:
    """Two results of an array, as ALICE reports and the broker stores them."""
    lease, digests = lease_id(1), {one.task: result_digest(one) for one in _RESULTS}
    text = signed_bytes(sha256(_SPEC).digest(), ALICE.public_key, lease, 1, digests)
    proof = proof_of(ALICE.sign(text), _RESULTS, _RESULTS[:1])
    chunk = Chunk(
        job=_JOB.id,
        lease=lease,
        attempt=1,
        lender=ALICE.public_key,
        results=_RESULTS[:1],
        proof=proof,
    )
    payload = codec.encode(chunk, content_type)
    found = codec.decode(Chunk, payload, content_type)
    assert Trust([ALICE.public_key]).check(_JOB, sha256(_SPEC).digest(), found) == {0}
    return written(f"{_RES}.0", {codec.CONTENT_TYPE_HEADER: content_type}, payload)


def _log(data: bytes) -> None:
    msg = as_msg(read(data))
    content_type = taken(
        ProtocolError, codec.content_type_of, (msg.headers or {}).get(codec.CONTENT_TYPE_HEADER)
    )
    piece = content_type and taken(
        ProtocolError, codec.decode, TaskLogPiece, msg.data, content_type
    )
    if piece:
        assembly = LogAssembly(10)
        for _ in range(2):
            told = assembly.take(last_token(msg.subject), piece, 0.0)
            assert all(piece.content.endswith(one.content) for one in told)


def _output(data: bytes) -> None:
    """An output's name, which the job has asked for, stays below the folder."""
    name = data.decode(errors="replace")
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / "inside"
        inside.mkdir()
        (inside / "link").symlink_to(folder)
        target = taken(ContentFault, destination, inside, name, {name})
        if target is not None:
            # A link by the last name is replaced, never followed (`Blobs.get_to`).
            assert target.parent.resolve().is_relative_to(inside.resolve())
        assert [one.name for one in Path(folder).iterdir()] == ["inside"]


def _shown(data: bytes) -> None:
    text = visible(data.decode(errors="backslashreplace"))
    assert all(one.isprintable() or one in "\n\t" for one in text)


def _key(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        path.write_bytes(data)
        path.chmod(0o600)
        said = why_not(KeyFault, read_key, path)
        seed = data.strip().decode(errors="replace")
        assert len(seed) < 8 or seed not in said


_RAISED = {
    "module": "builtins",
    "name": "ValueError",
    "text": "wrong",
    "args": ["wrong"],
    "traceback": "Traceback",
    "pickle": b"",
}
_JOB = array_spec(2)
_SPEC = codec.encode(_JOB)
_RESULTS = results(0, 1)
_RECORDS = {one.name: one.seeds for one in WIRE}
_RES = f"res.{ALICE.public_key}.job-00001"

TARGETS = (
    Target(
        "client-value",
        _value,
        (encode(_VALUE), encode(b"bytes"), b"p\x80\x04N.", b'j{"m": [[{"t": [1]}, {"d": {}}]]}'),
        ("lender.client.values.decode", "lender.client.values._untagged"),
        (b'{"t": [', b'{"b": "', b'{"d": {', b'{"m": [[', b"NaN", b"1e999"),
    ),
    Target(
        "client-outcome",
        _outcome,
        (
            encode({"printed": b"said", "value": _VALUE}),
            encode({"printed": b"", "raised": _RAISED}),
            encode(
                {"printed": b"", "raised": {**_RAISED, "name": "OSError", "args": [2, "a", "b"]}}
            ),
        ),
        ("lender.client.executor.outcomes.outcome",),
        (b'"builtins"', b'"KeyError"', b'"SystemExit"', b'"ExceptionGroup"', b'"__import__"'),
    ),
    Target(
        "client-record",
        _record,
        tuple(
            written(subject, {codec.CONTENT_TYPE_HEADER: kind}, seed[1:])
            for name, subject in (("wire-chunk", f"{_RES}.0"), ("wire-terminal", _RES))
            for seed, kind in zip(_RECORDS[name], (codec.JSON, codec.MSGPACK), strict=True)
        ),
        ("lender.client.records.decode_record",),
    ),
    Target(
        "client-trust",
        _trusted,
        (_signed(codec.JSON), _signed(codec.MSGPACK)),
        (
            "lender.protocol.signed_results.check_results",
            "lender.protocol.signed_results.result_digest",
        ),
        (b'"others":', b'"signature":', b'"proof":'),
    ),
    Target(
        "client-log",
        _log,
        tuple(
            written("log.S.J.L", {codec.CONTENT_TYPE_HEADER: kind}, seed[1:])
            for seed, kind in zip(
                _RECORDS["wire-task-log-piece"], (codec.JSON, codec.MSGPACK), strict=True
            )
        ),
        ("lender.client.log_following.LogFollowing._read",),
    ),
    Target(
        "client-output",
        _output,
        (b"out/a.png", b"../a", b"/etc/passwd", b"link/a", b"a\xe2\x80\xae.png"),
        ("lender.client.destinations.destination",),
        (b"../", b"/", b"\\", b"link/"),
    ),
    Target(
        "client-screen",
        _shown,
        (b"\x1b]0;title\x07\x1b[2Jtext\n", "r\u202ex".encode(), b"\xff\xc2\x9b1m"),
        words=(b"\x1b[", b"\x9b", b"\xe2\x80\xae"),
    ),
    Target("client-key", _key, (seed_from_entropy(bytes([7]) * 32) + b"\n", b"SU" + b"A" * 56)),
)
