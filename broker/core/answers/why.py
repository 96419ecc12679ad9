"""What a job that waits waits for, in words."""

from collections import Counter
from dataclasses import dataclass, field
from math import ceil

from broker.core.gangs.why import why_gang
from broker.core.jobs.job import Job, JobKey, Resting
from broker.core.matching.lender import Lender
from broker.core.matching.need import Need
from broker.core.state import State
from lender.protocol.classes import WorkClass
from lender.protocol.lease import LenderPhase
from lender.protocol.reach import in_words

LOOKS_MAX = 20_000
"""At lenders, for one answer: each need of the jobs in it is a walk through those of its class."""

_NOT_LOOKED_INTO = "not looked into beside so many others: ask for this job alone"
_GANG_WALKS = 4

_NOT_FREE: dict[LenderPhase, str] = {
    "unconsented": "without consent of its owner",
    "lending": "busy",
    "yielding": "yielding (the machine or its owner needs it)",
    "paused": "paused by its owner",
    "draining": "draining",
    "offline": "offline",
}

_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20))
_TIMES = (("d", 86_400.0), ("h", 3600.0), ("min", 60.0))


@dataclass(slots=True)
class _Matches:
    """The lenders that list the class of a need, by what they could do for it."""

    free: int = 0
    taken: Counter[LenderPhase] = field(default_factory=Counter)
    lacking: int = 0
    near: dict[str, list[float]] = field(default_factory=dict)
    """By the one thing that each of these lacks: how much of it."""

    @property
    def count(self) -> int:
        """Number of those that may run it."""
        return self.free + self.taken.total()

    @property
    def listed(self) -> int:
        """Number of all."""
        return self.count + self.lacking


class Reasons:
    """Why jobs wait, worked out once for each group of them."""

    def __init__(self, state: State, now: float) -> None:
        self._state = state
        self._now = now
        self._matches: dict[Need, _Matches] = {}
        self._looks_left = LOOKS_MAX

    def why(self, job: Job) -> str:
        """Return what a job waits for that has no running task."""
        if left := self._state.dependencies.left(job.key):
            return self._waits(job.key.submitter, tuple(left))
        if not job.pending and (resting := job.first_rested) is not None:
            return self.rests(job, resting)
        return self.not_leased(job)

    def not_leased(self, job: Job) -> str:
        """Return why no lender has the tasks of a job that might be leased now."""
        found = self._look(job)
        if found is None:
            return _NOT_LOOKED_INTO
        if not found.count:
            return _nobody(job, found)
        if not job.leases and not self._state.quotas.room(job.key.submitter):
            return self._at_most(job.key.submitter)
        return self._for_turn(job, found)

    def _at_most(self, submitter: str) -> str:
        most = self._state.quotas.of(submitter).running_tasks_max
        if not most:
            return "the operator holds your work back: ask there"
        return f"waiting for tasks of yours to end: {most} are handed out, as many as you may"

    def _look(self, job: Job) -> _Matches | None:
        """Return the lenders for a job; None where this answer has taken enough looks already."""
        found = self._matches.get(job.need)
        if self._looks_left <= 0 and (found is None or job.is_gang):
            return None
        if found is None:
            found = self._matches[job.need] = self._match(job.need)
            self._looks_left -= found.listed
        if job.is_gang:
            self._looks_left -= _GANG_WALKS * found.listed
        return found

    def _for_turn(self, job: Job, found: _Matches) -> str:
        if job.is_gang:
            return why_gang(self._state, self._now, job)
        match = "1 machine matches" if found.count == 1 else f"{found.count} machines match"
        if found.free:
            if job.leases:
                return f"{match} it: handed out, waiting for one to take it"
            if not self._state.room_beside_gangs(job.key.submitter):
                return f"{match} it: a gang of yours comes first in what you may have handed out"
            return f"{match} it: waiting for its turn"
        return f"{match}{_taken(found.taken)}{_more(found, ' more')}"

    def _waits(self, submitter: str, names: tuple[str, ...]) -> str:
        first, more = names[0], len(names) - 1
        key = JobKey(submitter, first)
        job, ended = self._state.jobs.get(key), self._state.history.get(key)
        named = self._state.jobs.named_task(key) if job is None and ended is None else None
        if named is not None:
            how = self._task(*named)
        elif job is not None and job.total > 1:
            how = f"{job.state}, {job.settled} of {job.total} tasks done"
        elif job is not None:
            how = job.state
        elif ended is not None:
            how = ended.state
        else:
            how = "not known: not submitted yet, or forgotten"
        others = f" and {more} more" if more else ""
        return f"waits for job {first} ({how}){others}"

    def _task(self, job: Job, task: int) -> str:
        """Say where a task is that another job waits for."""
        left = self._state.dependencies.separate.left(job.key)
        if left is None:
            return "a task of an array, which is no job: wait for the array"
        if not any(first <= task < first + count for first, count in job.tasks):
            return "none of those that went together"
        leases = (self._state.leases[lease_id] for lease_id in job.leases)
        held = any(task in one.open for one in leases if one.holder is not None)
        return "running" if held else "queued"

    def rests(self, job: Job, resting: Resting) -> str:
        """Return why tasks of a job are not to be leased yet."""
        rest_s = max(0.0, resting.until - self._now)
        if resting.cause == "date":
            return f"not to begin for another {_time(rest_s)}"
        if resting.cause == "refused":
            return f"waiting {rest_s:.1f} s after it was handed back: {job.setback_reason}"
        count = len(resting.tasks)
        failed = "its failed task runs" if count == 1 else f"{count} failed tasks run"
        return f"{failed} again in {rest_s:.1f} s"

    def _match(self, need: Need) -> _Matches:
        found = _Matches()
        for lender in self._state.fleet.of_class(need.class_token):
            lacks = _lacks(lender, need)
            if len(lacks) == 1:
                ((what, amount),) = lacks.items()
                found.near.setdefault(what, []).append(amount)
            if lacks:
                found.lacking += 1
            elif lender.offer.slots_free and need.within(lender.lends) and lender.spares(need):
                found.free += 1
            else:
                found.taken[lender.offer.phase] += 1
        return found


def _lacks(lender: Lender, need: Need) -> dict[str, float]:
    """Return what keeps a lender of the class from ever running it, and how much of it."""
    most = lender.most
    amounts = {
        "cores": need.cores - most.cores,
        "memory": need.memory_bytes - most.memory_bytes,
        "disk space": need.disk_bytes - most.disk_bytes,
        "GPU memory": need.vram_bytes - most.vram_bytes,
    }
    lacks = {what: amount for what, amount in amounts.items() if amount > 0}
    lacks |= dict.fromkeys((f"label {label}" for label in need.labels - lender.labels), 1.0)
    if need.sealed_to and lender.id not in need.sealed_to:
        lacks["key"] = 1.0
    if need.os not in ("any", lender.offer.os):
        lacks[f"operating system {need.os}"] = 1.0
    if need.net is not None and not lender.reaches(need.net):
        lacks[f"need of {in_words(need.net.reach)}"] = 1.0
    return lacks


def _nobody(job: Job, found: _Matches) -> str:
    if not found.lacking:
        return f"no machine offers it: {_wanted(job.class_token)}"
    lacking = (
        "1 that lends it lacks" if found.lacking == 1 else f"{found.lacking} that lend it lack"
    )
    return f"no machine matches, {lacking} something{_more(found, '')}"


def _taken(taken: Counter[LenderPhase]) -> str:
    return " it: " + ", ".join(f"{count} {_NOT_FREE[phase]}" for phase, count in taken.items())


def _more(found: _Matches, more: str) -> str:
    """Say how most of the others would match that lack one thing only."""
    if not found.near:
        return ""
    what, amounts = max(found.near.items(), key=lambda one: (len(one[1]), one[0]))
    amount = max(amounts)
    if what == "cores":
        less = f"with {amount:.0f} fewer cores"
    elif what == "key":
        less = "if the job were sealed to them as well"
    elif what.startswith(("label", "operating system", "need of")):
        less = f"without the {what}"
    else:
        less = f"with {_bytes(amount)} less {what}"
    return f"; {len(amounts)}{more} would match {less}"


def _bytes(amount: float) -> str:
    for unit, size in _UNITS:
        if amount >= size:
            tenths = ceil(10 * amount / size) / 10
            return f"{tenths:g} {unit}"
    return "1 MiB"


def _time(seconds: float) -> str:
    for unit, length_s in _TIMES:
        if seconds >= length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def _wanted(class_token: str) -> str:
    one = WorkClass.parse(class_token)
    runtime = " ".join(filter(None, (one.runtime, one.python)))
    wanted = f"none lends {one.workload} ({runtime}) to this submitter in pool {one.pool}"
    if one.arch != "any":
        wanted += f" on {one.arch}"
    return wanted + (f" with a GPU of {one.gpu}" if one.gpu != "none" else "")
