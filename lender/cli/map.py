"""Run an array of tasks: one command or module, many indices.

`{task}` in an argument becomes the index of the task; the task also finds it in LENDER_TASK.
Values come to standard output in the order of the tasks, or, with --into DIR, each into DIR/TASK
and its output files into DIR/TASK.out/. Progress goes to standard error.

Options belong before `--`; see `lender submit --help` for --in and --out behind the command.
`lender follow JOB` shows what the tasks write to standard error. On a terminal control characters
in what they wrote are shown as escapes; --raw leaves them as they are.
With --gang all tasks run at the same time, on as many machines as it takes, or none does: whenever
one of them loses its machine, or fails and is tried again, all begin anew together.
Ctrl-C says how to get the results later, and leaves; pressed twice, it cancels the job.
"""

import argparse
import re
import sys
from pathlib import Path

from lender.cli.connect import add_connection_options, with_client
from lender.cli.delivery import ArrayDelivery
from lender.cli.exits import CommandError, Exit
from lender.cli.job_options import add_job_options, job_request
from lender.cli.progress import Progress
from lender.cli.strangers_words import add_raw_option
from lender.cli.waiting import attended
from lender.client import Client

EXAMPLES = """\
  lender map --array 0-999 -- sh -c 'echo task {task} on $(uname -m)'
  lender map --array 0-63 --wasm render.wasm --into tiles -- 640 480 8 8
  lender map --array 0-7 --gang -- sh -c 'echo {task} of $LENDER_TASK_COUNT'"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_connection_options(parser)
    parser.add_argument(
        "--array", required=True, type=task_count, metavar="0-N", help="the tasks' indices"
    )
    parser.add_argument(
        "--gang", action="store_true", help="all tasks at the same time or none; at most 256"
    )
    parser.add_argument("--into", type=Path, metavar="DIR", help="folder for values and outputs")
    parser.add_argument("--no-wait", action="store_true", help="print the job's id and leave")
    parser.add_argument("--json", action="store_true", help="print a JSON line per task")
    add_raw_option(parser)
    add_job_options(parser)


def task_count(text: str) -> int:
    """Read `0-999` as 1000 tasks."""
    match = re.fullmatch(r"(\d+)-(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no range; write 0-999 for 1000 tasks")
    if int(match[1]) != 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} does not start at 0, as arrays must for now; add the offset in the task"
        )
    return int(match[2]) + 1


def run(args: argparse.Namespace) -> int:
    """Submit, follow, deliver."""
    request = job_request(args, array=args.array, gang=args.gang)
    if request.outputs and args.into is None and not args.no_wait:
        raise CommandError(Exit.USAGE, "an array's output files need a folder: --into DIR")

    async def submit(client: Client) -> int:
        job = await client.submit_request(request)
        if args.no_wait:
            print(job.id)
            return Exit.DONE
        progress = Progress(args.array, sys.stderr)
        delivery = ArrayDelivery(job, args.into, progress, as_json=args.json, raw=args.raw)
        return await attended(client, job, delivery.run())

    return with_client(args, submit)
