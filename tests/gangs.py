"""Gangs, and lenders that take them."""

from collections.abc import Mapping, Sequence

from broker_world import ALICE, BOB, L1, L2, World, class_of, job_spec

from lender.protocol.job import JobSpec
from lender.protocol.lease import Lease
from lender.protocol.signature import Signer

ANY = [class_of(ALICE), class_of(BOB)]


def gang(
    count: int = 4, job: str = "gang-0001", signer: Signer = ALICE, **fields: object
) -> JobSpec:
    return job_spec(signer, job, count=count, gang=True, **fields)


def take(world: World, where: Mapping[str, Sequence[Lease]], **fields: object) -> None:
    """Have each lender say that it holds these leases."""
    for lender, leases in where.items():
        world.offer(lender, classes=ANY, leases=leases, state="preparing", ready=True, **fields)


def started(world: World) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    for sent in world.controls:
        if sent.control.kind == "start":
            told.setdefault(sent.lender, []).extend(sent.control.leases)
    return told


def begun(count: int = 4, **fields: object) -> tuple[World, list[Lease]]:
    """A gang that runs on two lenders of two slots each."""
    world = World()
    world.offer(L1, classes=ANY)
    world.offer(L2, classes=ANY)
    world.submit(gang(count, **fields))
    leases = world.queued()
    take(world, {L1: leases[:2], L2: leases[2:]})
    assert sum(map(len, started(world).values())) == count
    return world, leases


def pass_time(world: World, seconds: float, where: Mapping[str, Sequence[Lease]]) -> None:
    """Let time pass while lenders are heard."""
    end = world.now + seconds
    while world.now < end:
        world.pass_time(min(1.0, end - world.now))
        take(world, where)


def why(world: World, job: str = "gang-0001", signer: Signer = ALICE) -> str:
    return world.query(job, signer).jobs[0].why


def tasks(leases: Sequence[Lease]) -> list[int]:
    return sorted(task for lease in leases for task in lease.tasks())
