"""List your jobs, newest first, and what each waiting one waits for."""

import argparse
import json
import time

from lender.cli.connect import add_connection_options, with_client
from lender.cli.exits import Exit
from lender.cli.words import printable
from lender.client import Client, JobStatus

EXAMPLES = """\
  lender jobs
  lender jobs --json | jq -r '.jobs[] | select(.state == "failed") | .job'"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_connection_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Ask the broker and print a table."""

    async def jobs(client: Client) -> int:
        found = await client.jobs()
        print(_as_json(found) if args.json else _as_table(found, time.time()))
        return Exit.DONE

    return with_client(args, jobs)


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
