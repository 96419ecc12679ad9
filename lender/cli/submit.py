"""Run a command, or a WebAssembly module, on somebody's machine.

Waits for the result: what the task wrote to standard output comes out here byte for byte, the
end of its standard error on standard error, its output files in this folder (or --into DIR),
and this command ends with the task's exit code (1 if it failed without one). With --follow its
standard error comes while it runs; see `lender logs --help`.

On a terminal control characters in what the task wrote are shown as escapes, so that no task can
steer it; --raw leaves them as they are.

With --each FILE there is a task for each line of FILE, with the line as one more argument behind
the command, as it is: no shell splits it. Empty lines are left out. See `lender map --help`.

A workload that has its program (lender workloads) brings it, with limits and outputs that count
where none are said here; what stands behind `--` are its arguments.

Options belong before `--`. For convenience `--in FILE` and `--out FILE` at the very end of the
command are taken as ours too, if every such FILE also stands in the command before them, and no
--in or --out was given before `--`. A note says so.

Ctrl-C says how to get the result later, and leaves; pressed twice, it cancels the job.
"""

import argparse

from lender.cli.array_indices import indices
from lender.cli.connection_options import add_connection_options
from lender.cli.each_line import add_each_option
from lender.cli.job_options import add_job_options, job_request
from lender.cli.submitting import add_delivery_options, submitted

EXAMPLES = """\
  lender submit -- sha256sum file.bin --in file.bin
  lender submit --in data.csv --out plot.png --mem 2G -- python3 plot.py data.csv
  lender submit --workload checksum --in file.bin -- file.bin     (see lender workloads)
  lender submit --wasm checksum.wasm --in file.bin -- file.bin
  lender submit --follow -- make test
  lender submit --trust lab.keys --seal --in patients.csv -- ./fit patients.csv
  lender submit --each seeds.txt -- ./simulate --seed      (a task for each line of seeds.txt)
  find . -name '*.c' | lender submit --each - --in src.tar -- sh -c 'tar xf src.tar; lint "$1"' sh
  lender submit --no-wait --name nightly -- make test
  lender submit --verify 3/2 -- ./simulate       (three machines run it, two have to agree)
  lender submit --after JOB --queue-time 10m -- make report     (JOB:end for any end of it)"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_connection_options(parser)
    many = parser.add_mutually_exclusive_group()
    many.add_argument(
        "--array", type=indices, metavar="0-N", help="many tasks; see `lender map --help`"
    )
    add_each_option(many)
    add_delivery_options(parser)
    add_job_options(parser)


def run(args: argparse.Namespace) -> int:
    """Submit, wait, deliver."""
    return submitted(args, job_request(args, array=args.array or args.each))
