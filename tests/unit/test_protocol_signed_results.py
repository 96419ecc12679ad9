"""A signature is over exactly what was reported, for exactly that lease."""

import json
from hashlib import sha256
from typing import Any

import msgpack
import pytest
from core_world import ALICE, BOB

from lender.protocol.codec import JSON, MSGPACK, decode, encode
from lender.protocol.errors import ProtocolError
from lender.protocol.result import Chunk, ReportProof, TaskResult
from lender.protocol.result_run import ResultRun, decode_results
from lender.protocol.signed_results import (
    check_results,
    proof_of,
    result_digest,
    result_digests,
    signed_bytes,
)

SPEC = sha256(b"spec").digest()
LEASE = "l" * 22
OUTPUT = {"name": "a", "sha256": "cd" * 32, "size_bytes": 3}


def result(task: int = 0, **changes: Any) -> TaskResult:  # noqa: ANN401 - fields of a model
    fields = {"task": task, "state": "succeeded", "exit_code": 0, "value": b"v"}
    return TaskResult.model_validate(fields | changes)


def signature(*results: TaskResult) -> str:
    digests = {one.task: result_digest(one) for one in results}
    return ALICE.sign(signed_bytes(SPEC, ALICE.public_key, LEASE, 1, digests))


def test_the_bytes_are_those_of_the_document() -> None:
    one = result(3, stderr_tail=b"e", error="no", limit="time", outputs=(OUTPUT,))
    fields = [3, "succeeded", 0, sha256(b"v").digest(), b"e", "time", "no", [["a", "cd" * 32, 3]]]
    digest = sha256(msgpack.packb(fields)).digest()
    assert result_digest(one) == digest
    rest = SPEC + sha256((3).to_bytes(8, "big") + digest).digest()
    head = f"lender.results/1\n{BOB.public_key}.{LEASE}.7\n".encode()
    assert signed_bytes(SPEC, BOB.public_key, LEASE, 7, {3: digest}) == head + rest


@pytest.mark.parametrize(
    "change",
    [
        {"task": 1},
        {"state": "failed"},
        {"exit_code": 1},
        {"exit_code": None},
        {"value": b"w"},
        {"value_blob": {"sha256": "ab" * 32, "size_bytes": 1}},
        {"outputs": (OUTPUT,)},
        {"stderr_tail": b"x"},
        {"limit": "memory"},
        {"error": "x"},
    ],
    ids=str,
)
def test_a_digest_stands_for_all_that_a_result_says(change: dict[str, Any]) -> None:
    assert result_digest(result(**change)) != result_digest(result())


def test_times_and_the_way_that_a_value_travels_do_not_count() -> None:
    assert result_digest(result(cpu_s=1.5, duration_s=2.5)) == result_digest(result())
    blob = {"sha256": sha256(b"v").hexdigest(), "size_bytes": 1}
    assert result_digest(result(value=b"", value_blob=blob)) == result_digest(result())


def chunk_of(*results: TaskResult, proof: ReportProof | None = None) -> Chunk:
    about: dict[str, Any] = {"job": "job-00001", "lease": LEASE, "attempt": 1}
    return Chunk(**about, lender=ALICE.public_key, results=results, proof=proof)


@pytest.mark.parametrize("content_type", [JSON, MSGPACK])
def test_a_record_is_verified_as_it_was_read(content_type: Any) -> None:  # noqa: ANN401 - a literal
    results = (result(0, error="ä\u2028\x00"), result(5, value=bytes(range(256))))
    proof = proof_of(signature(*results), results, results)
    assert proof == ReportProof(signature=signature(*results))
    chunk = chunk_of(*results, proof=proof)
    read = decode(Chunk, encode(chunk, content_type), content_type)
    assert read.proof is not None
    signed = check_results(SPEC, read.lender, read.lease, read.attempt, read.results, read.proof)
    assert signed == {0, 5}


def test_what_is_stored_elsewhere_or_otherwise_is_named() -> None:
    reported = tuple(map(result, range(4)))
    verdict = result(2, state="failed", error="answers differ")
    stored = (reported[0], verdict)
    proof = proof_of(signature(*reported), reported, stored)
    assert proof is not None
    assert [task for task, _ in proof.others] == [1, 2, 3]
    assert check_results(SPEC, ALICE.public_key, LEASE, 1, stored, proof) == {0}


def test_nothing_is_proven_without_a_signature_or_of_what_nobody_reported() -> None:
    assert proof_of(None, [result()], [result()]) is None
    one = result()
    assert proof_of(signature(one), [one], [one, result(1)]) is None


@pytest.mark.parametrize(
    ("lender", "lease", "attempt", "spec"),
    [
        (BOB.public_key, LEASE, 1, SPEC),
        (ALICE.public_key, "m" * 22, 1, SPEC),
        (ALICE.public_key, LEASE, 2, SPEC),
        (ALICE.public_key, LEASE, 1, sha256(b"other").digest()),
        ("U" + "A" * 55, LEASE, 1, SPEC),
    ],
)
def test_it_holds_for_its_own_lease_alone(
    lender: str, lease: str, attempt: int, spec: bytes
) -> None:
    proof = ReportProof(signature=signature(result()))
    assert check_results(SPEC, ALICE.public_key, LEASE, 1, [result()], proof) == {0}
    with pytest.raises(ProtocolError, match="has not signed this") as caught:
        check_results(spec, lender, lease, attempt, [result()], proof)
    assert caught.value.field == "proof"


def test_a_task_has_one_result_and_the_other_is_not_slipped_in() -> None:
    proof = ReportProof(signature=signature(result()))
    for results in ([result(value=b"false"), result()], [result(), result()]):
        with pytest.raises(ProtocolError, match="two results"):
            check_results(SPEC, ALICE.public_key, LEASE, 1, results, proof)
    doubled = ReportProof(signature=proof.signature, others=((1, "ab" * 32),) * 2)
    with pytest.raises(ProtocolError):
        check_results(SPEC, ALICE.public_key, LEASE, 1, [result()], doubled)


@pytest.mark.parametrize("beyond", [{"task": 1 << 64}, {"exit_code": 1 << 70}])
def test_numbers_that_nobody_can_have_signed_are_a_fault(beyond: dict[str, Any]) -> None:
    proof = ReportProof(signature=signature(result()))
    with pytest.raises(ProtocolError, match="has not signed"):
        check_results(SPEC, ALICE.public_key, LEASE, 1, [result(**beyond)], proof)


def test_a_record_says_no_more_than_before_where_there_is_no_proof() -> None:
    chunk = chunk_of(result())
    assert "proof" not in json.loads(encode(chunk, JSON))
    proven = chunk.model_copy(update={"proof": ReportProof(signature="x")})
    assert json.loads(encode(proven, JSON))["proof"] == {"signature": "x"}


def run_of(*results: TaskResult, signed: str) -> Chunk:
    """A chunk that is read as one run."""
    chunk = chunk_of(*results, proof=ReportProof(signature=signed))
    read = decode_results(Chunk, encode(chunk))
    assert isinstance(read.results, ResultRun)
    return read


def test_a_run_is_signed_as_its_results_are() -> None:
    results = [result(task, value=b"ab"[: task % 3]) for task in range(120, 140)]
    run = run_of(*results, signed=signature(*results)).results
    assert result_digests(run) == result_digests(results) == [result_digest(one) for one in results]
    proof = ReportProof(signature=signature(*results))
    tasks = set(range(120, 140))
    assert check_results(SPEC, ALICE.public_key, LEASE, 1, run, proof) == tasks
    assert proof_of(proof.signature, run, run) == proof


@pytest.mark.parametrize("lie", [{"value": b"false"}, {"value": b""}])
def test_one_lie_in_a_run_spoils_all_of_it(lie: dict[str, Any]) -> None:
    results = [result(task) for task in range(20)]
    signed = signature(*results)
    results[7] = result(7, **lie)
    run = run_of(*results, signed=signed)
    assert run.proof is not None
    with pytest.raises(ProtocolError, match="has not signed"):
        check_results(SPEC, ALICE.public_key, LEASE, 1, run.results, run.proof)


def test_of_a_run_some_may_be_stored_elsewhere() -> None:
    reported = [result(task) for task in range(20)]
    proof = proof_of(signature(*reported), reported, reported[:18])
    assert proof is not None
    run = run_of(*reported[:18], signed=proof.signature).results
    assert check_results(SPEC, ALICE.public_key, LEASE, 1, run, proof) == set(range(18))
    otherwise = proof.model_copy(update={"others": ((3, "ab" * 32), *proof.others)})
    with pytest.raises(ProtocolError, match="has not signed"):
        check_results(SPEC, ALICE.public_key, LEASE, 1, run, otherwise)
