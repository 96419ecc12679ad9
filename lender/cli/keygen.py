"""Make a submitter's key.

The key is an nkey seed (Ed25519) in a file that only you can read. It signs your jobs and is how
the server knows you; nobody else ever needs it. An existing file is never overwritten.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from lender.cli.connection_options import add_key_option
from lender.cli.exits import CommandError, Exit
from lender.client.errors import KeyFault
from lender.client.keys import ENTROPY_BYTES, create_key, default_key_path, read_key

EXAMPLES = """\
  lender keygen
  lender keygen --key ./ci.nk"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_key_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Make the key and say what comes next."""
    try:
        path = args.key or default_key_path(os.environ)
    except KeyFault as error:
        raise CommandError(Exit.FAILED, str(error)) from error
    try:
        public_key = create_key(path, os.urandom(ENTROPY_BYTES)).public_key
    except KeyFault as error:
        raise CommandError(Exit.FAILED, f"{error}{_public_half(path)}") from error
    if args.json:
        fields = {"schema": "lender.key/1", "public_key": public_key, "file": str(path)}
        print(json.dumps(fields))
    else:
        print(public_key)
        _say_next_steps(path, public_key)
    return Exit.DONE


def _public_half(path: Path) -> str:
    """Say which key stands there already: nothing else shows it."""
    try:
        return f"\nits public key: {read_key(path).public_key}"
    except KeyFault:
        return ""


def _say_next_steps(path: os.PathLike[str], public_key: str) -> None:
    print(
        f"""\
Your key is in {path}; above is its public half, which you may show to anyone.
Before your jobs run, two people must agree:
  the operator:          lender-broker allow NAME {public_key}
  an owner of a machine: lender grant {public_key} --workload command --expires 30d""",
        file=sys.stderr,
    )
