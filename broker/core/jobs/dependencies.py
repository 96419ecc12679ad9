"""Which jobs wait for which others to end, and what is known of those."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from broker.core.jobs.endings import Ended, Endings
from broker.core.jobs.job import JobKey
from broker.core.jobs.separate import Separate, key_of_task, keys_of_tasks
from lender.protocol.job import After, AfterOn
from lender.protocol.result import TaskResult, TerminalState

CIRCLE_LOOKS_MAX = 20_000
"""At waiting jobs, and at what each waits for, in the search for a circle: some milliseconds. One
that takes more to find waits until its jobs expire."""


class Verdict(NamedTuple):
    """What is to become of a waiting job: it may be handed out, unless one of these is there.

    Attributes:
        job: the one that waited.
        missed: a job that it waited for, and that has ended otherwise than asked.
        circle: names of jobs that wait for each other, from this one to itself.
    """

    job: JobKey
    missed: tuple[str, TerminalState] | None = None
    circle: tuple[str, ...] = ()


class Dependencies:
    """Live jobs that wait for others, both ways round.

    A job counts as ended once its end is durable: what it let go ahead could otherwise outlive
    its own end. One that is not known is waited for: it may come yet.
    """

    def __init__(self) -> None:
        self.endings = Endings()
        self.separate = Separate()
        self._left: dict[JobKey, dict[str, AfterOn]] = {}
        self._followers: dict[JobKey, dict[JobKey, None]] = {}
        self._committing: deque[tuple[int, JobKey, Ended]] = deque()
        self._fresh: deque[tuple[JobKey, bool]] = deque()
        """Jobs that have come, and whether each closed a circle then."""
        self._ended: deque[tuple[JobKey, Ended, list[JobKey]]] = deque()

    def add(self, key: JobKey, after: tuple[After, ...]) -> None:
        """Let a job wait; `decide` tells of it, if there is nothing to wait for.

        A circle is looked for at once, as a replay adds all jobs before it decides on any: each
        of a long chain would be a walk through the others.
        """
        self._left[key] = left = {}
        for one in after:
            left[one.job] = one.on
            self._followers.setdefault(JobKey(key.submitter, one.job), {})[key] = None
        self._fresh.append((key, bool(self._circle(key))))

    def drop(self, key: JobKey) -> None:
        """Forget that a job waits, if it does."""
        for name in self._left.pop(key, ()):
            self._unfollow(JobKey(key.submitter, name), key)

    def left(self, key: JobKey) -> Mapping[str, AfterOn]:
        """Return what a job waits for."""
        return self._left.get(key, {})

    def end(self, token: int, key: JobKey, ended: Ended) -> None:
        """Note that a job ends with the commit `token`, and those in it that had not yet."""
        for one in keys_of_tasks(key, self.separate.drop(key)):
            self._committing.append((token, one, ended))
        self._committing.append((token, key, ended))

    def end_tasks(self, token: int, key: JobKey, results: Iterable[TaskResult], at: int) -> None:
        """Note that tasks of a job end with the commit `token`, where those are jobs."""
        if key in self.separate:
            for one in results:
                self.separate.settle(key, ((one.task, 1),))
                how = Ended("cancelled" if one.cancelled else one.state, at)
                self._committing.append((token, key_of_task(key, one.task), how))

    def committed(self, token: int) -> None:
        """Note that a commit is durable: those come in their order."""
        while self._committing and self._committing[0][0] <= token:
            _, key, ended = self._committing.popleft()
            self.endings.note(key, *ended)
            followers = self._followers.get(key)
            if followers:
                self._ended.append((key, ended, list(reversed(followers))))

    def how_ended(self, key: JobKey) -> TerminalState | None:
        """Return how a job has ended, as far as that is known, whether or not it is durable."""
        ended = self.endings.get(key)
        if ended is None:
            ended = next((one for _, which, one in self._committing if which == key), None)
        return None if ended is None else ended.state

    def decide(self, looks_max: int) -> tuple[list[Verdict], bool]:
        """Look at jobs that have come, and at those whose predecessors have ended.

        Returns:
            What is to become of jobs that wait no longer, and whether there is more to look at
            than `looks_max` jobs.
        """
        verdicts: list[Verdict] = []
        for _ in range(looks_max):
            if not self._fresh and not self._ended:
                break
            verdict = self._look()
            if verdict is not None:
                verdicts.append(verdict)
        return verdicts, bool(self._fresh or self._ended)

    def since(self, key: JobKey, after: tuple[After, ...]) -> float:
        """Return when the last of a job's predecessors has ended, as far as that is known."""
        ended = (self.endings.get(JobKey(key.submitter, one.job)) for one in after)
        return max((one.at for one in ended if one is not None), default=0.0)

    def _look(self) -> Verdict | None:
        if self._fresh:
            return self._look_at(self._fresh.popleft())
        key, ended, followers = self._ended[0]
        follower = followers.pop()
        if not followers:
            self._ended.popleft()
        return self._pass(follower, key.job, ended)

    def _look_at(self, fresh: tuple[JobKey, bool]) -> Verdict | None:
        """Look at a job that has come: what it waits for may have ended long ago."""
        key, closed_circle = fresh
        for name in list(self._left.get(key, ())):
            ended = self.endings.get(JobKey(key.submitter, name))
            if ended is not None:
                verdict = self._pass(key, name, ended)
                if verdict is not None:
                    return verdict
        circle = self._circle(key) if closed_circle else ()
        return Verdict(key, circle=circle) if circle else None

    def _pass(self, key: JobKey, name: str, ended: Ended) -> Verdict | None:
        """Let a job wait for `name` no longer."""
        left = self._left.get(key, {})
        on = left.get(name)
        if on is None:
            return None  # it has ended itself, or was told before
        if on == "success" and ended.state != "succeeded":
            self.drop(key)
            return Verdict(key, missed=(name, ended.state))
        del left[name]
        self._unfollow(JobKey(key.submitter, name), key)
        if left:
            return None
        del self._left[key]
        return Verdict(key)

    def _circle(self, start: JobKey) -> tuple[str, ...]:
        """Return the jobs that `start` closes a circle with, if it does."""
        tasks = [*keys_of_tasks(start, self.separate.left(start) or ())]
        is_followed = any(one in self._followers for one in (start, *tasks))
        if not is_followed or start not in self._left:
            return ()
        own = {start.job, *(one.job for one in tasks)}
        came_from: dict[str, str] = {}
        looking, looks = [start.job], 0
        while looking and looks < CIRCLE_LOOKS_MAX:
            name = looking.pop()
            left = self._waits_for(JobKey(start.submitter, name))
            looks += 1 + len(left)
            for other in left:
                if other in own:
                    return _path(came_from, start.job, name)
                if other not in came_from:
                    came_from[other] = name
                    looking.append(other)
        return ()

    def _waits_for(self, key: JobKey) -> Mapping[str, AfterOn]:
        """Return what a job waits for, or the array that it is in."""
        array = self.separate.array_of(key)
        return self._left.get(key) or (self._left.get(array, {}) if array is not None else {})

    def _unfollow(self, key: JobKey, follower: JobKey) -> None:
        followers = self._followers[key]
        del followers[follower]
        if not followers:
            del self._followers[key]


def _path(came_from: Mapping[str, str], start: str, last: str) -> tuple[str, ...]:
    """Return the names from `start` by way of `last` to `start`: each waits for the next."""
    path = [start]
    while last != start:
        path.append(last)
        last = came_from[last]
    return (start, *reversed(path))
