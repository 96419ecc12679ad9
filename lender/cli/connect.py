"""What the submitter's verbs share: which server, which key, and errors as exit codes."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from lender.cli.exits import CommandError, Exit
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


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Add --url, --creds and --key."""
    parser.add_argument(
        "--url", help="NATS server; default $LENDER_URL, else nats://127.0.0.1:4222"
    )
    parser.add_argument(
        "--creds",
        type=Path,
        metavar="FILE",
        help="what the server lets you in by, where that is not your key; default $LENDER_CREDS",
    )
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        help="certificates of who may vouch for the server, for TLS; default $LENDER_CA",
    )
    parser.add_argument(
        "--trust",
        type=Path,
        metavar="FILE",
        help="results of the lenders in it alone count, a public key a line; default $LENDER_TRUST",
    )
    add_key_option(parser)


def add_key_option(parser: argparse.ArgumentParser) -> None:
    """Add --key."""
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="your key; default $LENDER_KEY, else ~/.config/lender/submitter.nk",
    )


def with_client(args: argparse.Namespace, work: Callable[[Client], Awaitable[int]]) -> int:
    """Run `work` with a connected client; returns its exit code.

    Raises:
        CommandError: what went wrong, with the mend.
    """

    async def connected() -> int:
        trusted = read_trusted(args.trust) if args.trust else None
        async with Client(
            args.url, args.key, credentials=args.creds, ca=args.ca, trusted_lenders=trusted
        ) as client:
            return await work(client)

    try:
        return asyncio.run(connected())
    except LeftBehind:
        return INTERRUPTED
    except ClientError as error:
        raise CommandError(_CODES.get(type(error), Exit.FAILED), visible(str(error))) from error
