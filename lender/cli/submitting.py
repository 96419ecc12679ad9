"""Submitting a job and, unless told otherwise, staying until its results are here."""

import argparse
import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from lender.cli.connect import with_client
from lender.cli.connection_options import add_quiet_option
from lender.cli.delivery import ArrayDelivery, deliver_task
from lender.cli.exits import CommandError, Exit
from lender.cli.job_options import fault_of
from lender.cli.log_printing import LogPrinter, followed
from lender.cli.progress import Progress
from lender.cli.strangers_words import Output, add_raw_option
from lender.cli.waiting import attended
from lender.client import Client, Job, JobRequest, Rejected
from lender.protocol.trace import TRACEPARENT_VARIABLE, is_traceparent

_LEFT_EARLY = (
    "interrupted before the job was accepted; what has been sent of its files by now is not sent "
    "again with the same command"
)


def add_delivery_options(parser: argparse.ArgumentParser) -> None:
    """Add what becomes of the results."""
    parser.add_argument(
        "--into",
        type=Path,
        metavar="DIR",
        help="where output files go, and the values of an array; unless said, output files come"
        " into this folder, and an array's values to standard output",
    )
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="stay until it has ended, and end with its exit code (that is the default); --no-wait"
        " prints the job's id and leaves",
    )
    parser.add_argument(
        "--follow", action="store_true", help="show a task's standard error while it runs"
    )
    add_raw_option(parser)
    add_quiet_option(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON; of an array a line per task"
    )


def submitted(args: argparse.Namespace, request: JobRequest) -> int:
    """Submit, wait, deliver; returns the exit code.

    Raises:
        CommandError: the options don't go together.
    """
    is_array = request.array is not None
    if is_array and args.follow:
        raise CommandError(Exit.USAGE, "an array is followed by its id: `lender logs -f JOB`")
    if is_array and request.outputs and args.into is None and args.wait:
        raise CommandError(Exit.USAGE, "an array's output files need a folder: --into DIR")

    traced = replace(request, traceparent=_traceparent())

    async def submit(client: Client) -> int:
        try:
            job = await client.submit_request(traced)
        except Rejected as error:
            raise fault_of(error) from error
        except asyncio.CancelledError:
            print(f"\nlender: {_LEFT_EARLY}", file=sys.stderr)
            raise
        if not args.wait:
            print(json.dumps({"schema": "lender.job/1", "job": job.id}) if args.json else job.id)
            return Exit.DONE
        return await (deliver_array(client, job, args) if is_array else _task(client, job, args))

    return with_client(args, submit)


def _traceparent() -> str | None:
    """The span that this command is part of; what is none is passed over, as W3C has it."""
    found = os.environ.get(TRACEPARENT_VARIABLE, "")
    return found if is_traceparent(found) else None


async def _task(client: Client, job: Job, args: argparse.Namespace) -> int:
    if args.follow:
        printer = LogPrinter(Output(sys.stderr, raw=args.raw), with_tasks=False)
        work = followed(job, printer)
    else:
        work = job.ended()
    terminal = await attended(client, job, work, explains=not args.quiet)
    return await deliver_task(
        job,
        terminal,
        args.into or Path(),
        as_json=args.json,
        raw=args.raw,
        with_stderr=not args.follow,
    )


async def deliver_array(client: Client, job: Job, args: argparse.Namespace) -> int:
    """Hand over an array's results as its tasks end, as the options have it."""
    client.on_transfer = None  # the bar counts tasks
    progress = Progress(job.spec.task_count, sys.stderr, quiet=args.quiet)
    delivery = ArrayDelivery(job, args.into, progress, as_json=args.json, raw=args.raw)
    return await attended(client, job, delivery.run(), explains=not args.quiet)
