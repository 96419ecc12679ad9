"""Which lender a job's next lease is meant for."""

from collections.abc import Collection, Iterator, Sequence
from math import inf
from typing import Final

from broker.core.copies.shared import owner_of
from broker.core.jobs.job import Job
from broker.core.matching.fleet import Fleet
from broker.core.matching.groups import Group
from broker.core.matching.lender import Lender
from broker.core.matching.shelf import Shelf
from broker.core.matching.stays import TIERS

LOOK = 8
"""Lenders that are compared for one lease."""

_REACH = 64
"""How far those may stand apart."""

_LONG_ENOUGH: Final = tuple(range(tier, TIERS) for tier in range(TIERS))
_TOO_SHORT: Final = tuple(range(tier - 1, -1, -1) for tier in range(TIERS))
_ALL: Final[tuple[tuple[int, ...], ...]] = tuple(
    (*_LONG_ENOUGH[tier], *_TOO_SHORT[tier]) for tier in range(TIERS)
)

Choice = tuple[Lender | None, float | None]
"""A lender; or none, and until when the job avoids the first one that has room, if any has.

That is for ever where only such have room as belong to owners that are `barred`.
"""


def choose(
    fleet: Fleet, group: Group, job: Job, now: float, barred: Collection[str] = ()
) -> Choice:
    """Return a lender with room for one more lease of the job, if there is any.

    First those that are expected to stay for twice as long as a task takes, the least of them
    first, so that who stays longer is left for longer tasks; then, rather than wait, the others.
    Among the next few the one with most of the preferred labels, and most of the inputs, is the
    best. One that refused the job lately is chosen only where all that may run it did, and one
    of a barred owner never.
    """
    tier = group.tier if job.expected_s is job.mean_s is None else group.tier_for(job)
    if not (job.avoided or job.inputs or group.need.prefers or barred):
        return first_with_room(fleet, group, tier), None
    avoided: list[Lender] = []
    out_of_question = False
    reach = None if job.avoided or barred else _REACH
    for tiers in (_LONG_ENOUGH[tier], _TOO_SHORT[tier]):
        compared: list[Lender] = []
        for lender in _with_room(fleet, group, tiers, reach):
            if barred and owner_of(lender.id) in barred:
                out_of_question = True
                continue
            if job.avoids(lender.id, now):
                avoided.append(lender)
                continue
            compared.append(lender)
            if len(compared) == LOOK:
                break
        if compared:
            return max(compared, key=lambda one: _merit(one, group, job)), None
    if not avoided:
        return None, inf if out_of_question else None
    if _all_avoided(fleet, group, job, now, barred):
        return avoided[0], None
    return None, min(job.avoided[one.id].until for one in avoided)


def first_with_room(fleet: Fleet, group: Group, tier: int) -> Lender | None:
    """Return the first lender with room for the group, beginning with those of `tier`."""
    for one in _ALL[tier]:
        shelf = fleet.shelves[one]
        if shelf.lenders and (at := _go_on(shelf, group, one)) is not None:
            return shelf.lenders[at]
    return None


def _go_on(shelf: Shelf, group: Group, tier: int) -> int | None:
    """Look for room where the group has not looked before; returns where on the shelf it is."""
    need, lenders = group.need, shelf.lenders
    seen = group.seen[tier] - shelf.first
    for at in range(max(0, seen), len(lenders)):
        lender = lenders[at]
        if lender is not None and lender.has_room_for(need):
            group.seen[tier] = shelf.first + at
            return at
    group.seen[tier] = shelf.end
    return None


def _with_room(
    fleet: Fleet, group: Group, tiers: Sequence[int], reach: int | None
) -> Iterator[Lender]:
    for tier in tiers:
        shelf = fleet.shelves[tier]
        start = _go_on(shelf, group, tier)
        if start is None:
            continue
        end = len(shelf.lenders)
        if reach is not None:
            end = min(end, start + reach)
        for lender in shelf.lenders[start:end]:
            if lender is not None and lender.has_room_for(group.need):
                yield lender


def _merit(lender: Lender, group: Group, job: Job) -> tuple[int, int]:
    return len(group.need.prefers & lender.labels), lender.holds_bytes(job.inputs)


def _all_avoided(fleet: Fleet, group: Group, job: Job, now: float, barred: Collection[str]) -> bool:
    return all(
        job.avoids(lender.id, now)
        for lender in fleet.of_class(group.need.class_token)
        if lender.may_run(group.need) and owner_of(lender.id) not in barred
    )
