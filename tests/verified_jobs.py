"""Jobs whose answers have to agree, and lenders that answer them."""

from collections.abc import Sequence

from broker_world import (
    LENDERS,
    World,
    bad,
    check_places,
    job_spec,
    ok,
)

from lender.protocol.job import Verify
from lender.protocol.lease import Lease
from lender.protocol.result import Terminal

L1, L2, L3, L4, L5, L6 = LENDERS


def verified(
    world: World | None = None,
    replicas: int = 2,
    quorum: int = 2,
    *,
    lenders: Sequence[str] = LENDERS,
    **fields: object,
) -> World:
    world = world or World()
    verify = Verify(replicas=replicas, quorum=quorum)
    world.submit(job_spec(verify=verify, **fields))
    for lender in lenders:
        world.offer(lender, slots=1)
    return world


def taken(world: World, lender: str) -> Lease:
    """Have a lender come and take the oldest lease that it may have."""
    world.offer(lender, slots=1)
    held = {one.id for one in world.broker.state.leases if one.holder is not None}
    lease = next(
        one for one in world.queued() if one.lease not in held and not one.is_barred(lender)
    )
    world.offer(lender, slots=1, leases=[lease])
    assert lease.lease not in world.cancelled(lender)
    check_places(world)
    return lease


def answer(
    world: World, lender: str, value: bytes = b"", lease: Lease | None = None, **result: object
) -> str | None:
    """Have a lender take and answer a lease whole; returns the verdict."""
    lease = lease or taken(world, lender)
    state = result.pop("state", "succeeded")
    results = [
        bad(task, value=value, **result) if state == "failed" else ok(task, value=value)
        for task in lease.tasks()
    ]
    verdict = world.verdict(world.report(lease, results, lender))
    world.ack(lease)
    world.offer(lender, slots=1)
    check_places(world)
    return verdict


def ended(world: World) -> Terminal:
    terminal = world.terminal()
    assert terminal is not None
    return terminal


def why(world: World) -> str:
    return world.query("job-0001").jobs[0].why


def taken_beside(world: World, lender: str, held: Lease) -> Lease:
    return next(
        one for one in world.queued() if one.lease != held.lease and not one.is_barred(lender)
    )


def answer_one(world: World, lender: str, lease: Lease) -> None:
    world.report(lease, [ok(task, value=b"4") for task in lease.tasks()], lender)
    world.ack(lease)
