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

from pydantic import ValidationError

from lender.cli.connect import add_connection_options, with_client
from lender.cli.delivery import ArrayDelivery
from lender.cli.exits import CommandError, Exit
from lender.cli.job_options import add_job_options, job_request
from lender.cli.progress import Progress
from lender.cli.strangers_words import add_raw_option
from lender.cli.waiting import attended
from lender.client import Array, Client

EXAMPLES = """\
  lender map --array 0-999 -- sh -c 'echo task {task} on $(uname -m)'
  lender map --array 17,40-42 -- sh -c 'echo task {task} on $(uname -m)'
  lender map --array 0-63 --wasm render.wasm --into tiles -- 640 480 8 8
  lender map --array 0-7 --gang -- sh -c 'echo {task} of $LENDER_TASK_COUNT'"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_connection_options(parser)
    parser.add_argument(
        "--array",
        required=True,
        type=indices,
        metavar="0-N",
        help="the tasks' indices; also some of them, such as 3,7-9",
    )
    parser.add_argument(
        "--gang", action="store_true", help="all tasks at the same time or none; at most 256"
    )
    parser.add_argument("--into", type=Path, metavar="DIR", help="folder for values and outputs")
    parser.add_argument("--no-wait", action="store_true", help="print the job's id and leave")
    parser.add_argument("--json", action="store_true", help="print a JSON line per task")
    add_raw_option(parser)
    add_job_options(parser)


def indices(text: str) -> Array:
    """Read `0-999` as 1000 tasks, and `3,7-9` as four of those that 10 would be."""
    spans: list[tuple[int, int]] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part)
        alone = part == text and "-" not in part  # as likely meant as their number
        if match is None or alone or int(match[2] or match[1]) < int(match[1]):
            raise argparse.ArgumentTypeError(
                f"{text!r} are no indices; write 0-999 for 1000 tasks, 3,7-9 for some"
            )
        spans.append((int(match[1]), int(match[2] or match[1])))
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    tasks = tuple((first, last - first + 1) for first, last in merged)
    try:
        count = merged[-1][1] + 1
        return Array(count=count, tasks=() if tasks == ((0, count),) else tasks)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise argparse.ArgumentTypeError(f"{text!r}: {fault['msg']}") from error


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
        progress = Progress(job.spec.task_count, sys.stderr)
        delivery = ArrayDelivery(job, args.into, progress, as_json=args.json, raw=args.raw)
        return await attended(client, job, delivery.run())

    return with_client(args, submit)
