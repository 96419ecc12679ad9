"""The live gangs: jobs whose tasks run at the same time or not at all, and where each stands."""

from collections.abc import Iterator, KeysView
from dataclasses import dataclass, field
from typing import Final, Literal

from broker.core.containers.priority_map import PriorityMap
from broker.core.containers.tally import Tally
from broker.core.jobs.job import Job, JobKey

GATHER_S = 10.0
"""Within so long from its feed all members of a gang are held by lenders, or none is any more."""

GATHER_MAX_S = 3600.0
_DOUBLINGS_MAX = 10

_BEHIND_ALL_S = 1e12

GangPhase = Literal["waiting", "gathering", "found", "running"]

TRANSITIONS: Final[dict[GangPhase, frozenset[GangPhase]]] = {
    "waiting": frozenset(("gathering", "found")),
    "gathering": frozenset(("running", "waiting")),
    "found": frozenset(("running", "waiting")),
    "running": frozenset(("waiting",)),
}


@dataclass(slots=True, eq=False)
class Gang:
    """One gang.

    waiting: none of its tasks is leased. gathering: they are, and lenders keep those that they
    hold from running. found: a replay found them leased, and nobody knows whether they run.
    running: all were held and ready at once, and their lenders have been told to begin.
    """

    job: Job
    phase: GangPhase = "waiting"
    gathers: int = 0
    """That have failed since it last ran: the next one takes longer, and so does its rest."""
    ready: set[str] = field(default_factory=set)
    """Leases whose tasks wait for the others alone, or run."""
    too_large: bool = False
    """Whether the fleet could not ever hold it when it was last looked at."""

    @property
    def turn(self) -> float:
        """Its place among those of its submitter that wait: what is too large comes last."""
        return self.job.rank + (_BEHIND_ALL_S if self.too_large else 0.0)

    @property
    def gather_s(self) -> float:
        """For how long it gathers, and rests when that has failed."""
        return min(GATHER_MAX_S, GATHER_S * (1 << min(self.gathers, _DOUBLINGS_MAX)))

    def enter(self, phase: GangPhase) -> None:
        """Go to `phase`.

        Raises:
            RuntimeError: the table forbids it.
        """
        if phase not in TRANSITIONS[self.phase]:
            raise RuntimeError(f"gang {self.job.key}: {self.phase} -> {phase}")
        self.phase = phase

    @property
    def is_ready(self) -> bool:
        """Whether all that is left of it could be leased now."""
        return self.phase == "waiting" and bool(self.job.pending) and not self.job.resting


class Gangs:
    """All of them by job, and those that something has happened to."""

    def __init__(self) -> None:
        self._gangs: dict[JobKey, Gang] = {}
        self._touched: dict[JobKey, None] = {}
        self._open: dict[JobKey, Gang] = {}
        """Those that gather, or were found leased."""
        self._ready: dict[str, PriorityMap[JobKey]] = {}
        """By submitter: those that could be leased now, by their turn."""
        self.submitters = Tally()
        """How many each has."""
        self.waiting = Tally()
        """How many there are of each class that do not run."""
        self.saved: dict[str, int] = {}
        """By submitter: how many of the tasks that it may have handed out are kept for a gang."""
        self.look_at: float | None = None
        """When those that wait are looked at next; None while none does."""

    def __len__(self) -> int:
        return len(self._gangs)

    def __iter__(self) -> Iterator[Gang]:
        return iter(self._gangs.values())

    @property
    def open(self) -> list[Gang]:
        """Those of which tasks are leased before it is known that all can run."""
        return list(self._open.values())

    @property
    def ready(self) -> KeysView[str]:
        """Submitters with gangs that could be leased now."""
        return self._ready.keys()

    def first_ready(self, submitter: str, most: int) -> list[Gang]:
        """Return up to so many of a submitter's gangs that could be leased now, in their turn."""
        line, taken = self._ready[submitter], list[tuple[float, JobKey]]()
        while len(taken) < most and (first := line.first()) is not None:
            line.drop(first[1])
            taken.append(first)
        for turn, key in taken:
            line.set(key, turn)
        return [self._gangs[key] for _, key in taken]

    def __getitem__(self, key: JobKey) -> Gang:
        return self._gangs[key]

    def get(self, key: JobKey) -> Gang | None:
        """Return a live gang."""
        return self._gangs.get(key)

    def touch(self, job: Job) -> None:
        """Note that a gang's tasks or leases have changed."""
        if job.key not in self._gangs:
            self._gangs[job.key] = Gang(job)
            self.submitters.add(job.key.submitter)
            self.waiting.add(job.class_token)
        self._touched[job.key] = None

    def take_touched(self) -> Gang | None:
        """Return a gang that was touched, and forget that it was."""
        if not self._touched:
            return None
        return self._gangs[self._touched.popitem()[0]]

    def note(self, gang: Gang) -> None:
        """Note whether a gang could be leased now, and when it is its turn."""
        submitter, key = gang.job.key.submitter, gang.job.key
        if gang.is_ready:
            self._ready.setdefault(submitter, PriorityMap()).set(key, gang.turn)
        else:
            self._leave_line(gang)

    def drop(self, job: Job) -> None:
        """Forget a gang that has ended."""
        gang = self._gangs.pop(job.key, None)
        if gang is not None:
            self.submitters.drop(job.key.submitter)
            if gang.phase != "running":
                self.waiting.drop(job.class_token)
            self._open.pop(job.key, None)
            self._leave_line(gang)
        self._touched.pop(job.key, None)

    def enter(self, gang: Gang, phase: GangPhase) -> None:
        """Let a gang go to `phase`.

        Raises:
            RuntimeError: the table forbids it.
        """
        if gang.phase == "running":
            self.waiting.add(gang.job.class_token)
        gang.enter(phase)
        if phase == "running":
            self.waiting.drop(gang.job.class_token)
        self._open.pop(gang.job.key, None)
        if phase in ("gathering", "found"):
            self._open[gang.job.key] = gang
        self.note(gang)

    def runs(self, job: Job) -> bool:
        """Tell whether a gang's lenders have been told to begin."""
        gang = self._gangs.get(job.key)
        return gang is not None and gang.phase == "running"

    def look_soon(self, now: float) -> None:
        """Have those that wait looked at now: what was kept from them may be free."""
        if self.look_at is not None:
            self.look_at = now

    def shift(self, by_s: float) -> None:
        """Move what was noted by the clock, after the clock itself has been moved."""
        if self.look_at is not None:
            self.look_at += by_s

    def _leave_line(self, gang: Gang) -> None:
        submitter, key = gang.job.key.submitter, gang.job.key
        line = self._ready.get(submitter)
        if line is not None:
            line.drop(key)
            if not len(line):
                del self._ready[submitter]
