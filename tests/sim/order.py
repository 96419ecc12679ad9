"""Jobs come after those that they wait for, and are given up for nothing else than was asked."""

from collections.abc import Container, Mapping

from sim.submitter import Job
from sim.world import ViolationError

from lender.protocol import subjects
from lender.protocol.result import Terminal

Key = tuple[str, str]

FOLLOWS = "jobs follow others"
BEGUN = "who has begun is in no queue"


def check_handed_out(job: Job, ends: Mapping[Key, Terminal]) -> None:
    """Hold a lease of a job against what is stored of the ends that it waits for.

    Raises:
        ViolationError: one of them is not stored, or not as asked.
    """
    unstored = [name for name, _ in job.plan.after if (job.key[0], name) not in ends]
    if unstored or _missed(job, ends):
        text = f"{job.plan.id} is handed out: {unstored} and {_missed(job, ends)}"
        raise ViolationError(FOLLOWS, text)


def check_end_of(
    job: Job,
    end: Terminal,
    jobs: Mapping[Key, Job],
    ends: Mapping[Key, Terminal],
    stored: Container[str],
) -> None:
    """Hold the reason of an end against what is stored.

    Raises:
        ViolationError: it is not true.
    """
    text = f"{job.plan.id} {end.state}: {end.field}, {end.reason}"
    if end.field == "after":
        missed = end.state == "cancelled" and _missed(job, ends)
        circle = end.state == "rejected" and job.plan.id in _before(job, jobs)
        if not (missed or circle):
            raise ViolationError(FOLLOWS, text)
    if end.field == "queue_s" and subjects.begun(*job.key) in stored:
        raise ViolationError(BEGUN, text)


def _missed(job: Job, ends: Mapping[Key, Terminal]) -> list[str]:
    """Return the ended jobs that `job` waited for, and that did not end as it asked."""
    return [
        name
        for name, on in job.plan.after
        if (end := ends.get((job.key[0], name))) is not None
        and on == "success"
        and end.state != "succeeded"
    ]


def _before(job: Job, jobs: Mapping[Key, Job]) -> set[str]:
    """Return the jobs that have to end before it, one way or another."""
    found: set[str] = set()
    looking = [job]
    while looking:
        for name, _ in looking.pop().plan.after:
            before = jobs.get((job.key[0], name))
            if before is not None and name not in found:
                found.add(name)
                looking.append(before)
    return found
