"""List your jobs, newest first, and what each waiting one waits for.

With a job's id: how many of its tasks have ended, run and wait, and which have failed.
"""

import argparse
import json
import time

from lender.cli.connect import with_client
from lender.cli.connection_options import add_connection_options
from lender.cli.exits import CommandError, Exit
from lender.cli.job_names import JOB_HELP
from lender.cli.words import printable
from lender.client import Client, JobStatus

EXAMPLES = """\
  lender jobs
  lender jobs 01JD8Z0W3V6Y9QK2M4T7RXA5BC
  lender jobs --json | jq -r '.jobs[] | select(.state == "failed") | .job'"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_connection_options(parser)
    parser.add_argument(
        "job", nargs="?", metavar="JOB", help=f"this one alone, in more words: {JOB_HELP}"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Ask the broker and print a table."""

    async def jobs(client: Client) -> int:
        if args.job is not None:
            return await _one(client, args.job, as_json=args.json)
        found = await client.jobs()
        print(_as_json(found) if args.json else _as_table(found, time.time()))
        return Exit.DONE

    return with_client(args, jobs)


async def _one(client: Client, job: str, *, as_json: bool) -> int:
    found = await client.status(job)
    if found is None:
        raise CommandError(
            Exit.FAILED, f"the broker remembers no job {job}; see lender jobs, or lender why {job}"
        )
    print(_as_json((found,)) if as_json else _in_words(found))
    return Exit.DONE


def _in_words(job: JobStatus) -> str:
    ended = job.tasks_succeeded + job.tasks_failed
    waiting = job.tasks_total - ended - job.tasks_running
    counts = f"{job.tasks_succeeded} succeeded, {job.tasks_failed} failed"
    lines = [
        f"{job.job}  {job.state}  {printable(job.name)}".rstrip(),
        f"  tasks      {job.tasks_total}: {counts}, {job.tasks_running} run, {waiting} wait",
    ]
    if job.failed_tasks:
        lines.append(f"  failed     {_ranges(job)}  [lender retry {job.job}]")
    if job.why:
        lines.append(f"  why        {printable(job.why)}")
    return "\n".join(lines)


def _ranges(job: JobStatus) -> str:
    """Say which tasks have failed, as `--array` takes them."""
    named = sum(count for _, count in job.failed_tasks)
    text = ",".join(
        str(first) if count == 1 else f"{first}-{first + count - 1}"
        for first, count in job.failed_tasks
    )
    more = job.tasks_failed - named
    return f"{text} and {more} more" if more > 0 else text


def _as_json(jobs: tuple[JobStatus, ...]) -> str:
    return json.dumps({"schema": "lender.jobs/1", "jobs": [job.model_dump() for job in jobs]})


def _as_table(jobs: tuple[JobStatus, ...], now: float) -> str:
    if not jobs:
        return "no jobs; submit one with `lender submit -- CMD`"
    rows = [("JOB", "STATE", "TASKS", "AGE", "NAME", "")]
    for job in jobs:
        done = job.tasks_succeeded + job.tasks_failed
        tasks = f"{done}/{job.tasks_total}"
        if job.tasks_failed:
            tasks += f" ({job.tasks_failed} failed)"
        age, name, why = _age(now - job.submitted_at), printable(job.name), printable(job.why)
        rows.append((job.job, job.state, tasks, age, name, why))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _age(seconds: float) -> str:
    for unit, length_s in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length_s:
            return f"{seconds / length_s:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"
