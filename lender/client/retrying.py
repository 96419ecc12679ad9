"""Which tasks of an ended job are worth another try, and the specification that tries them."""

from collections.abc import Iterable

from pydantic import ValidationError

from lender.client.contents import Contents
from lender.client.errors import ClientError, Rejected
from lender.client.job import Job
from lender.protocol.job import Array, Input, JobSpec, TaskRange, week_of
from lender.protocol.result import Terminal


async def tasks_to_retry(job: Job, terminal: Terminal) -> tuple[TaskRange, ...]:
    """Return the tasks of an ended job that did not succeed; of a gang all, which need each other.

    The job's last word names those that failed. Where that is not all of them (there are too many,
    or the job was ended before they ran), the results tell: of an array they are all read.

    Raises:
        ClientError: all have succeeded.
    """
    spec = job.spec
    if terminal.state == "succeeded":
        raise ClientError(f"no task of job {job.id} has failed", "submit it again to run it again")
    if spec.gang:
        return spec.task_ranges
    named = sum(count for _, count in terminal.failed_tasks)
    if terminal.state == "failed" and named == terminal.tasks_failed:
        return terminal.failed_tasks
    if spec.array is None or not terminal.tasks_succeeded:
        return spec.task_ranges
    left = bytearray(spec.task_end)
    for first, count in spec.task_ranges:
        left[first : first + count] = b"\x01" * count
    async for record in job.results():
        if record.result.state == "succeeded":
            left[record.result.task] = 0
    return tuple(_ranges(left))


def retry_spec(spec: JobSpec, tasks: tuple[TaskRange, ...], *, job: str, now: float) -> JobSpec:
    """Return the same job under another id, of these tasks alone; it begins to wait now.

    Raises:
        Rejected: they are scattered over more ranges than a job may name.
    """
    fields = dict(spec) | {
        "id": job,
        "created_at": now,
        "not_after": now + spec.not_after - spec.created_at,
        "not_before": None,
    }
    try:
        if spec.array is not None:
            every = ((0, spec.array.count),)
            named = {"tasks": () if tasks == every else tasks}
            fields["array"] = Array(**dict(spec.array) | named)
        return JobSpec(**fields)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise Rejected("array.tasks", fault["msg"]) from error


async def renewed(spec: JobSpec, contents: Contents) -> JobSpec:
    """Return the same job with contents that live as long as those of a new one.

    What was stored in an earlier week may be gone before it is read: it is fetched, and stored
    anew.

    Raises:
        ContentFault: one is gone already.
        NotAdmitted, Unreachable: see `Contents`.
    """
    week = week_of(spec.created_at)
    named = [one for one in (spec.program, *spec.inputs) if one is not None and one.week != week]
    anew = {one.sha256: await contents.renew(one) for one in named}
    if not anew:
        return spec
    program = spec.program and anew.get(spec.program.sha256, spec.program)
    inputs = tuple(
        Input(name=one.name, **anew[one.sha256].model_dump()) if one.sha256 in anew else one
        for one in spec.inputs
    )
    return JobSpec(**dict(spec) | {"program": program, "inputs": inputs})


def _ranges(marks: bytearray) -> Iterable[TaskRange]:
    """Yield where marks of 1 stand."""
    first = marks.find(1)
    while first >= 0:
        end = marks.find(0, first)
        end = len(marks) if end < 0 else end
        yield first, end - first
        first = marks.find(1, end)
