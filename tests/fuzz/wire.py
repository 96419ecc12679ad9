"""lender.protocol: what submitters, lenders and the broker say to each other."""

import msgpack
from core_world import (
    ALICE,
    BLOB,
    LENDER,
    START,
    array_spec,
    class_of,
    lease_id,
    make_lease,
    make_spec,
    results,
)
from pydantic import BaseModel

from fuzz.target import Target, taken
from lender.cli.submitter_key import is_public_key
from lender.protocol import reach, subjects
from lender.protocol.classes import WorkClass
from lender.protocol.codec import JSON, MSGPACK, content_type_of, decode, encode
from lender.protocol.enrolment import EnrolAnswer, EnrolRequest
from lender.protocol.errors import ProtocolError
from lender.protocol.ids import check_job_id
from lender.protocol.job import After, JobSpec, Verify
from lender.protocol.lease import Control, Done, DoneReply, HeldLease, Lease, Offer, OfferedNet
from lender.protocol.log_head import LogHead, MissingHead
from lender.protocol.query import JobStatus, Query, QueryReply
from lender.protocol.result import Chunk, Output, Terminal, ValueBlob
from lender.protocol.result_run import RUN_MIN, ResultRun, decode_results, encode_results
from lender.protocol.sealing import (
    KEY_BYTES,
    SealBrokenError,
    open_key,
    purpose,
    seal,
    seal_key,
    unseal,
    unseal_result,
)
from lender.protocol.signature import Signer, check_public_key, verify
from lender.protocol.task_log import TaskLogPiece

_MARKS = {b"j": JSON, b"m": MSGPACK}
"""Begin an input for a model: its content type."""

_CALLERS: dict[type[BaseModel], tuple[str, ...]] = {
    JobSpec: ("lender.client.ledger.Ledger.read",),
    DoneReply: ("lender.daemon.work_queues.WorkQueues.ask_commit.hear",),
    QueryReply: ("lender.client.client.Client._ask.attempt",),
    LogHead: (
        "lender.daemon.receipt_head.HeadPublisher._compare",
        "lender.cli.receipt_proof._compare",
    ),
}
"""Which do nothing with the bytes but decode them."""

_RUN = ("decode_results", "_find", "_read", "ResultRun._all")
_CODEC = tuple(f"lender.protocol.codec.{one}" for one in ("decode", "unpacked", "validated"))
_KEY = bytes(KEY_BYTES)
_RESULTS = results(
    0,
    limit="memory",
    error="hit its limit",
    stderr_tail=b"e",
    value_blob=ValueBlob(sha256="ab" * 32, size_bytes=9),
    outputs=(Output(name="a/b.png", sha256="cd" * 32, size_bytes=3),),
)
OFFER = Offer(
    lender=LENDER,
    name="desk-7",
    phase="lending",
    slots_total=4,
    slots_free=2,
    cpu_free=2.0,
    memory_free_bytes=1 << 30,
    stay_s=60.0,
    arch="x86_64",
    os="linux",
    labels=("ssd",),
    runtimes=("wasm", "process"),
    classes=(class_of(),),
    consent_digest="ab",
    net=(OfferedNet(submitter=ALICE.public_key, workload="render", reach=("internet",)),),
    blobs=("ab" * 32,),
    leases=(
        HeldLease(lease=lease_id(1), job="job-00001", submitter=ALICE.public_key, state="running"),
    ),
)
DONE = Done(
    lease=lease_id(1),
    job="job-00001",
    submitter=ALICE.public_key,
    results=_RESULTS,
    checkpoints=((1, BLOB),),
    final=True,
)
SPECS = (
    make_spec(),
    array_spec(
        100,
        argv=("--scale={task}",),
        env={"LANG": "C"},
        outputs=("out/a.png",),
        verify=Verify(replicas=3, quorum=2),
        after=(After(job="job-00000"),),
        requires={"pool": "site-1", "labels": ("ssd",), "arch": "aarch64"},
        retries=2,
        priority=-3,
        queue_s=60.0,
    ),
)


def _model(kind: type[BaseModel], *honest: BaseModel) -> Target:
    """The decoder of one message, in both content types."""

    def run(data: bytes) -> None:
        content_type = _MARKS.get(data[:1], MSGPACK)
        message = taken(ProtocolError, decode, kind, data[1:], content_type)
        if message is not None:
            assert decode(kind, encode(message, content_type), content_type) == message

    name = "".join(f"-{c.lower()}" if c.isupper() else c for c in kind.__name__).strip("-")
    seeds = tuple(mark + encode(one, content) for one in honest for mark, content in _MARKS.items())
    assert all(decode(kind, seed[1:], _MARKS[seed[:1]]) in honest for seed in seeds)
    return Target(
        f"wire-{name}",
        run,
        seeds,
        (*_CODEC, *_CALLERS.get(kind, ())),
        tuple(f'"{field}":'.encode() for field in kind.model_fields),
    )


def _run(data: bytes) -> None:
    """Results that are alike are read as if each were read by itself."""
    message = taken(ProtocolError, decode, Chunk, data)
    found = taken(ProtocolError, decode_results, Chunk, data)
    assert found == message
    if found is not None and isinstance(found.results, ResultRun):
        assert encode_results(found) == encode(message)


def _names(data: bytes) -> None:
    """A subject, and every name in one."""
    text = data.decode(errors="replace")
    taken(ProtocolError, check_job_id, text)
    taken(ProtocolError, content_type_of, text)
    subjects.last_token(text)
    job = taken(ProtocolError, subjects.parse_job_subject, text)
    if job is not None and job.first_task is None:
        assert text == f"{job.verb}.{job.submitter}.{job.job}"
    elif job is not None:
        assert subjects.parse_job_subject(subjects.chunk(*job[1:])) == job
    for parse, make in (
        (subjects.parse_checkpoints_subject, subjects.checkpoints),
        (subjects.parse_votes_subject, subjects.votes),
        (subjects.parse_retries_subject, subjects.retries),
    ):
        note = parse(text)
        assert note is None or parse(make(*note)) == note
    begun = subjects.parse_begun_subject(text)
    assert begun is None or subjects.begun(*begun) == text


def _class(data: bytes) -> None:
    found = taken(ProtocolError, WorkClass.parse, data.decode(errors="replace"))
    if found is not None:
        assert WorkClass.parse(found.token) == found


def _reach(data: bytes) -> None:
    text = data.decode(errors="replace")
    places = taken(ValueError, reach.parse_reach, text)
    if places is not None:
        assert reach.parse_reach(",".join(places) or "none") == places
        assert reach.covers(places, places)
        reach.in_words(places)


def _signature(data: bytes) -> None:
    """A header, a public key and a seed, whatever they are, are never Alice's signature."""
    text = data.decode(errors="replace")
    fault = None
    try:
        verify(ALICE.public_key, b"payload", text)
    except ProtocolError as error:
        fault = error
    assert fault is not None or text[:85] == ALICE.sign(b"payload")[:85], "the rest is padding"
    known = taken(ProtocolError, check_public_key, text)
    assert is_public_key(text) == (known is not None), "the light check is as strict"
    taken(ProtocolError, Signer, data)


def _sealed(data: bytes) -> None:
    """A job's key, a sealed content, and what stands in one, of a lender that has the key."""
    assert taken(SealBrokenError, open_key, data.decode(errors="replace"), ALICE) in (None, _KEY)
    taken(SealBrokenError, unseal, _KEY, purpose("value", 0), data)
    (said,) = results(0, value=b"", stderr_tail=seal(_KEY, purpose("words", 0), data))
    taken(SealBrokenError, unseal_result, _KEY, said)


TARGETS = (
    _model(JobSpec, *SPECS),
    _model(
        Lease, make_lease(), make_lease(SPECS[1], ranges=((0, 3), (9, 1)), not_for=("ab" * 16,))
    ),
    _model(Offer, OFFER),
    _model(
        Control,
        Control(kind="open", classes=(class_of(),)),
        Control(kind="cancel", leases=(lease_id(1),)),
    ),
    _model(Done, DONE),
    _model(DoneReply, DoneReply(verdict="stale", reason="late")),
    _model(Query, Query(job="job-00001", task=7)),
    _model(
        QueryReply,
        QueryReply(
            jobs=(
                JobStatus(
                    job="job-00001",
                    name="fold",
                    state="running",
                    tasks_total=9,
                    tasks_succeeded=1,
                    tasks_failed=1,
                    tasks_running=2,
                    submitted_at=START,
                    why="waits",
                    failed_tasks=((3, 1),),
                ),
            )
        ),
    ),
    _model(
        Chunk,
        Chunk(job="job-00001", lease=lease_id(1), attempt=1, lender=LENDER, results=_RESULTS),
    ),
    Target(
        "wire-result-run",
        _run,
        tuple(
            encode(
                Chunk(job="job-00001", results=results(*range(first, first + RUN_MIN), value=value))
            )
            for first, value in ((0, b""), (250, b"v"), (1 << 20, b"long" * 16))
        ),
        tuple(f"lender.protocol.result_run.{one}" for one in _RUN),
        (
            b"\xa4task\xcd",
            b"\xa5value\xc4",
            b"\xa7results\xdc",
            b"\xa5cpu_s\xcb\x7f\xf8",
            b"\xaaduration_s",
        ),
    ),
    _model(
        Terminal,
        Terminal(
            job="job-00001",
            state="failed",
            reason="1 of 9 tasks failed",
            tasks_succeeded=8,
            tasks_failed=1,
            tasks_total=9,
            failed_tasks=((3, 1),),
            result=_RESULTS[0],
            lender=LENDER,
            attempt=1,
            finished_at=START,
        ),
    ),
    _model(
        EnrolRequest,
        EnrolRequest(
            role="lender",
            key=LENDER,
            name="desk-7",
            classes=(class_of(), "*"),
            commitment="ab" * 32,
            opening="cd" * 32,
            after=9,
            token=f"ljt_{'A' * 43}",
        ),
    ),
    _model(
        EnrolAnswer,
        EnrolAnswer(key=LENDER, commitment="ab" * 32, state="begun", nonce="cd" * 32),
        EnrolAnswer(key=LENDER, commitment="ab" * 32, state="admitted", token="e.y.x", at=9),
    ),
    _model(TaskLogPiece, TaskLogPiece(task=3, attempt=1, offset_bytes=80, content=b"step 1\n")),
    _model(
        LogHead,
        LogHead(
            lender=LENDER,
            seq=9,
            hash="ab" * 32,
            at=START,
            missing=MissingHead(seq=8, hash="cd" * 32, at=START),
        ),
    ),
    Target(
        "wire-names",
        _names,
        (
            f"submit.{ALICE.public_key}.job-00001".encode(),
            f"res.{ALICE.public_key}.job-00001.17".encode(),
            f"res.{ALICE.public_key}.job-00001.cp.3".encode(),
            f"res.{ALICE.public_key}.job-00001.begun".encode(),
            b"application/json; charset=utf-8",
        ),
        words=(b"submit.", b"cancel.", b"res.", b".cp.", b".vote.", b".retry.", b".begun"),
    ),
    Target(
        "wire-class",
        _class,
        (class_of().encode(), b"gpu_python311_x8664_nvidia_" + ALICE.public_key.encode() + b"_fn"),
        ("lender.protocol.classes.WorkClass.parse",),
        (b"python3", b"x8664", b"aarch64", b"any", b"none", b"nvidia", b"wasm", b"process", b"oci"),
    ),
    Target(
        "wire-reach",
        _reach,
        (b"internet", b"example.org,*.example.net:8443", b"none"),
        words=(b"*.", b":65535", b",", b"xn--"),
    ),
    Target(
        "wire-signature",
        _signature,
        (ALICE.sign(b"payload").encode(), ALICE.public_key.encode(), b"SU" + b"A" * 56),
        (
            "lender.protocol.signature.verify",
            "lender.protocol.signature._from_base32",
            "lender.protocol.signature._checksum_holds",
            "lender.cli.submitter_key.is_public_key",
        ),
    ),
    Target(
        "wire-sealed",
        _sealed,
        (
            seal_key(_KEY, ALICE.public_key).encode(),
            seal(_KEY, purpose("value", 0), b"42"),
            msgpack.packb(["ValueError", b"a traceback"]),
        ),
        ("lender.protocol.sealing.open_key", "lender.protocol.sealing._words"),
        (b"\xc0", b"\xc4", b"\x92"),
    ),
)
