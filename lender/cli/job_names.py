"""What is typed where a job is meant: its id, the beginning of it, or the name of a task."""

from typing import Final

JOB_HELP: Final = "the job's id; JOB-17 is task 17 of it alone, or a job that went with others"


def means(said: str, job: str) -> bool:
    """Return whether `said` means this job: what it begins with, or `JOB-17` (`ids.task_name`)."""
    whole, _, task = said.rpartition("-")
    return job.startswith(said) or (job == whole and task.isdecimal())
