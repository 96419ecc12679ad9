"""Run an array of tasks: one command or module, many indices, or a list of arguments.

`{task}` in an argument becomes the index of the task; the task also finds it in LENDER_TASK.
Values come to standard output in the order of the tasks, or, with --into DIR, each into DIR/TASK
and its output files into DIR/TASK.out/. Progress goes to standard error.

With --each FILE there is a task for each line of FILE (- is standard input), with the line as one
more argument behind all others, as it is: spaces, quotes and $ mean nothing. To run lines as
commands say `-- sh -c`. Empty lines are left out and not counted; the first that is left is task 0.
`{task}` in a line is replaced as anywhere. Files that lines name are sent by --in alone. A job
takes 1000 lines and 128 KiB of them; a longer list is an input, of which each task reads its line.

Options belong before `--`; see `lender submit --help` for --in and --out behind the command.
`lender logs -f JOB` shows what the tasks write to standard error. On a terminal control characters
in what they wrote are shown as escapes; --raw leaves them as they are.
With --gang all tasks run at the same time, on as many machines as it takes, or none does: whenever
one of them loses its machine, or fails and is tried again, all begin anew together.
Ctrl-C says how to get the results later, and leaves; pressed twice, it cancels the job.
"""

import argparse

from lender.cli.array_indices import indices
from lender.cli.connection_options import add_connection_options
from lender.cli.each_line import add_each_option
from lender.cli.job_options import add_job_options, job_request
from lender.cli.submitting import add_delivery_options, submitted

EXAMPLES = """\
  lender map --array 0-999 -- sh -c 'echo task {task} on $(uname -m)'
  lender map --array 17,40-42 -- sh -c 'echo task {task} on $(uname -m)'
  lender map --array 0-63 --wasm render.wasm --into tiles -- 640 480 8 8
  seq 10 | lender map --each - -- factor
  lender map --each commands.txt -- sh -c
  lender map --array 0-99999 -- sh -c 'tool "$(sed -n "$((1+{task}))p" list)"' --in list
  lender map --array 0-7 --gang -- sh -c 'echo {task} of $LENDER_TASK_COUNT'"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_connection_options(parser)
    many = parser.add_mutually_exclusive_group(required=True)
    many.add_argument(
        "--array",
        type=indices,
        metavar="0-N",
        help="the tasks' indices; also some of them, such as 3,7-9",
    )
    add_each_option(many)
    parser.add_argument(
        "--gang", action="store_true", help="all tasks at the same time or none; at most 256"
    )
    add_delivery_options(parser)
    add_job_options(parser)


def run(args: argparse.Namespace) -> int:
    """Submit, follow, deliver."""
    return submitted(args, job_request(args, array=args.array or args.each, gang=args.gang))
