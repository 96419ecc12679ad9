"""Reports as lenders sign them, and what of a broker's records they are found to have signed."""

from collections.abc import Iterable
from hashlib import sha256

from broker_world import World

from lender.protocol.codec import encode
from lender.protocol.job import JobSpec
from lender.protocol.lease import Lease
from lender.protocol.result import Chunk, TaskResult, Terminal
from lender.protocol.signature import Signer, seed_from_entropy
from lender.protocol.signed_results import check_results, result_digest, signed_bytes

SIGNERS = [Signer(seed_from_entropy(bytes([n] * 32))) for n in range(10, 14)]
"""Of `LENDERS`."""
ONE, TWO = SIGNERS[:2]


def signature(signer: Signer, lease: Lease, results: Iterable[TaskResult]) -> str:
    digests = {one.task: result_digest(one) for one in results}
    digest = sha256(lease.spec).digest()
    return signer.sign(signed_bytes(digest, signer.public_key, lease.lease, lease.attempt, digests))


def report(
    world: World,
    lease: Lease,
    results: Iterable[TaskResult],
    signer: Signer = ONE,
    **fields: object,
) -> None:
    said = tuple(results)
    signed = signature(signer, lease, said)
    reply = world.report(lease, said, signer.public_key, signature=signed, **fields)
    assert world.verdict(reply) == "committed"
    world.ack(lease)


def proven(spec: JobSpec, record: Chunk | Terminal) -> set[int]:
    """The tasks in a record that its lender has signed."""
    results = record.results if isinstance(record, Chunk) else (record.result,)
    if record.proof is None:
        return set()
    digest = sha256(encode(spec)).digest()
    assert record.lender is not None
    assert record.lease is not None
    assert record.attempt is not None
    there = [one for one in results if one is not None]
    return set(
        check_results(digest, record.lender, record.lease, record.attempt, there, record.proof)
    )


def begun(world: World, spec: JobSpec, lender: str = ONE.public_key) -> Lease:
    world.submit(spec)
    world.offer(lender)
    lease = world.pull()
    world.offer(lender, leases=[lease])
    return lease
