"""Every message survives the wire in both content types; no bytes do more than be refused."""

from collections.abc import Callable

import msgpack
import pytest
from core_world import ALICE, array_spec, class_of, lease_id, make_lease, make_spec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from lender.protocol.classes import WorkClass
from lender.protocol.codec import JSON, MSGPACK, ContentType, content_type_of, decode, encode
from lender.protocol.errors import ProtocolError
from lender.protocol.ids import check_job_id
from lender.protocol.job import BlobRef, JobSpec, Limits
from lender.protocol.lease import Control, Done, DoneReply, HeldLease, Lease, Offer
from lender.protocol.query import JobStatus, Query, QueryReply
from lender.protocol.result import Chunk, Output, TaskResult, Terminal, ValueBlob
from lender.protocol.signature import Signer, check_public_key, verify
from lender.protocol.subjects import parse_checkpoints_subject, parse_job_subject
from lender.protocol.task_log import TaskLogPiece

MODELS: tuple[type[BaseModel], ...] = (
    JobSpec,
    Lease,
    Offer,
    Control,
    Done,
    DoneReply,
    Query,
    QueryReply,
    Chunk,
    Terminal,
    TaskResult,
    TaskLogPiece,
)

keys = st.just(ALICE.public_key)
job_ids = st.from_regex(r"[A-Za-z0-9_-]{8,64}", fullmatch=True)
lease_ids = st.integers(0, 9).map(lease_id)
texts = st.text(max_size=40)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
amounts = st.floats(0, 1e9)
sizes = st.integers(0, 1 << 40)

task_results = st.builds(
    TaskResult,
    task=st.integers(0, 1_000_000),
    state=st.sampled_from(["succeeded", "failed"]),
    exit_code=st.none() | st.integers(-128, 255),
    value=st.binary(max_size=300),
    value_blob=st.none() | st.builds(ValueBlob, sha256=digests, size_bytes=sizes),
    outputs=st.lists(
        st.builds(Output, name=texts, sha256=digests, size_bytes=sizes), max_size=2
    ).map(tuple),
    stderr_tail=st.binary(max_size=100),
    limit=st.none() | st.sampled_from(["memory", "time", "output", "disk", "processes"]),
    error=st.none() | texts,
    cpu_s=amounts,
    duration_s=amounts,
)
checkpoints = st.dictionaries(
    st.integers(0, 1_000_000),
    st.builds(BlobRef, sha256=digests, size_bytes=st.integers(0, 1 << 26)),
    max_size=3,
).map(lambda left: tuple(left.items()))
many_results = st.lists(task_results, max_size=3).map(tuple)
specs = st.builds(
    lambda count, argv, cpu: array_spec(count, argv=argv, limits=Limits(cpu=cpu)),
    count=st.integers(1, 1_000_000),
    argv=st.lists(st.text(st.characters(exclude_characters="\x00", codec="utf-8")), max_size=3).map(
        tuple
    ),
    cpu=st.integers(1, 256),
)
held = st.builds(
    HeldLease,
    lease=lease_ids,
    job=job_ids,
    submitter=keys,
    state=st.sampled_from(["assigned", "preparing", "running", "frozen"]),
)
offers = st.builds(
    Offer,
    lender=keys,
    name=texts,
    phase=st.sampled_from(["unconsented", "lending", "yielding", "paused", "draining", "offline"]),
    reason=texts,
    slots_total=st.integers(0, 4096),
    slots_free=st.integers(0, 4096),
    cpu_free=st.floats(0, 4096),
    memory_free_bytes=sizes,
    vram_free_bytes=sizes,
    arch=st.just("x86_64"),
    os=st.just("linux"),
    runtimes=st.just(("process", "wasm")),
    classes=st.lists(texts, max_size=3).map(tuple),
    consent_digest=st.just("ab"),
    leases=st.lists(held, max_size=2).map(tuple),
)
dones = st.builds(
    Done,
    lease=lease_ids,
    job=job_ids,
    submitter=keys,
    results=many_results,
    checkpoints=checkpoints,
    final=st.booleans(),
    outcome=st.sampled_from(["finished", "refused", "evicted", "revoked", "invalid"]),
    field=texts,
    reason=texts,
)
terminals = st.builds(
    Terminal,
    job=texts,
    state=st.sampled_from(["succeeded", "failed", "cancelled", "rejected", "expired"]),
    field=st.none() | texts,
    reason=st.none() | texts,
    result=st.none() | task_results,
    lender=st.none() | keys,
    attempt=st.none() | st.integers(1, 100),
    finished_at=amounts,
)
chunks = st.builds(
    Chunk,
    job=job_ids,
    lease=lease_ids,
    attempt=st.integers(1, 100),
    lender=keys,
    results=many_results,
)
controls = st.builds(
    Control,
    kind=st.sampled_from(["open", "cancel", "hello"]),
    classes=st.lists(texts, max_size=3).map(tuple),
    leases=st.lists(lease_ids, max_size=3).map(tuple),
)
statuses = st.builds(
    JobStatus,
    job=job_ids,
    name=texts,
    state=st.sampled_from(["queued", "running", "succeeded"]),
    tasks_total=sizes,
    tasks_succeeded=sizes,
    tasks_failed=sizes,
    tasks_running=sizes,
    submitted_at=amounts,
    why=texts,
)
log_pieces = st.builds(
    TaskLogPiece,
    task=st.integers(0, 999_999),
    attempt=st.integers(1, 100),
    offset_bytes=sizes,
    content=st.binary(max_size=100),
    left_out_bytes=sizes,
)
messages: st.SearchStrategy[BaseModel] = st.one_of(
    log_pieces,
    specs,
    offers,
    dones,
    terminals,
    chunks,
    controls,
    st.builds(lambda spec, left: make_lease(spec, checkpoints=left), spec=specs, left=checkpoints),
    st.builds(DoneReply, verdict=st.sampled_from(["committed", "stale", "malformed"])),
    st.builds(Query, job=st.none() | job_ids),
    st.builds(QueryReply, jobs=st.lists(statuses, max_size=2).map(tuple), error=texts),
)


def refusal(parse: Callable[..., object], *args: object) -> ProtocolError | None:
    """What `parse` refuses with, if it does; any other error fails the test."""
    try:
        parse(*args)
    except ProtocolError as fault:
        return fault
    return None


content_types = st.sampled_from([JSON, MSGPACK])

leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts
leaves |= st.binary(max_size=20)
trees = st.recursive(
    leaves, lambda one: st.lists(one, max_size=4) | st.dictionaries(texts | st.binary(), one)
)


@given(messages, content_types)
def test_every_message_survives_the_wire(message: BaseModel, content_type: ContentType) -> None:
    assert decode(type(message), encode(message, content_type), content_type) == message


@given(st.sampled_from(MODELS), st.binary(max_size=400), content_types)
def test_arbitrary_bytes_are_refused_and_nothing_else(
    model: type[BaseModel], payload: bytes, content_type: ContentType
) -> None:
    fault = refusal(decode, model, payload, content_type)
    if fault is not None:
        assert fault.field
        assert fault.reason
        assert len(str(fault)) < 3000


@given(st.sampled_from(MODELS), trees)
def test_well_formed_nonsense_is_refused_and_nothing_else(
    model: type[BaseModel], tree: object
) -> None:
    fault = refusal(decode, model, msgpack.packb(tree))
    assert fault is None or fault.field


@settings(max_examples=200)
@given(
    messages,
    content_types,
    st.lists(st.tuples(st.integers(0, 4096), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_message_is_refused_or_is_another_valid_one(
    message: BaseModel, content_type: ContentType, damage: list[tuple[int, int]]
) -> None:
    payload = bytearray(encode(message, content_type))
    for position, byte in damage:
        payload[position % len(payload)] = byte
    try:
        survivor = decode(type(message), bytes(payload), content_type)
    except ProtocolError:
        return
    encode(survivor, content_type)


@given(st.text(max_size=120))
@example("res.a.b." + "9" * 5000)
@example(class_of())
def test_arbitrary_names_are_refused_and_nothing_else(text: str) -> None:
    for parse in (parse_job_subject, check_job_id, WorkClass.parse, check_public_key):
        fault = refusal(parse, text)
        assert fault is None or fault.reason
    parse_checkpoints_subject(text)
    fault = refusal(content_type_of, text)
    assert fault is None or fault.field == "payload"


@given(st.binary(max_size=80) | st.just(b"S") | st.from_regex(rb"\ASU[A-Z2-7]{56}\Z"))
def test_an_arbitrary_seed_is_refused_and_nothing_else(seed: bytes) -> None:
    with pytest.raises(ProtocolError):
        Signer(seed)


@given(st.binary(max_size=200), st.text(max_size=100))
def test_no_arbitrary_text_is_a_signature(payload: bytes, signature: str) -> None:
    with pytest.raises(ProtocolError):
        verify(ALICE.public_key, payload, signature)


@given(st.binary(max_size=200), st.integers(0, 511))
def test_a_signature_is_over_the_exact_bytes(payload: bytes, bit: int) -> None:
    signature = ALICE.sign(payload)
    verify(ALICE.public_key, payload, signature)
    changed = bytearray(payload + b"\x00")
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    with pytest.raises(ProtocolError, match="signature"):
        verify(ALICE.public_key, bytes(changed), signature)


@given(
    st.sampled_from(["any", "x86_64", "aarch64"]),
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True),
)
def test_distinct_requirements_make_distinct_classes(arch: str, pool: str) -> None:
    spec = make_spec(requires={"arch": arch, "pool": pool})
    assert WorkClass.parse(WorkClass.of(spec).token) == WorkClass.of(spec)
