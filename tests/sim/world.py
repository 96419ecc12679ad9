"""Time, chance and who lives: one heap of calls for everything that ever happens."""

import hashlib
import random
from collections import Counter, deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

EPOCH = 1_000_000.0
"""What every wall clock shows at the beginning, in seconds since the epoch."""

STEPS_MAX = 2_000_000
_TAIL = 60

Call = Callable[..., None]


class ViolationError(Exception):
    """A promise was broken: `checker` names which."""

    def __init__(self, checker: str, text: str) -> None:
        super().__init__(f"{checker}: {text}")
        self.checker = checker


class Actor:
    """A process: what is to happen to a dead one never does, to a suspended one later."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.life = 1
        self.alive = True
        self.suspended = False
        self._deferred: list[tuple[Call, tuple[Any, ...]]] = []

    def after(self, delay_s: float, call: Call, *args: object) -> None:
        """Have something happen to this life of the actor."""
        self.world.at(self.world.now + delay_s, self, call, *args)

    def die(self) -> None:
        """End this life: nothing of it is left."""
        self.life += 1
        self.alive = self.suspended = False
        self._deferred.clear()

    def suspend(self) -> None:
        """Stand still."""
        self.suspended = True

    def resume(self) -> None:
        """Go on; what came meanwhile comes now, in its order."""
        if self.suspended:
            self.suspended = False
            deferred, self._deferred = self._deferred, []
            for call, args in deferred:
                self.after(0.0, call, *args)

    def defer(self, call: Call, args: tuple[Any, ...]) -> None:
        """Keep what comes while the actor stands still."""
        self._deferred.append((call, args))


class World:
    """The clock, and what will happen; every chance comes from a stream of its own name."""

    def __init__(
        self,
        seed: int,
        *,
        tell: Callable[[str], None] | None = None,
        steps_max: float = STEPS_MAX,
    ) -> None:
        self.seed = seed
        self.now = 0.0
        self.steps = 0
        self.stats: Counter[str] = Counter()
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self.fate = Actor(self, "fate")
        """Who brings faults; it neither dies nor stands still."""
        self._tell = tell
        self._steps_max = steps_max
        self._digest = hashlib.sha256()
        self._heap: list[tuple[float, int, Actor, int, Call, tuple[Any, ...]]] = []
        self._numbers = 0

    def rng(self, name: str) -> random.Random:
        """Return a stream of chance: what one takes from it changes no other's."""
        return random.Random(f"{self.seed}/{name}")

    def at(self, when: float, actor: Actor, call: Call, *args: object) -> None:
        """Have something happen at `when`, or now if that is past; to the dead nothing does."""
        if not actor.alive:
            return
        self._numbers += 1
        entry = (max(when, self.now), self._numbers, actor, actor.life, call, args)
        heappush(self._heap, entry)

    def note(self, who: str, what: str) -> None:
        """Add a line to the trace."""
        line = f"{self.now:.6f} {who} {what}"
        self._digest.update(line.encode())
        self.tail.append(line)
        if self._tell is not None:
            self._tell(line)

    @property
    def digest(self) -> str:
        """What all lines of the trace come to."""
        return self._digest.hexdigest()[:16]

    def run(self, until: float) -> None:
        """Let all happen that is due by `until`.

        Raises:
            ViolationError: so much happens that somebody must be spinning.
        """
        heap = self._heap
        while heap and heap[0][0] <= until:
            when, _, actor, life, call, args = heappop(heap)
            if actor.life != life:
                continue
            self.now = when
            if actor.suspended:
                actor.defer(call, args)
                continue
            self.steps += 1
            if self.steps > self._steps_max:
                raise ViolationError("nobody spins", f"{self._steps_max} steps by {when:.3f} s")
            call(*args)
        self.now = until
