"""Run a command, or a WebAssembly module, on somebody's machine.

Waits for the result: what the task wrote to standard output comes out here byte for byte, the
end of its standard error on standard error, its output files in this folder (or --into DIR),
and this command ends with the task's exit code (1 if it failed without one). With --follow its
standard error comes while it runs; see `lender follow --help`.

On a terminal control characters in what the task wrote are shown as escapes, so that no task can
steer it; --raw leaves them as they are.

Options belong before `--`. For convenience `--in FILE` and `--out FILE` at the very end of the
command are taken as ours too, if every such FILE also stands in the command before them, and no
--in or --out was given before `--`. A note says so.

Ctrl-C says how to get the result later, and leaves; pressed twice, it cancels the job.
"""

import argparse
import sys
from pathlib import Path

from lender.cli.connect import add_connection_options, with_client
from lender.cli.delivery import deliver_task
from lender.cli.exits import Exit
from lender.cli.job_options import add_job_options, job_request
from lender.cli.log_printing import LogPrinter, followed
from lender.cli.strangers_words import Output, add_raw_option
from lender.cli.waiting import attended
from lender.client import Client

EXAMPLES = """\
  lender submit -- sha256sum file.bin --in file.bin
  lender submit --in data.csv --out plot.png --mem 2G -- python3 plot.py data.csv
  lender submit --wasm checksum.wasm --in file.bin -- file.bin
  lender submit --follow -- make test
  lender submit --trust lab.keys --seal --in patients.csv -- ./fit patients.csv
  lender submit --no-wait --name nightly -- make test
  lender submit --verify 3/2 -- ./simulate       (three machines run it, two have to agree)
  lender submit --after JOB --queue-time 10m -- make report     (JOB:end for any end of it)"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_connection_options(parser)
    parser.add_argument(
        "--into", type=Path, default=Path(), metavar="DIR", help="where output files go"
    )
    parser.add_argument("--no-wait", action="store_true", help="print the job's id and leave")
    parser.add_argument(
        "--follow", action="store_true", help="show the task's standard error while it runs"
    )
    add_raw_option(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_job_options(parser)


def run(args: argparse.Namespace) -> int:
    """Submit, wait, deliver."""
    request = job_request(args)

    async def submit(client: Client) -> int:
        job = await client.submit_request(request)
        if args.no_wait:
            print(job.id)
            return Exit.DONE
        if not args.follow:
            terminal = await attended(client, job, job.ended())
            return await deliver_task(job, terminal, args.into, as_json=args.json, raw=args.raw)
        printer = LogPrinter(Output(sys.stderr, raw=args.raw), with_tasks=False)
        terminal = await attended(client, job, followed(job, printer))
        return await deliver_task(
            job, terminal, args.into, as_json=args.json, raw=args.raw, with_stderr=False
        )

    return with_client(args, submit)
