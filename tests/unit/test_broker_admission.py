import json
from typing import Any

import msgpack
import pytest
from broker_world import ALICE, BOB, START, World, job_spec

from broker.core.events import SubmittersChanged
from broker.core.intake.admission import Admission, Rejection, admit
from lender.protocol import bounds
from lender.protocol.codec import JSON, MSGPACK, encode
from lender.protocol.signature import Signer, seed_from_entropy

STRANGER = Signer(seed_from_entropy(bytes([9] * 32)))
KNOWN = frozenset((ALICE.public_key, BOB.public_key))
SUBJECT = f"submit.{ALICE.public_key}.job-0001"


def fields(**changes: object) -> dict[str, Any]:
    return {**job_spec().model_dump(exclude_none=True), **changes}


def admitted(
    payload: bytes,
    *,
    subject: str = SUBJECT,
    signer: Signer | None = ALICE,
    content_type: str | None = MSGPACK,
    now: float | None = START,
) -> Admission | Rejection:
    headers = {}
    if content_type is not None:
        headers["Content-Type"] = content_type
    if signer is not None:
        headers["Lender-Signature"] = signer.sign(payload)
    return admit(subject, headers, payload, KNOWN, now)


def test_a_good_submission_is_admitted_as_signed() -> None:
    payload = encode(job_spec())
    admission = admitted(payload)
    assert isinstance(admission, Admission)
    assert (admission.payload, admission.content_type) == (payload, MSGPACK)
    assert admission.spec == job_spec()


def test_json_is_as_good_as_messagepack() -> None:
    admission = admitted(encode(job_spec(), JSON), content_type="application/json; charset=utf-8")
    assert isinstance(admission, Admission)
    assert admission.content_type == JSON


def test_no_content_type_means_messagepack() -> None:
    assert isinstance(admitted(encode(job_spec()), content_type=None), Admission)


@pytest.mark.parametrize(
    ("payload", "options", "field"),
    [
        (b"x", {"content_type": "text/plain"}, "payload"),
        (b"\xc1", {}, "payload"),
        (b"", {}, "payload"),
        (b"{", {"content_type": JSON}, "payload"),
        (b"\x00" * (bounds.SPEC_BYTES_MAX + 1), {}, "payload"),
        (msgpack.packb(fields(colour="red")), {}, "colour"),
        (msgpack.packb(fields(retries="3")), {}, "retries"),
        (msgpack.packb(fields(array={"count": 0})), {}, "array.count"),
        (msgpack.packb(fields(array={"count": 10_000_001})), {}, "array.count"),
        (msgpack.packb(fields(id="job-0002")), {}, "id"),
        (msgpack.packb(fields(submitter=BOB.public_key)), {}, "submitter"),
        (encode(job_spec()), {"signer": None}, "signature"),
        (encode(job_spec()), {"signer": BOB}, "signature"),
        (encode(job_spec()), {"subject": f"submit.{ALICE.public_key}.short"}, "subject"),
        (
            encode(job_spec(STRANGER)),
            {"subject": f"submit.{STRANGER.public_key}.job-0001", "signer": STRANGER},
            "submitter",
        ),
        (encode(job_spec()), {"now": START + 86_400.0}, "not_after"),
    ],
)
def test_a_bad_submission_names_the_field(
    payload: bytes, options: dict[str, Any], field: str
) -> None:
    rejection = admitted(payload, **options)
    assert isinstance(rejection, Rejection)
    assert rejection.field == field
    assert rejection.reason


def test_a_pool_that_is_not_served_is_named_with_those_that_are() -> None:
    headers = {"Lender-Signature": ALICE.sign(encode(job_spec()))}
    for served in (None, frozenset(("default", "lab"))):
        admission = admit(SUBJECT, headers, encode(job_spec()), KNOWN, START, served)
        assert isinstance(admission, Admission)
    rejection = admit(SUBJECT, headers, encode(job_spec()), KNOWN, START, frozenset(("lab", "b")))
    assert isinstance(rejection, Rejection)
    assert rejection.field == "requires.pool"
    assert rejection.reason.startswith("default is not served here, only b, lab")


def test_a_replayed_submission_may_be_late() -> None:
    assert isinstance(admitted(encode(job_spec()), now=None), Admission)


def test_a_rejection_comes_back_in_the_submissions_content_type() -> None:
    world = World()
    world.submit_raw(SUBJECT, {"Content-Type": JSON}, b'{"v": 1}')
    headers, payload = world.results[f"res.{ALICE.public_key}.job-0001"]
    assert headers["Content-Type"] == JSON
    told = json.loads(payload)
    assert told["state"] == "rejected"
    assert told["field"] == "id"
    assert told["reason"]


def test_a_rejection_is_committed_under_whatever_the_subject_calls_the_job() -> None:
    world = World()
    world.submit_raw("submit.nobody." + "x" * 400, {}, b"\xc1")
    headers, payload = world.results["res.nobody." + "x" * 400]
    assert headers["Content-Type"] == MSGPACK
    assert msgpack.unpackb(payload)["state"] == "rejected"
    world.submit_raw(f"submit.{ALICE.public_key}.short", {}, b"\xc1")
    assert world.query().jobs == ()


def test_a_rejected_job_is_told_to_whoever_listens_and_asks() -> None:
    world = World()
    world.submit_raw(SUBJECT, {}, b"\xc1")
    (event,) = world.events
    assert event.subject == f"event.{ALICE.public_key}.job-0001"
    assert event.headers["Lender-Subject"] == f"res.{ALICE.public_key}.job-0001"
    (status,) = world.query("job-0001").jobs
    assert status.state == "rejected"
    assert status.why.startswith("payload: ")


def test_submitters_come_and_go_while_the_broker_runs() -> None:

    world = World()
    world.do(SubmittersChanged(frozenset((ALICE.public_key,))))
    world.submit(job_spec(BOB, "job-0001"), BOB)
    terminal = world.terminal("job-0001", BOB)
    assert terminal is not None
    assert terminal.field == "submitter"
    world.do(SubmittersChanged(frozenset((ALICE.public_key, BOB.public_key))))
    world.submit(job_spec(BOB, "job-0002"), BOB)
    assert world.terminal("job-0002", BOB) is None


def test_a_job_from_the_future_would_outlive_the_ledger_and_is_rejected() -> None:
    world = World()
    world.submit(job_spec(created_at=START + 7200, not_after=START + 7300))
    terminal = world.terminal()
    assert (terminal.state, terminal.field) == ("rejected", "created_at")
