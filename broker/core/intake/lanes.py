"""What waits to be taken up, in a lane for each who sent it: a long one delays no other."""

from collections import deque
from typing import Generic, TypeVar

from broker.core.containers.priority_map import PriorityMap

T = TypeVar("T")

_SLACK = 64


class Lanes(Generic[T]):
    """Bounded queues that are served in turn, by what each has cost.

    The lane that has cost the least comes next. Who comes to an empty lane has saved nothing up:
    it counts as having cost as much as the one that was served last (start-time fair queueing;
    Goyal, Vin and Cheng, SIGCOMM 1996).
    """

    def __init__(self) -> None:
        self._lanes: dict[str, deque[tuple[T, int]]] = {}
        self._bytes: dict[str, int] = {}
        self.bytes = 0
        """Of all that waits."""
        self._costs: dict[str, float] = {}
        self._turns: PriorityMap[str] = PriorityMap()
        self._floor = 0.0
        self._served = ""
        self._forget_at = _SLACK

    def __len__(self) -> int:
        """Number of lanes in which something waits."""
        return len(self._lanes)

    def waiting(self, who: str) -> tuple[int, int]:
        """Return how many wait in a lane, and their bytes."""
        lane = self._lanes.get(who)
        return (len(lane), self._bytes[who]) if lane is not None else (0, 0)

    def put(self, who: str, what: T, size_bytes: int) -> None:
        """Let something wait at the end of a lane."""
        lane = self._lanes.get(who)
        if lane is None:
            lane = self._lanes[who] = deque()
            self._bytes[who] = 0
            self._costs[who] = max(self._floor, self._costs.get(who, 0.0))
            self._turns.set(who, self._costs[who])
        lane.append((what, size_bytes))
        self._count_bytes(who, size_bytes)

    def newest(self, who: str) -> T | None:
        """Return what came last into a lane; None where nothing waits."""
        lane = self._lanes.get(who)
        return lane[-1][0] if lane is not None else None

    def replace_newest(self, who: str, what: T, size_bytes: int) -> None:
        """Let something wait in the place of what came last into its lane."""
        lane = self._lanes[who]
        _, before_bytes = lane.pop()
        lane.append((what, size_bytes))
        self._count_bytes(who, size_bytes - before_bytes)

    def take(self) -> T | None:
        """Return what comes next; None when nothing waits."""
        head = self._turns.first()
        if head is None:
            return None
        self._floor, who = head
        self._served = who
        lane = self._lanes[who]
        what, size_bytes = lane.popleft()
        self._count_bytes(who, -size_bytes)
        if not lane:
            del self._lanes[who], self._bytes[who]
            self._turns.drop(who)
        return what

    def charge(self, cost_s: float) -> None:
        """Note what it cost to take up the last one."""
        if not self._lanes:
            self._costs, self._floor = {}, 0.0  # nobody waits who could go first
            return
        who = self._served
        self._costs[who] += cost_s
        if who in self._lanes:
            self._turns.set(who, self._costs[who])
        if len(self._costs) > self._forget_at:
            self._costs = {
                one: cost
                for one, cost in self._costs.items()
                if one in self._lanes or cost > self._floor
            }
            self._forget_at = 2 * len(self._costs) + _SLACK

    def _count_bytes(self, who: str, size_bytes: int) -> None:
        self._bytes[who] += size_bytes
        self.bytes += size_bytes
