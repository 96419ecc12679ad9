"""Run what failed of a job once more: its tasks that did not succeed become a new job.

The new job is as the old one was, its files included; of an array it has the same indices, and only
those that failed (or, of a job that was cancelled or expired, that have no result). A gang runs
anew as a whole, since its tasks need each other. Prints its id: `lender get --wait` fetches its
results.
"""

import argparse
import json
import sys

from lender.cli.connect import with_client
from lender.cli.connection_options import add_connection_options
from lender.cli.exits import CommandError, Exit
from lender.cli.job_names import JOB_HELP
from lender.client import Client

EXAMPLES = """\
  lender retry 01JD8Z0W3V6Y9QK2M4T7RXA5BC
  lender get --wait $(lender retry 01JD8Z0W3V6Y9QK2M4T7RXA5BC) tiles"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_connection_options(parser)
    parser.add_argument("job", metavar="JOB", help=JOB_HELP)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Submit the new job and print its id."""

    async def retry(client: Client) -> int:
        job = await client.get(args.job)
        if await job.terminal() is None:
            raise CommandError(Exit.FAILED, f"job {job.id} has not ended; see lender jobs {job.id}")
        again = await client.retry(job)
        count = again.spec.task_count
        tasks = "1 task" if count == 1 else f"{count} tasks"
        if again.spec.gang:
            tasks = f"all {tasks}" if count > 1 else tasks
        print(f"lender: {tasks} of {job.id} once more", file=sys.stderr)
        fields = {"schema": "lender.job/1", "job": again.id, "retries": job.id}
        print(json.dumps(fields) if args.json else again.id)
        return Exit.DONE

    return with_client(args, retry)
