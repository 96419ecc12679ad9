"""What the submitter's verbs share: a connected client, and errors as exit codes."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable

from lender.cli.exits import CommandError, Exit
from lender.cli.transfers import Transfers
from lender.client import Client, ClientError, NotAdmitted, Unreachable
from lender.client.keys import read_trusted
from lender.protocol.strangers_text import visible

INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""

_CODES: dict[type[ClientError], Exit] = {
    NotAdmitted: Exit.NOT_PERMITTED,
    Unreachable: Exit.UNREACHABLE,
}


class LeftBehind(Exception):  # noqa: N818 - nothing went wrong: the person left, the job goes on
    """The person has stopped waiting."""


def with_client(args: argparse.Namespace, work: Callable[[Client], Awaitable[int]]) -> int:
    """Run `work` with a connected client; returns its exit code.

    Raises:
        CommandError: what went wrong, with the mend.
    """

    async def connected() -> int:
        trusted = read_trusted(args.trust) if args.trust else None
        transfers = Transfers(sys.stderr) if _tells_of_transfers(args) else None
        try:
            async with Client(
                args.url,
                args.key,
                credentials=args.creds,
                ca=args.ca,
                trusted_lenders=trusted,
                on_transfer=transfers.take if transfers else None,
            ) as client:
                return await work(client)
        finally:
            if transfers is not None:
                transfers.close()

    try:
        return asyncio.run(connected())
    except LeftBehind:
        return INTERRUPTED
    except ClientError as error:
        raise CommandError(_CODES.get(type(error), Exit.FAILED), visible(str(error))) from error


def _tells_of_transfers(args: argparse.Namespace) -> bool:
    """Whoever reads JSON in a pipe may read both streams as one."""
    if getattr(args, "quiet", False):
        return False
    return sys.stderr.isatty() or not getattr(args, "json", False)
