"""Fetch a job's result and files.

A single task's value comes to standard output and its files into DIR (default: this folder). Of
an array, DIR receives each value as DIR/TASK and files as DIR/TASK.out/; without DIR the values
come to standard output in the order of the tasks. Ends with the task's exit code. One task of an
array, JOB-17, comes as the result of a single task does.

On a terminal control characters in what tasks wrote are shown as escapes, so that none can steer
it; --raw leaves them as they are.
"""

import argparse
import sys
from pathlib import Path

from lender.cli.connect import with_client
from lender.cli.connection_options import add_connection_options, add_quiet_option
from lender.cli.delivery import deliver_task
from lender.cli.exits import CommandError, Exit
from lender.cli.job_names import JOB_HELP
from lender.cli.strangers_words import add_raw_option
from lender.cli.submitting import deliver_array
from lender.cli.waiting import attended
from lender.client import Client
from lender.client.one_of_many import OneOfMany

EXAMPLES = """\
  lender get 01JD8Z0W3V6Y9QK2M4T7RXA5BC
  lender get 01JD8Z0W3V6Y9QK2M4T7RXA5BC-17
  lender get --wait 01JD8Z0W3V6Y9QK2M4T7RXA5BC results/"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_connection_options(parser)
    parser.add_argument("job", metavar="JOB", help=JOB_HELP)
    parser.add_argument("into", nargs="?", type=Path, metavar="DIR", help="folder for files")
    parser.add_argument("--wait", action="store_true", help="wait until the job has ended")
    add_raw_option(parser)
    add_quiet_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Fetch, or say that there is nothing to fetch yet."""

    async def get(client: Client) -> int:
        job = await client.get(args.job)
        terminal = await job.terminal()
        if terminal is None and not args.wait:
            why = await client.why(job)
            raise CommandError(
                Exit.FAILED, f"job {job.id} has not ended ({why}); --wait waits for it"
            )
        if job.spec.array is None or isinstance(job, OneOfMany):
            if terminal is None:
                terminal = await attended(client, job, job.ended(), explains=not args.quiet)
            folder = args.into or Path()
            return await deliver_task(job, terminal, folder, as_json=args.json, raw=args.raw)
        if job.spec.outputs and args.into is None:
            print("lender: name a folder to get the output files as well", file=sys.stderr)
        return await deliver_array(client, job, args)

    return with_client(args, get)
