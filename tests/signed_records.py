"""Records of jobs as lenders sign them, and a broker stores them; some lenders to sign with."""

from hashlib import sha256

from fake_broker import FakeBroker

from lender.client.specs import payload_of
from lender.protocol.job import JobSpec
from lender.protocol.result import Chunk, TaskResult, Terminal
from lender.protocol.signature import Signer, seed_from_entropy
from lender.protocol.signed_results import proof_of, result_digest, signed_bytes

DESK, ATTIC, MALLORY = (Signer(seed_from_entropy(bytes([n]) * 32)) for n in (41, 42, 49))
TRUSTED = (DESK.public_key, ATTIC.public_key)
LEASE = "l" * 22
TIME_S = 30


def value(task: int, said: bytes = b"true") -> TaskResult:
    return TaskResult(task=task, state="succeeded", exit_code=0, value=said)


def chunk(
    spec: JobSpec, *results: TaskResult, signer: Signer = DESK, payload: bytes | None = None
) -> Chunk:
    """What an honest broker stores of an honest lender's report."""
    digests = {one.task: result_digest(one) for one in results}
    digest = sha256(payload_of(spec) if payload is None else payload).digest()
    signature = signer.sign(signed_bytes(digest, signer.public_key, LEASE, 1, digests))
    return Chunk(
        job=spec.id,
        lease=LEASE,
        attempt=1,
        lender=signer.public_key,
        results=results,
        proof=proof_of(signature, results, results),
    )


def terminal(spec: JobSpec, of: Chunk | None = None, **changes: object) -> Terminal:
    """The last word on a job: with its result, where it has one task."""
    fields: dict[str, object] = {
        "job": spec.id,
        "state": "succeeded",
        "tasks_succeeded": spec.task_count,
        "tasks_total": spec.task_count,
        "finished_at": 1.0,
    }
    if of is not None:
        names = ("lender", "attempt", "lease", "proof")
        fields |= {"result": of.results[0], **{name: getattr(of, name) for name in names}}
    return Terminal.model_validate(fields | changes)


async def silent(_broker: FakeBroker, _spec: JobSpec) -> None:
    """The test itself says what is committed."""
