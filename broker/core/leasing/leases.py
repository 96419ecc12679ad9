"""Outstanding leases: in WORK waiting for whoever comes, or held by a lender."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from math import inf

from broker.core.containers.ranges import RangeSet
from broker.core.containers.recent import Recent
from broker.core.containers.tally import Tally
from broker.core.jobs.job import JobKey, Step
from broker.core.matching.need import Need
from lender.protocol.classes import own_queue
from lender.protocol.job import TaskRange

UNLISTED_GRACE_S = 1.0
"""For a final report that is overtaken by the offer that no longer lists its lease."""

ANSWER_S = 10.0
"""A last report may take so long to be stored, also while a node is lost, and answered."""

FINISHED_MAX = 65_536
"""Ended leases that are remembered to answer a report whose first answer was lost."""


@dataclass(slots=True, eq=False)
class Lease:
    """Tasks of one job, assigned.

    `claim` is the lender in whose room the lease is counted (see Fleet): its holder, or a guess
    until there is one; None while no lender has room.
    """

    id: str
    job: JobKey
    need: Need
    step: Step
    ranges: tuple[TaskRange, ...]
    """All its tasks, in their order."""
    task_count: int
    """How many those are."""
    open: RangeSet
    """The tasks of it that have no result yet."""
    fed_at: float
    claim: str | None = None
    near: str | None = None
    """The lender that holds its inputs, in whose own queue it waits; None for the class's."""
    not_for: tuple[str, ...] = ()
    """Marks in its message of those that are not to take it."""
    holder: str | None = None
    sequence: int | None = None
    """Of its message in WORK, once known."""
    held_at: float = 0.0
    """When it was heard first who holds it."""
    working_since: float | None = None
    """When the task in work had begun, as far as is known; None while it is being prepared."""
    prepared_s: float = 0.0
    """How long that took."""
    is_left: bool = False
    """Nobody was told of it: it is left to those whose pulls wait."""
    queue: str = field(init=False)
    """The queue that it waits in."""

    def __post_init__(self) -> None:
        self.queue = self.need.class_token if self.near is None else own_queue(self.near)

    @property
    def class_token(self) -> str:
        """The class that it belongs to."""
        return self.need.class_token

    @property
    def is_for_some(self) -> bool:
        """Whether it is meant for one lender alone, or closed to some."""
        return self.near is not None or bool(self.not_for)

    def works(self, now: float) -> None:
        """Note that it is known to be in work, which ends its preparation."""
        if self.working_since is None:
            self.working_since = now
            self.prepared_s = now - self.held_at

    def covers(self, task: int) -> bool:
        """Tell whether it is one of its tasks."""
        at = bisect_right(self.ranges, (task, inf)) - 1
        return at >= 0 and task < sum(self.ranges[at])


class Leases:
    """All outstanding leases, and who answered for those that ended."""

    def __init__(self) -> None:
        self._live: dict[str, Lease] = {}
        self._held: dict[str, set[str]] = {}
        self._finished: Recent[str, tuple[str | None, float]] = Recent(FINISHED_MAX)
        """Who answered for it, and when."""
        self._unclaimed: OrderedDict[Need, dict[str, None]] = OrderedDict()
        self.waiting = Tally()
        """Leases without a holder, by queue."""
        self.left = Tally()
        """Those of them that are left to whose pulls wait."""

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, lease_id: str) -> bool:
        return lease_id in self._live

    def __getitem__(self, lease_id: str) -> Lease:
        return self._live[lease_id]

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._live.values())

    def get(self, lease_id: str) -> Lease | None:
        """Return an outstanding lease."""
        return self._live.get(lease_id)

    def shift(self, by_s: float) -> None:
        """Move what was noted by the clock, after the clock itself has been moved."""
        for lease in self._live.values():
            lease.held_at += by_s
            if lease.working_since is not None:
                lease.working_since += by_s

    def add(self, lease: Lease) -> None:
        """Take up a lease that nobody holds yet."""
        self._live[lease.id] = lease
        if lease.claim is None:
            self._unclaimed.setdefault(lease.need, {})[lease.id] = None
        self.waiting.add(lease.queue)

    def claim(self, lease: Lease, lender: str | None) -> None:
        """Note in whose room the lease is counted."""
        lease.claim = lender
        if lender is None:
            self._unclaimed.setdefault(lease.need, {})[lease.id] = None
        else:
            self._drop_unclaimed(lease)

    def unclaimed(self, need: Need) -> Lease | None:
        """Return a lease for such a need that is counted nowhere."""
        for lease_id in self._unclaimed.get(need, ()):
            return self._live[lease_id]
        return None

    def unclaimed_needs(self, most: int) -> list[Need]:
        """Return needs of the leases that are counted nowhere; others next time, where more are."""
        needs = list(islice(self._unclaimed, most))
        for need in needs:
            self._unclaimed.move_to_end(need)
        return needs

    def hold(self, lease: Lease, lender: str) -> None:
        """Note who took the lease."""
        lease.holder = lender
        self._held.setdefault(lender, set()).add(lease.id)
        self._wait_no_more(lease)

    def leave(self, lease: Lease, *, left: bool) -> None:
        """Note whether a lease that waits is left to those whose pulls wait."""
        if lease.is_left != left:
            lease.is_left = left
            (self.left.add if left else self.left.drop)(lease.queue)

    def holds_any(self, lender: str) -> bool:
        """Tell whether `lender` holds a lease."""
        return lender in self._held

    def held_by(self, lender: str) -> list[Lease]:
        """Return what `lender` holds, in order of handing out."""
        held = [self._live[lease_id] for lease_id in self._held.get(lender, ())]
        return sorted(held, key=lambda lease: (lease.fed_at, lease.id))

    def drop(self, lease: Lease) -> None:
        """Forget a lease: lost, cancelled or never fed. Reports on it are stale from now on."""
        del self._live[lease.id]
        self._drop_unclaimed(lease)
        if lease.holder is None:
            self._wait_no_more(lease)
            return
        held = self._held[lease.holder]
        held.discard(lease.id)
        if not held:
            del self._held[lease.holder]

    def finish(self, now: float, lease: Lease) -> None:
        """End a lease that its holder has answered for."""
        self.drop(lease)
        self.remember(now, lease.id, lease.holder)

    def remember(self, now: float, lease_id: str, holder: str | None) -> None:
        """Note an ended lease; None as holder where a replay can't know it."""
        self._finished[lease_id] = (holder, now)

    def was_finished(self, lease_id: str) -> bool:
        """Tell whether the lease ended with its holder's last word."""
        return lease_id in self._finished

    def was_finished_by(self, lease_id: str, lender: str) -> bool:
        """Tell whether `lender`, as far as is known, gave the last word on the lease."""
        return lease_id in self._finished and self._finished[lease_id][0] in (None, lender)

    def awaits_answer(self, now: float, lease_id: str, lender: str) -> bool:
        """Tell whether `lender` gave the last word on a lease, and may not know yet that it is."""
        finished = self._finished.get(lease_id)
        return finished is not None and finished[0] == lender and now < finished[1] + ANSWER_S

    def _wait_no_more(self, lease: Lease) -> None:
        self.waiting.drop(lease.queue)
        self.leave(lease, left=False)

    def _drop_unclaimed(self, lease: Lease) -> None:
        unclaimed = self._unclaimed.get(lease.need, {})
        unclaimed.pop(lease.id, None)
        if not unclaimed:
            self._unclaimed.pop(lease.need, None)
