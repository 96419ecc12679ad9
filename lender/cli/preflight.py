"""Look before you join a fleet: read-only, with a mend for each fault.

Is the server there, who vouches for it, do the clocks agree, what would it let you do, do the
sandboxes hold here, does what is pinned match what is met. Nothing is written, and no stream and
no broker hears of it: only the server itself is asked. With --overlay also: is the revision that
an owner's overlay pins the one that is installed and runs. Exits with 1 where something blocks.
`lender doctor` looks after a machine that lends already.
"""

import argparse
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from lender.cli.checks.check import Check
from lender.cli.checks.joining import Overlay, examine
from lender.cli.checks.places import places_of, wants_tls
from lender.cli.checks.running import show
from lender.cli.checks.server import Visit
from lender.cli.exits import CommandError, Exit
from lender.cli.owner import add_options, become_owner, find_state, is_owner, print_json, tell
from lender.client.errors import KeyFault
from lender.client.keys import default_key_path, named_path
from lender.daemon.settings import DaemonSettings
from lender.link.credentials import CredentialsError, trusting, without_credentials
from lender.link.membership import Membership, submitters_folder
from lender.link.way_in import read_way_in
from lender.protocol.permissions import Role
from lender.service.settings import SettingsError, find_file, load
from lender.state.folder import StateFolder

EXAMPLES = """\
  lender preflight nats://nats.lab:4222 --ca ca.pem     before `lender enroll`
  lender preflight                                      where lenderd was enrolled, or is to go
  lender preflight --role submitter --creds alice.creds --json
  lender preflight --overlay ~/machines --pins-only     does this machine run what that pins"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "url",
        nargs="?",
        metavar="URL",
        help="of the fleet's NATS server; default $LENDER_URL, else as lenderd has it",
    )
    parser.add_argument(
        "--creds",
        type=Path,
        metavar="FILE",
        help="what the server lets you in by; default $LENDER_CREDS, else as lenderd has it",
    )
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        help="certificates of who may vouch for it; default $LENDER_CA, else as lenderd has it",
    )
    roles = [role for role in get_args(Role) if role not in ("broker", "stranger")]
    parser.add_argument(
        "--role", choices=roles, help="whose rights you should have; default: as the server says"
    )
    parser.add_argument(
        "--overlay",
        type=Path,
        metavar="DIR",
        help="flake whose flake.lock says which revision of lender belongs here",
    )
    parser.add_argument(
        "--overlay-input",
        default="lender",
        metavar="NAME",
        help="what it calls its input (lender)",
    )
    parser.add_argument(
        "--pins-only", action="store_true", help="only what is pinned; no server is asked"
    )
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the checks and print them."""
    state = find_state(args, as_guest=True)
    told = tell(state, "status")
    own = state.path.exists() and is_owner(state)
    visit = _visit(args, state if own else None)
    if own:
        become_owner(state)
    overlay = Overlay(args.overlay.absolute(), args.overlay_input) if args.overlay else None
    checks = examine(visit, state, told, own=own, pinned_by=overlay, pins_only=args.pins_only)
    levels = Counter(check.level for check in checks)
    blockers, warnings = levels["blocker"], levels["warning"]
    if args.json:
        servers = [str(place) for place in visit.places]
        fields = {"servers": servers, "blockers": blockers, "warnings": warnings}
        print_json("preflight", {**fields, "checks": [asdict(check) for check in checks]})
    else:
        show(checks, f"{_mark(checks)} blockers {blockers}, warnings {warnings}")
    return Exit.FAILED if blockers else Exit.DONE


def _mark(checks: list[Check]) -> str:
    levels = {check.level for check in checks}
    return "✗" if "blocker" in levels else "!" if "warning" in levels else "✓"


def _visit(args: argparse.Namespace, state: StateFolder | None) -> Visit:
    """Which server is meant, and as whom: as said, else as `lender` and lenderd would have it.

    Args:
        args: what was said.
        state: of a lender of ours, if there is one.

    Raises:
        CommandError: an address or a file that can't be used.
    """
    try:
        enrolled = _enrolled(args.role, state)
        settings = load(DaemonSettings, _lenderds_file(), {}).joined(enrolled)
        url = args.url or os.environ.get("LENDER_URL") or settings.url
        if enrolled is not None and url != enrolled.url:
            enrolled = None  # what lets us in there is nothing to another fleet
        known = settings if enrolled is None else enrolled
        creds = args.creds or named_path(os.environ, "LENDER_CREDS") or known.credentials
        ca = args.ca or named_path(os.environ, "LENDER_CA") or known.ca
        way_in = read_way_in(creds) if creds else None
        if ca is not None:
            trusting(ca)  # it can be used
        places = places_of(url)
    except (SettingsError, ValueError) as error:
        raise CommandError(Exit.USAGE, without_credentials(str(error))) from error
    except CredentialsError as error:
        raise CommandError(Exit.FAILED, str(error)) from error
    return Visit(places, ca, wants_tls(url), way_in, creds, args.role)


def _enrolled(role: Role | None, state: StateFolder | None) -> Membership | None:
    """What `lender enroll` has left: of the machine, or of the submitter."""
    if role == "submitter":
        try:
            return Membership.read(submitters_folder(default_key_path(os.environ)))
        except KeyFault:
            return None
    return None if state is None else Membership.read(state.membership)


def _lenderds_file() -> Path | None:
    try:
        return find_file(None, "lenderd.toml")
    except OSError:
        return None  # another's, who keeps it to himself
