"""Jobs that wait, by what they need; and whose turn it is."""

from collections import Counter
from collections.abc import Iterator, KeysView
from heapq import heapify, heappop, heappush
from math import inf

from broker.core.job import Job
from broker.core.matching.need import Need
from broker.core.matching.shares import Shares
from broker.core.matching.stays import TIERS
from broker.core.priority_map import PriorityMap

TASK_GUESS_S = 60.0
"""Of a task that nothing is known of."""

_NEWEST = 0.125
_SLACK = 64
_GROUPS_SLACK = 4_096


class Group:
    """Jobs of one need with pending tasks, in the order in which they are served."""

    __slots__ = ("_gone", "_jobs", "_mean_s", "need", "number", "seen", "submitter")

    def __init__(self, need: Need, submitter: str, number: int) -> None:
        self.need = need
        self.submitter = submitter
        self.number = number
        self.seen = [0] * TIERS
        """Up to which lender of each shelf there is known to be no room for it."""
        self._jobs: list[tuple[float, int, Job]] = []
        self._gone = 0
        self._mean_s: float | None = None

    @property
    def rank(self) -> float:
        """The rank of its first job."""
        return self._jobs[0][0]

    def first(self) -> Job | None:
        """Return the job that is served next."""
        jobs = self._jobs
        while jobs and not jobs[0][2].pending:
            heappop(jobs)[2].listed = False
        return jobs[0][2] if jobs else None

    def add(self, job: Job) -> None:
        """Take in a job with pending tasks, if it is not in."""
        if not job.listed:
            job.listed = True
            heappush(self._jobs, (job.rank, job.order, job))

    def put_aside(self) -> Job:
        """Take out the job that is served next."""
        job = heappop(self._jobs)[2]
        job.listed = False
        return job

    def note_gone(self, job: Job) -> None:
        """Forget a job that has no pending tasks any more, wherever it stands."""
        if not job.listed:
            return
        self._gone += 1
        if 2 * self._gone > len(self._jobs) + _SLACK:
            self._gone = 0
            for _, _, one in self._jobs:
                one.listed = bool(one.pending)
            self._jobs = [entry for entry in self._jobs if entry[2].listed]
            heapify(self._jobs)

    def learn(self, job: Job) -> None:
        """Note what a job's tasks have taken; newer jobs weigh more."""
        took_s = job.mean_s or 0.0
        before_s = took_s if self._mean_s is None else self._mean_s
        self._mean_s = before_s + _NEWEST * (took_s - before_s)

    def task_s(self, job: Job) -> float:
        """Return how long a task of the job takes: measured, foretold, usual or guessed."""
        for known_s in (job.mean_s, job.expected_s, self._mean_s):
            if known_s is not None:
                return known_s
        return TASK_GUESS_S


class Turns:
    """Groups with something to lease, in the order in which they are served.

    The submitter with the lowest level comes first, and of its groups the one with the first
    job. What is noted of either is never above what is true by now: levels and ranks only grow,
    except where `add` and `sink` are told. So the order is looked after when its head is asked
    for, and nowhere else.
    """

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._version = shares.version
        self._levels: PriorityMap[str] = PriorityMap()
        self._lines: dict[str, PriorityMap[int]] = {}
        self._groups: dict[int, Group] = {}
        self._classes: Counter[str] = Counter()

    def __contains__(self, submitter: str) -> bool:
        return submitter in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    @property
    def classes(self) -> KeysView[str]:
        """The classes of the groups."""
        return self._classes.keys()

    def add(self, group: Group) -> None:
        """Let a group be served that has a first job, or serve it earlier for that job's sake."""
        line = self._lines.get(group.submitter)
        if line is None:
            line = self._lines[group.submitter] = PriorityMap()
            self._levels.set(group.submitter, self._shares.level(group.submitter))
        if group.number not in line:
            self._groups[group.number] = group
            self._classes[group.need.class_token] += 1
        if group.rank < line.get(group.number, inf):
            line.set(group.number, group.rank)

    def drop(self, group: Group) -> None:
        """Let a group be served no longer, if it is."""
        if self._groups.pop(group.number, None) is None:
            return
        line = self._lines[group.submitter]
        line.drop(group.number)
        if not len(line):
            del self._lines[group.submitter]
            self._levels.drop(group.submitter)
        token = group.need.class_token
        self._classes[token] -= 1
        if not self._classes[token]:
            del self._classes[token]

    def sink(self, submitter: str) -> None:
        """Note that a submitter's level has become lower."""
        if submitter in self._lines:
            self._levels.set(submitter, self._shares.level(submitter))

    def first(self) -> Group | None:
        """Return the group that is served next."""
        if self._version != self._shares.version:
            self._version = self._shares.version
            for submitter in self._lines:
                self.sink(submitter)
        while (head := self._levels.first()) is not None:
            noted, submitter = head
            level = self._shares.level(submitter)
            if level <= noted:
                return self._first_of(self._lines[submitter])
            self._levels.set(submitter, level)
        return None

    def _first_of(self, line: PriorityMap[int]) -> Group:
        while True:
            head = line.first()
            assert head is not None, "a line without groups is dropped"
            noted, number = head
            group = self._groups[number]
            if group.rank <= noted:
                return group
            line.set(number, group.rank)


class Backlog:
    """All jobs with pending tasks."""

    def __init__(self, shares: Shares) -> None:
        self.turns = Turns(shares)
        self._shares = shares
        self._groups: dict[Need, Group] = {}
        self._groups_made = 0
        self._groups_kept = 0

    def group_of(self, job: Job) -> Group:
        """Return the group of jobs that need the same."""
        group = self._groups.get(job.need)
        if group is None:
            self._forget_empty()
            self._groups_made += 1
            group = Group(job.need, job.key.submitter, self._groups_made)
            self._groups[job.need] = group
        job.need = group.need
        return group

    def add(self, job: Job) -> Group:
        """Let the pending tasks of a job wait for their turn.

        Who had nothing waiting saves nothing up: it starts on a level with the lowest of those
        that wait and have been served.
        """
        group, submitter = self.group_of(job), job.key.submitter
        if submitter not in self.turns:
            self._shares.lift(submitter, above=self.turns)
        group.add(job)
        group.first()
        self.turns.add(group)
        return group

    def tidy(self, group: Group) -> None:
        """Let a group that has run out of pending tasks wait no longer."""
        if group.first() is None:
            self.turns.drop(group)

    def drop(self, job: Job) -> None:
        """Forget a job that has ended."""
        job.pending.clear()
        group = self.group_of(job)
        group.note_gone(job)
        self.tidy(group)

    def learn(self, job: Job) -> None:
        """Note what a job's tasks have taken."""
        self.group_of(job).learn(job)

    def _forget_empty(self) -> None:
        """Keep what was learned of groups without jobs, but not for ever."""
        if len(self._groups) > 2 * self._groups_kept + _GROUPS_SLACK:
            self._groups = {
                need: group for need, group in self._groups.items() if group.first() is not None
            }
            self._groups_kept = len(self._groups)
