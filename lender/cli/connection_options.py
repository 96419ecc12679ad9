"""Which server, and as whom: options of every verb that asks a fleet. Standard library only."""

import argparse
from pathlib import Path


def add_connection_options(parser: argparse._ActionsContainer) -> None:
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


def add_key_option(parser: argparse._ActionsContainer) -> None:
    """Add --key."""
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="your key; default $LENDER_KEY, else ~/.config/lender/submitter.nk",
    )


def add_quiet_option(parser: argparse._ActionsContainer) -> None:
    """Add --quiet."""
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="don't tell how far files and tasks have come, nor what a job waits for",
    )
