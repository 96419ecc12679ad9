"""End a job: what runs is stopped, what waits never starts, what is done stays done.

Of an array JOB-17 ends its task 17 alone, which counts as failed; the others go on.
"""

import argparse
import json

from lender.cli.connect import with_client
from lender.cli.connection_options import add_connection_options
from lender.cli.exits import CommandError, Exit
from lender.cli.job_names import JOB_HELP
from lender.client import Client

EXAMPLES = """\
  lender cancel 01JD8Z0W3V6Y9QK2M4T7RXA5BC
  lender cancel 01JD8Z0W3V6Y9QK2M4T7RXA5BC-17"""

_CONFIRMED_WITHIN_S = 10.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_connection_options(parser)
    parser.add_argument("job", metavar="JOB", help=JOB_HELP)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Ask for the end and wait for the broker's word."""

    async def cancel(client: Client) -> int:
        job = await client.get(args.job)
        await job.cancel()
        try:
            terminal = await job.ended(_CONFIRMED_WITHIN_S)
        except TimeoutError:
            raise CommandError(
                Exit.PARTIAL,
                f"the cancellation of {job.id} is stored, but no broker has confirmed it yet; "
                "it will when it runs: see lender jobs",
            ) from None
        if args.json:
            fields = {"job": job.id, "state": terminal.state}
            print(json.dumps({"schema": "lender.cancel/1", **fields}))
        elif terminal.state == "cancelled":
            print(f"cancelled {job.id}")
        if terminal.state == "cancelled":
            return Exit.DONE
        raise CommandError(Exit.FAILED, f"job {job.id} had ended before: {terminal.state}")

    return with_client(args, cancel)
