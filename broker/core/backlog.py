"""Jobs with tasks to lease, by class, in the order of their submission."""

from collections.abc import KeysView

from broker.core.job import Job, JobKey
from broker.core.priority_map import PriorityMap


class Backlog:
    """Which jobs have pending tasks. A class is one submitter's, so each queue is too."""

    def __init__(self) -> None:
        self._queues: dict[str, PriorityMap[JobKey]] = {}

    def add(self, job: Job) -> None:
        """Queue a job that has pending tasks; one that is queued stays where it is."""
        self._queues.setdefault(job.class_token, PriorityMap()).set(job.key, job.order)

    def drop(self, job: Job) -> None:
        """Take a job out, if it is in."""
        queue = self._queues.get(job.class_token)
        if queue is not None:
            queue.drop(job.key)
            if not len(queue):
                del self._queues[job.class_token]

    def classes(self) -> KeysView[str]:
        """Return the classes with anything queued."""
        return self._queues.keys()

    def first(self, class_token: str) -> tuple[float, JobKey] | None:
        """Return order and key of the class's oldest job, or None."""
        queue = self._queues.get(class_token)
        return queue.first() if queue is not None else None
