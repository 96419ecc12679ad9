"""Run a job that is written down, or a WebAssembly module.

A job file is TOML. Its keys are the options of `lender submit`, without dashes, in tables:

  command = ["python3", "plot.py", "{task}"]   # or wasm = "plot.wasm", with command as arguments
  array = "0-99"                               # left out: one task; or, instead of indices,
  each = ["a", "b", ["-v", "c"]]               #   what each task is called with, behind command
  inputs = ["plot.py", "data.csv"]             # beside this file; or a table: name = "file"
  outputs = ["plot.png"]
  env = { MODE = "fast" }

  [limits]
  cpu = 2
  mem = "2G"            # timeout, prepare_time, output, scratch, processes
  [machine]
  labels = ["ssd"]      # pool, os, arch, gpu, vram, prefers, net
  [when]
  deadline = "2h"       # priority, delay, after, queue_time, expect

and name, workload, gang, retries, verify, checkpoint, seal at the top. With a workload that has its
program (lender workloads) command is its arguments. `lender validate` says what is wrong with one,
without sending anything. What becomes of the results, and Ctrl-C, are as for `lender submit` and,
where there is an array, `lender map`.
"""

import argparse
from pathlib import Path

from lender.cli.catalogue_choice import chosen
from lender.cli.connection_options import add_connection_options
from lender.cli.exits import CommandError, Exit
from lender.cli.job_file import read_job_file
from lender.cli.job_options import add_job_options, job_request
from lender.cli.submitting import add_delivery_options, submitted
from lender.client import JobRequest

EXAMPLES = """\
  lender run plot.toml --into plots
  lender run --wasm checksum.wasm --in file.bin -- file.bin"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_connection_options(parser)
    add_delivery_options(parser)
    add_job_options(parser)


def run(args: argparse.Namespace) -> int:
    """Submit, wait, deliver."""
    return submitted(args, _request(args))


def _request(args: argparse.Namespace) -> JobRequest:
    if args.wasm is not None:
        return job_request(args)
    bare = argparse.ArgumentParser()
    add_job_options(bare)
    said = [
        name
        for name, unless_said in vars(bare.parse_args([])).items()
        if name not in {"command", "catalogue"} and getattr(args, name) != unless_said
    ]
    if len(args.command) != 1:
        raise CommandError(
            Exit.USAGE,
            "name one job file, or a module by --wasm; for a command: lender submit -- CMD",
        )
    if said:
        raise CommandError(Exit.USAGE, f"what a job file describes is said in it: {said[0]}")
    return read_job_file(Path(args.command[0]), chosen(args.catalogue))
