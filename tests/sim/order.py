"""Jobs come after those that they wait for, and are given up for nothing else than was asked."""

from collections.abc import Callable, Container, Mapping

from sim.submitter import Job
from sim.world import ViolationError

from lender.protocol import subjects
from lender.protocol.ids import task_named
from lender.protocol.result import Terminal

Key = tuple[str, str]
How = Callable[[Key], str | None]
"""Tells how a job has ended, or one that went together with others; None: not yet."""

FOLLOWS = "jobs follow others"
BEGUN = "who has begun is in no queue"


def check_handed_out(job: Job, how: How) -> None:
    """Hold a lease of a job against what is stored of the ends that it waits for.

    Raises:
        ViolationError: one of them is not stored, or not as asked.
    """
    unstored = [name for name, _ in job.plan.after if how((job.key[0], name)) is None]
    if unstored or _missed(job, how):
        text = f"{job.plan.id} is handed out: {unstored} and {_missed(job, how)}"
        raise ViolationError(FOLLOWS, text)


def check_end_of(
    job: Job,
    end: Terminal,
    jobs: Mapping[Key, Job],
    how: How,
    stored: Container[str],
) -> None:
    """Hold the reason of an end against what is stored.

    Raises:
        ViolationError: it is not true.
    """
    text = f"{job.plan.id} {end.state}: {end.field}, {end.reason}"
    if end.field == "after":
        missed = end.state == "cancelled" and _missed(job, how)
        circle = end.state == "rejected" and job.plan.id in _before(job, jobs)
        if not (missed or circle):
            raise ViolationError(FOLLOWS, text)
    if end.field == "queue_s" and subjects.begun(*job.key) in stored:
        raise ViolationError(BEGUN, text)


def _missed(job: Job, how: How) -> list[str]:
    """Return the ended jobs that `job` waited for, and that did not end as it asked."""
    return [
        name
        for name, on in job.plan.after
        if on == "success" and how((job.key[0], name)) not in (None, "succeeded")
    ]


def _before(job: Job, jobs: Mapping[Key, Job]) -> set[str]:
    """Return the jobs that have to end before it, one way or another, with what each is in."""
    found: set[str] = set()
    looking = [job]
    while looking:
        for name, _ in looking.pop().plan.after:
            before = jobs.get((job.key[0], name)) or array_of(jobs, (job.key[0], name))
            if before is not None and before.plan.id not in found:
                found.add(before.plan.id)
                looking.append(before)
    return found


def array_of(jobs: Mapping[Key, Job], key: Key) -> Job | None:
    """Return the array whose task is a job that is called so."""
    named = task_named(key[1])
    array = None if named is None else jobs.get((key[0], named[0]))
    if array is None or named is None or not array.plan.separate:
        return None
    return array if named[1] in array.indices else None
