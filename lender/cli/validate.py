"""Say whether a job file describes a job, without sending anything.

A fault names file, line and key. See `lender run --help` for the keys. Exits with 2 for a fault.
"""

import argparse
from pathlib import Path

from lender.cli.catalogue_choice import add_catalogue_option, chosen
from lender.cli.exits import Exit
from lender.cli.job_file import read_job_file
from lender.client import Array
from lender.protocol.strangers_text import visible

EXAMPLES = """\
  lender validate plot.toml && lender run plot.toml"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the job file")
    add_catalogue_option(parser)


def run(args: argparse.Namespace) -> int:
    """Read it, and say what it describes."""
    request = read_job_file(args.file, chosen(args.catalogue))
    array = request.array if isinstance(request.array, Array) else Array(count=1)
    count = array.count
    program = [] if request.wasm is None else [request.workload or str(request.wasm)]
    each = [*array.each[0], "…"] if array.each else []
    what = visible(" ".join([*program, *request.argv, *each]))
    print(f"{args.file}: {count} task{'s' * (count != 1)} of {what}")
    return Exit.DONE
