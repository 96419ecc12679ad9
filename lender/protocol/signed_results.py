"""What a lender signs of its results, so that whoever reads them can tell whose they are.

One signature is for all results of a report: Ed25519, by the lender's key, over `signed_bytes`. A
reader has most often all of them in one record. Of those that the broker did not store there, the
record names the digests (`ReportProof.others`). docs/protocol.md has the bytes for other languages.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256

import msgpack

from lender.protocol.errors import ProtocolError
from lender.protocol.result import ReportProof, TaskResult
from lender.protocol.result_run import ResultRun, tasks_of
from lender.protocol.signature import verify

_DOMAIN = b"lender.results/1\n"
_OF_NOTHING = sha256(b"").digest()
_pack = msgpack.Packer().pack
"""To make a packer costs more than what it packs."""


def result_digest(result: TaskResult) -> bytes:
    """Return 32 bytes that stand for all that a result says, but for the times that it took.

    A value counts the same inline and as a blob.
    """
    blob, outputs = result.value_blob, result.outputs
    fields = (
        result.task,
        result.state,
        result.exit_code,
        _value_digest(result.value) if blob is None else bytes.fromhex(blob.sha256),
        result.stderr_tail,
        result.limit,
        result.error,
        [(one.name, one.sha256, one.size_bytes) for one in outputs] if outputs else (),
    )
    return sha256(_pack(fields)).digest()


def result_digests(results: Sequence[TaskResult]) -> list[bytes]:
    """Return the digest of each, in their order."""
    if not isinstance(results, ResultRun):
        return [result_digest(one) for one in results]
    # Those with the same value differ in the task alone, which is the first of the fields.
    head = _pack((None,) * 8)[:1]
    others = {
        value: _pack(("succeeded", 0, _value_digest(value), b"", None, None, ()))[1:]
        for value in set(results.values)
    }
    tasks = map(_pack, results.tasks)
    return [
        sha256(head + task + others[value]).digest()
        for task, value in zip(tasks, results.values, strict=True)
    ]


def _value_digest(value: bytes) -> bytes:
    return sha256(value).digest() if value else _OF_NOTHING


def signed_bytes(
    spec_sha256: bytes, lender: str, lease: str, attempt: int, results: Mapping[int, bytes]
) -> bytes:
    """Return what a lender signs of a report.

    Args:
        spec_sha256: digest of the exact bytes that the submitter signed: 32 bytes.
        lender: its public key.
        lease: the lease that it answers.
        attempt: the number that stands in the lease.
        results: digests of all results of the report, by task.
    """
    in_order = [task.to_bytes(8, "big") + results[task] for task in sorted(results)]
    head = f"{lender}.{lease}.{attempt}\n".encode()
    return _DOMAIN + head + spec_sha256 + sha256(b"".join(in_order)).digest()


def proof_of(
    signature: str | None, reported: Sequence[TaskResult], stored: Sequence[TaskResult]
) -> ReportProof | None:
    """Return what goes along with `stored` results of a report; None where nothing proves them.

    What was stored in place of a reported result (the broker's own verdict) is none of these.
    """
    if signature is None:
        return None
    if stored is reported:
        return ReportProof(signature=signature)
    left = {one.task: one for one in reported}
    for one in stored:
        found = left.get(one.task)
        if found is None:
            return None  # nobody has reported it
        if found is one:
            del left[one.task]
    others = tuple((task, result_digest(one).hex()) for task, one in sorted(left.items()))
    return ReportProof(signature=signature, others=others)


def check_results(
    spec_sha256: bytes,
    lender: str,
    lease: str,
    attempt: int,
    results: Sequence[TaskResult],
    proof: ReportProof,
) -> frozenset[int]:
    """Return the tasks whose results in `results` the lender has signed.

    Raises:
        ProtocolError: the signature is not the lender's, or not over these.
    """
    others = {task: bytes.fromhex(digest) for task, digest in proof.others}
    signed = [one for one in results if one.task not in others] if others else results
    tasks = tasks_of(signed)
    try:
        all_of_them = others | dict(zip(tasks, result_digests(signed), strict=True))
        message = signed_bytes(spec_sha256, lender, lease, attempt, all_of_them)
        verify(lender, message, proof.signature)
    except (ProtocolError, OverflowError) as error:
        reason = f"lender {lender} has not signed this: {error}"
        raise ProtocolError("proof", reason) from error
    if len(all_of_them) != len(proof.others) + len(signed):
        raise ProtocolError("proof", "a task has two results, and one of them was not signed")
    return frozenset(tasks)
