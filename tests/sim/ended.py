"""An ended job as its submitter's client reads it, and what of it `lender retry` tries again."""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from sim.jetstream import Message

from lender.client.retrying import tasks_to_retry
from lender.protocol import subjects
from lender.protocol.codec import decode
from lender.protocol.job import JobSpec, TaskRange
from lender.protocol.result import Chunk, TaskResult, Terminal


class _Record(NamedTuple):
    result: TaskResult


class Ended:
    """As much of `lender.client.job.Job` as a retry reads; what RESULTS holds is in memory."""

    def __init__(self, spec: JobSpec, terminal: Terminal, stored: Sequence[Message]) -> None:
        self.id = spec.id
        self.spec = spec
        self.terminal = terminal
        self._chunks = [one for one in stored if _is_chunk(one.subject, spec)]

    async def results(self) -> AsyncIterator[_Record]:
        """Yield the result of each task that has one."""
        for message in self._chunks:
            for result in decode(Chunk, message.payload).results:
                yield _Record(result)


def tasks_left(ended: Ended) -> tuple[TaskRange, ...]:
    """Return the tasks that have not succeeded."""
    reading = tasks_to_retry(ended, ended.terminal)
    try:
        reading.send(None)
    except StopIteration as read:
        tasks: tuple[TaskRange, ...] = read.value
        return tasks
    raise AssertionError("nothing here has to be waited for")


def _is_chunk(subject: str, spec: JobSpec) -> bool:
    prefix = f"{subjects.result(spec.submitter, spec.id)}."
    if not subject.startswith(prefix):
        return False
    return subject.removeprefix(prefix).isdecimal()
