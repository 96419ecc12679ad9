"""See what a job's tasks wrote to standard error; of a Python function also what it printed.

It comes to standard output, each line with its task where there are several. Without -f it is the
last 8 KiB of each task that has ended by now.

With -f it comes while they run, and ends with the job, or with --task N's end. That is bounded:
64 KiB of a task at once, then 16 KiB a second, and 128 KiB a second of all tasks of its machine. A
line says how much was left out. Who comes late sees what nobody has read yet, up to 128 KiB. What
else was missed is in the result if it is among the last 8 KiB of the task: these come here too,
once the task has ended.

On a terminal control characters are shown as escapes, so that no task can steer it; --raw leaves
them as they are. In a pipe they always are.
"""

import argparse
import sys

from lender.cli.connect import with_client
from lender.cli.connection_options import add_connection_options
from lender.cli.exits import CommandError, Exit
from lender.cli.job_names import JOB_HELP
from lender.cli.log_printing import LogPrinter, piece_as_json, print_log
from lender.cli.strangers_words import Output, add_raw_option
from lender.client import Client

EXAMPLES = """\
  lender logs 01JD8Z0W3V6Y9QK2M4T7RXA5BC
  lender logs -f --task 17 01JD8Z0W3V6Y9QK2M4T7RXA5BC | grep -i warning
  lender logs -f --json 01JD8Z0W3V6Y9QK2M4T7RXA5BC | jq -r .text"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_connection_options(parser)
    parser.add_argument("job", metavar="JOB", help=JOB_HELP)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job has ended")
    parser.add_argument("--task", type=int, metavar="N", help="this task alone, of an array")
    add_raw_option(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON line per piece")


def run(args: argparse.Namespace) -> int:
    """Print the log."""

    async def logs(client: Client) -> int:
        job = await client.get(args.job)
        if args.task is not None and not 0 <= args.task < job.spec.task_end:
            last = job.spec.task_end - 1
            raise CommandError(Exit.USAGE, f"job {job.id} has the tasks 0 to {last}")
        pieces = job.log(args.task) if args.follow else job.log_so_far(args.task)
        if args.json:
            async for piece in pieces:
                print(piece_as_json(job, piece), flush=True)
            return Exit.DONE
        with_tasks = job.spec.task_count > 1 and args.task is None
        printer = LogPrinter(Output(sys.stdout, raw=args.raw), with_tasks=with_tasks)
        await print_log(pieces, printer)
        return Exit.DONE

    return with_client(args, logs)
