"""Jobs that wait, by what they need; and whose turn it is."""

from collections import OrderedDict, deque
from collections.abc import Iterator, KeysView
from heapq import heapify, heappop, heappush
from itertools import chain, islice
from math import inf, sqrt

from broker.core.containers.priority_map import PriorityMap
from broker.core.containers.tally import Tally
from broker.core.jobs.job import Job
from broker.core.matching.need import Need
from broker.core.matching.shares import Shares
from broker.core.matching.stays import TIERS, tier_of

TASK_GUESS_S = 60.0
"""Of a task that nothing is known of."""

LOOKS_MAX = 16
"""Groups of one submitter that may be looked at in vain in one go."""

RANKED_LOOKS = 8
"""So many of these have its first jobs; the others were not looked at for longest."""

_NEWEST = 0.125
_SLACK = 64
_GROUPS_SLACK = 4_096


LEARNT_MIN = 5
"""After so many reports on jobs of a need there is something usual about them."""

_Entry = tuple[float, int, Job]
"""A job, by its rank, and by its order among those of equal rank."""


class Group:
    """Jobs of one need with pending tasks, in the order in which they are served."""

    __slots__ = (
        "_gone",
        "_learnt",
        "_line",
        "_out_of_line",
        "_variance",
        "first",
        "mean_s",
        "need",
        "number",
        "rank",
        "seen",
        "submitter",
        "tier",
    )

    def __init__(self, need: Need, submitter: str, number: int) -> None:
        self.need = need
        self.submitter = submitter
        self.number = number
        self.first: Job | None = None
        """The job that is served next."""
        self.rank = inf
        """The rank of that."""
        self.tier = tier_of(2 * TASK_GUESS_S)
        """The stay that its tasks want, unless a job's own time is known."""
        self.seen = [0] * TIERS
        """Up to which lender of each shelf there is known to be no room for it."""
        self._line: deque[_Entry] = deque()
        self._out_of_line: list[_Entry] = []
        self.mean_s: float | None = None
        """What tasks of such jobs took lately; None before the first."""
        self._variance = 0.0
        self._learnt = 0
        self._gone = 0

    def settle(self) -> Job | None:
        """Look again which job is served next, after the pending tasks of any have changed."""
        line, out_of_line = self._line, self._out_of_line
        while line and not line[0][2].pending:
            line.popleft()[2].listed = False
        while out_of_line and not out_of_line[0][2].pending:
            heappop(out_of_line)[2].listed = False
        if out_of_line and not (line and line[0] < out_of_line[0]):
            self.rank, _, self.first = out_of_line[0]
        elif line:
            self.rank, _, self.first = line[0]
        else:
            self.first = None
        return self.first

    def add(self, job: Job) -> None:
        """Take in a job with pending tasks, if it is not in."""
        if not job.listed:
            job.listed = True
            entry = (job.rank, job.order, job)
            # Most come in their order: that costs the same however many there are.
            if self._line and entry < self._line[-1]:
                heappush(self._out_of_line, entry)
            else:
                self._line.append(entry)
        self.settle()

    def put_aside(self) -> Job:
        """Take out the job that is served next."""
        in_line = self._line and self._line[0][2] is self.first
        job = (self._line.popleft() if in_line else heappop(self._out_of_line))[2]
        job.listed = False
        self.settle()
        return job

    def note_gone(self, job: Job) -> None:
        """Forget a job that has no pending tasks any more, wherever it stands."""
        if not job.listed:
            return
        self._gone += 1
        if 2 * self._gone > len(self._line) + len(self._out_of_line) + _SLACK:
            self._gone = 0
            for _, _, one in chain(self._line, self._out_of_line):
                one.listed = bool(one.pending)
            self._line = deque(entry for entry in self._line if entry[2].listed)
            self._out_of_line = [entry for entry in self._out_of_line if entry[2].listed]
            heapify(self._out_of_line)

    def learn(self, job: Job) -> None:
        """Note what a job's tasks have taken; newer jobs weigh more."""
        self._learnt += 1
        took_s = job.mean_s or 0.0
        before_s = took_s if self.mean_s is None else self.mean_s
        change_s = _NEWEST * (took_s - before_s)
        self.mean_s = before_s + change_s
        self._variance = (1 - _NEWEST) * (self._variance + change_s * (took_s - before_s))
        self.tier = tier_of(2 * self.mean_s)

    @property
    def spread_s(self) -> float:
        """Standard deviation of that."""
        return sqrt(self._variance)

    @property
    def jobs_waiting(self) -> int:
        """About how many jobs have pending tasks: one at least."""
        return max(1, len(self._line) + len(self._out_of_line) - self._gone)

    def foretold_s(self, job: Job) -> float | None:
        """Return what a task of a job may take at most that has no result yet; None: nobody knows.

        Where it takes longer all the same, what waits behind it in its lease is leased once
        more to where room lies idle, see `copies.behind`.
        """
        if job.expected_s is not None:
            return job.expected_s
        if self.mean_s is None or self._learnt < LEARNT_MIN:
            return None
        return self.mean_s + 2 * self.spread_s

    def tier_for(self, job: Job) -> int:
        """Return the stay that a job's tasks want: twice what they take.

        That is measured, foretold, usual in the group or guessed, whichever is known first.
        """
        takes_s = job.expected_s if job.mean_s is None else job.mean_s
        return self.tier if takes_s is None else tier_of(2 * takes_s)


class _Line:
    """One submitter's groups."""

    __slots__ = ("ranks", "waited")

    def __init__(self) -> None:
        self.ranks: PriorityMap[int] = PriorityMap()
        self.waited: OrderedDict[int, None] = OrderedDict()
        """The one first that was not looked at in vain for longest."""


class Turns:
    """Groups with something to lease, in the order in which they are served.

    The submitter with the lowest level comes first, and of its groups the one with the first
    job. What is noted of either is never above what is true by now: levels and ranks only grow,
    except where `add` and `sink` are told. So the order is looked after when its head is asked
    for, and nowhere else.

    They are served in goes, each from the first call of `first` to `end_go`. However many groups a
    submitter has, no more than `LOOKS_MAX` of them are looked at in vain in one go: those with its
    first jobs, and others in turn. All of them are looked at in the end, since it is noted how
    many are still `owed` a look.
    """

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._version = shares.version
        self._levels: PriorityMap[str] = PriorityMap()
        self._lines: dict[str, _Line] = {}
        self._groups: dict[int, Group] = {}
        self._classes = Tally()
        self._blocked: list[Group] = []
        """Those that have found no room in this go."""
        self._vain: dict[str, int] = {}
        """How many of these each submitter has."""
        self._owed: dict[str, int] = {}
        """By submitter: how many groups are to be looked at until all have been."""

    def __contains__(self, submitter: str) -> bool:
        return submitter in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    @property
    def classes(self) -> KeysView[str]:
        """The classes of the groups."""
        return self._classes.keys()

    @property
    def owed(self) -> KeysView[str]:
        """Submitters with groups that are to be looked at, whether or not anything happens."""
        return self._owed.keys()

    def add(self, group: Group) -> None:
        """Let a group be served that has a first job, or serve it earlier for that job's sake."""
        line = self._lines.get(group.submitter)
        if line is None:
            line = self._lines[group.submitter] = _Line()
            self._levels.set(group.submitter, self._shares.level(group.submitter))
        if group.number not in line.ranks:
            self._groups[group.number] = group
            self._classes.add(group.need.class_token)
            line.waited[group.number] = None
        if group.rank < line.ranks.get(group.number, inf):
            line.ranks.set(group.number, group.rank)

    def drop(self, group: Group) -> None:
        """Let a group be served no longer, if it is."""
        if self._groups.pop(group.number, None) is None:
            return
        line = self._lines[group.submitter]
        line.ranks.drop(group.number)
        del line.waited[group.number]
        if not line.waited:
            del self._lines[group.submitter]
            self._levels.drop(group.submitter)
        self._classes.drop(group.need.class_token)

    def block(self, group: Group) -> None:
        """Serve a group no more in this go, which has found no room."""
        self.drop(group)
        self._blocked.append(group)
        vain = self._vain[group.submitter] = self._vain.get(group.submitter, 0) + 1
        if vain >= LOOKS_MAX:
            self.pass_over(group.submitter)

    def end_go(self) -> list[str]:
        """Let all be served again; returns submitters of whose groups some were not looked at."""
        cut = [one for one, vain in self._vain.items() if vain >= LOOKS_MAX and one in self._lines]
        for group in self._blocked:
            self.add(group)
        for submitter in cut:
            self.sink(submitter)
        self._blocked, self._vain = [], {}
        return cut

    def owe(self, submitter: str) -> None:
        """Have all groups of a submitter looked at, some at a time: see `take_owed`."""
        if submitter in self._lines:
            self._owed[submitter] = len(self._lines[submitter].waited)

    def take_owed(self, submitter: str, count: int) -> list[Group]:
        """Return up to so many groups of a submitter that are owed a look, and note it as had.

        If it is owed more, it comes last of those that are.
        """
        left, line = self._owed.pop(submitter, 0), self._lines.get(submitter)
        if line is None:
            return []
        if left > count:
            self._owed[submitter] = left - count
        groups = [self._groups[number] for number in islice(line.waited, min(count, left))]
        for group in groups:
            line.waited.move_to_end(group.number)
        return groups

    def look_again(self, submitter: str) -> list[Group]:
        """Return groups of a submitter that are to be looked at now; the others are owed it."""
        self.owe(submitter)
        return self.take_owed(submitter, LOOKS_MAX)

    def pass_over(self, submitter: str) -> None:
        """Serve nothing of a submitter's, until its level is said to have become lower."""
        self._levels.drop(submitter)

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
                return self._next_of(submitter)
            self._levels.raise_first(level)
        return None

    def first_of(self, submitter: str) -> Group | None:
        """Return the submitter's group that has its first job."""
        line = self._lines.get(submitter)
        return None if line is None else self._first_of(line)

    def served(self, group: Group) -> None:
        """Note that the first group has had a lease: its submitter's turn may be over."""
        if group.first is None:
            self.drop(group)
        else:
            self._levels.raise_first(self._shares.level(group.submitter))

    def _next_of(self, submitter: str) -> Group:
        line = self._lines[submitter]
        vain = self._vain.get(submitter, 0) if self._vain else 0
        if vain >= RANKED_LOOKS and vain + len(line.waited) > LOOKS_MAX:
            return self._groups[next(iter(line.waited))]
        return self._first_of(line)

    def _first_of(self, line: _Line) -> Group:
        while True:
            head = line.ranks.first()
            assert head is not None, "a line without groups is dropped"
            noted, number = head
            group = self._groups[number]
            if group.rank <= noted:
                return group
            line.ranks.raise_first(group.rank)


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
        self.turns.add(group)
        return group

    def tidy(self, group: Group) -> None:
        """Let a group that has run out of pending tasks wait no longer."""
        if group.settle() is None:
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
                need: group for need, group in self._groups.items() if group.first is not None
            }
            self._groups_kept = len(self._groups)
