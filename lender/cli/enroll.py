"""Have a fleet let this machine in, or you as a submitter.

Makes a key where there is none, shows a code and the key's fingerprint, and waits until the
operator approves them with `lender-broker approve CODE`. With a join token nobody need approve. The
private key never leaves this machine. What lets you in is kept where lenderd, or your own `lender`
commands, find it by themselves.
"""

import argparse
import asyncio
import getpass
import json
import os
import re
import socket
import sys
import time
from pathlib import Path

from lender.cli.applying import Applying, apply, vouched_alike
from lender.cli.exits import CommandError, Exit
from lender.cli.moments import span_s
from lender.cli.owner import find_state, open_state
from lender.cli.words import span
from lender.client.errors import KeyFault
from lender.client.keys import ENTROPY_BYTES, create_key, default_key_path, read_key
from lender.daemon.identity import load_or_create
from lender.link.credentials import CredentialsError, without_credentials
from lender.link.enrolling import Wanted
from lender.link.errors import LinkError
from lender.link.membership import Membership, MembershipError, submitters_folder
from lender.link.trying import lets_in
from lender.protocol.enrolment import (
    CODE_LIVES_S,
    JOIN_TOKEN_PATTERN,
    NAME_PATTERN,
    EnrolledRole,
    fingerprint_of,
    name_from,
)
from lender.protocol.errors import ProtocolError
from lender.protocol.signature import Signer

EXAMPLES = """\
  lender enroll nats://fleet.lab:4222 --ca ca.pem
  lender enroll nats://fleet.lab:4222 --ca ca.pem --role submitter --name alice
  LENDER_JOIN_TOKEN=ljt_... lender enroll nats://fleet.lab:4222 --ca ca.pem
  lender enroll nats://fleet.lab:4222 --ca ca.pem --token - < token-file"""

TOKEN_VARIABLE = "LENDER_JOIN_TOKEN"  # noqa: S105 - its name
_PROGRESS_S = 0.5


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("url", type=_url, help="NATS server of the fleet")
    parser.add_argument("--role", choices=("lender", "submitter"), default="lender")
    parser.add_argument("--name", type=_name, help="what people are to call it (this machine's)")
    parser.add_argument(
        "--token",
        help=f"a join token; - reads it from standard input; default ${TOKEN_VARIABLE}. "
        "Others on this machine can read what a command was given",
    )
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        help="certificates of who may vouch for the server: ca.pem of the deployment",
    )
    parser.add_argument(
        "--renew",
        action="store_true",
        help="have a new token made, also for a key that is in: after `lender-broker rotate`",
    )
    parser.add_argument("--wait", type=span_s, default=CODE_LIVES_S, help="for approval (10m)")
    parser.add_argument("--state", metavar="DIR", help="of a lender: its state folder")
    parser.add_argument("--key", type=Path, metavar="FILE", help="of a submitter: its key")
    parser.add_argument("--json", action="store_true", help="print a JSON document a line")


def run(args: argparse.Namespace) -> int:
    """Enrol."""
    join_token = _join_token(args.token)
    signer, seed, folder = _lender(args) if args.role == "lender" else _submitter(args)
    role: EnrolledRole = args.role
    wanted = Wanted(role, args.name or _usual_name(role), join_token=join_token)
    out = _Output(signer, wanted, as_json=args.json)
    try:
        known = Membership.read(folder)
        ca: Path | None = args.ca
        if ca is None and args.renew and known is not None and known.url == args.url:
            ca = known.ca
        applying = Applying(args.url, ca, signer, seed, wanted, folder, args.wait)
        if known is not None and (
            known.url != args.url or args.renew or not vouched_alike(known, args.ca)
        ):
            known = None
        if known is not None and asyncio.run(lets_in(known, signer.public_key)):
            out.done(known, anew=False)
            return Exit.DONE
        out.begin(ca is not None or _is_loopback(args.url))
        found = asyncio.run(apply(applying, out.progress))
    except (CredentialsError, MembershipError) as error:
        raise CommandError(Exit.FAILED, str(error)) from error
    except LinkError as error:
        raise CommandError(Exit.UNREACHABLE, f"{error}{_mend(args)}") from error
    finally:
        out.end_line()
    out.done(found, anew=True)
    return Exit.DONE


class _Output:
    """What the person sees, or JSON."""

    def __init__(self, signer: Signer, wanted: Wanted, *, as_json: bool) -> None:
        self._key = signer.public_key
        self._fingerprint = fingerprint_of(signer.public_key)
        self._wanted = wanted
        self._as_json = as_json
        self._shown: str | None = None
        self._said = ""
        self._rewrites = sys.stderr.isatty() and not as_json
        self._on_line = False
        self._told_at = 0.0

    def begin(self, vouched: bool) -> None:  # noqa: FBT001 - named where it is said
        """Show who asks."""
        if self._as_json:
            return
        print(f"name         {self._wanted.name}")
        print(f"key          {self._key}")
        print(f"fingerprint  {self._fingerprint}", flush=True)
        if not vouched:
            self._note("! without --ca nobody vouches for that server: compare the code with care")

    def progress(self, code: str | None, left_s: float, trouble: str) -> None:
        """Show the code as soon as there is one, and for how long it is waited."""
        if code is not None and code != self._shown:
            if self._shown is not None:
                self._note("! the broker began anew: the code is another one now")
            self._shown = code
            self._show_code(code)
        if trouble and trouble != self._said:
            self._said = trouble
            self._note(f"! {trouble}")
        if self._rewrites and time.monotonic() > self._told_at + _PROGRESS_S:
            self._told_at, self._on_line = time.monotonic(), True
            sys.stderr.write(f"\rwaiting, {span(left_s)} left; Ctrl-C ends it \033[K")
            sys.stderr.flush()

    def end_line(self) -> None:
        """Leave the cursor where the next one writes."""
        if self._on_line:
            self._on_line = False
            sys.stderr.write("\n")
            sys.stderr.flush()

    def done(self, found: Membership, *, anew: bool) -> None:
        """Say what there is now, and what comes next."""
        self.end_line()
        if self._as_json:
            where = {"url": found.url, "credentials": str(found.credentials)}
            self._document("enrolled", {**where, "new": anew})
            return
        how = "let in" if anew else "this key is let in already"
        print(f"✓ {how} as a {self._wanted.role}; credentials in {found.credentials}")
        if self._wanted.role == "lender":
            print("next: start lenderd (one that runs joins by itself), and say what it may run:")
            print("      lender grant SUBMITTER --workload NAME --expires 30d")
        else:
            print("next: lender submit -- COMMAND; an owner has to agree to your key:")
            print(f"      lender grant {self._key} --workload command --expires 30d")

    def _show_code(self, code: str) -> None:
        if self._as_json:
            self._document("waiting", {"code": code})
            return
        self.end_line()
        print(f"code         {code}")
        print(f"Have the operator compare both and run: lender-broker approve {code}", flush=True)

    def _note(self, text: str) -> None:
        self.end_line()
        print(text, file=sys.stderr, flush=True)

    def _document(self, state: str, fields: dict[str, object]) -> None:
        who = {"key": self._key, "fingerprint": self._fingerprint}
        about = {"role": self._wanted.role, "name": self._wanted.name}
        said = {"schema": "lender.enroll/1", "state": state, **about, **who, **fields}
        print(json.dumps(said), flush=True)


def _lender(args: argparse.Namespace) -> tuple[Signer, bytes, Path]:
    state = find_state(args)
    try:
        if state.path.exists():
            state = open_state(args)
        else:
            state.create()
        signer = load_or_create(state.identity)
        return signer, state.identity.read_bytes().strip(), state.membership
    except ProtocolError as error:
        raise CommandError(
            Exit.FAILED, f"{state.identity}: {error.reason}; restore it, or remove it"
        ) from error
    except OSError as error:
        raise CommandError(Exit.FAILED, f"can't use {error.filename}: {error.strerror}") from error


def _submitter(args: argparse.Namespace) -> tuple[Signer, bytes, Path]:
    try:
        path = args.key or default_key_path(os.environ)
        if not path.exists():
            create_key(path, os.urandom(ENTROPY_BYTES))
        return read_key(path), path.read_bytes().strip(), submitters_folder(path)
    except KeyFault as error:
        raise CommandError(Exit.FAILED, str(error)) from error


def _join_token(said: str | None) -> str | None:
    if said == "-":
        said = sys.stdin.readline(200)
    token = (said or os.environ.get(TOKEN_VARIABLE) or "").strip()
    if not token:
        if said is None:
            return None
        raise CommandError(Exit.USAGE, "no join token came by standard input")
    if not re.fullmatch(JOIN_TOKEN_PATTERN, token):
        raise CommandError(Exit.USAGE, "that is no join token: one begins with ljt_")
    return token


def _usual_name(role: EnrolledRole) -> str:
    host = socket.gethostname()
    if role == "lender":
        return name_from(host)
    try:
        return name_from(f"{getpass.getuser()}@{host}")
    except (OSError, KeyError):  # no name for this user
        return name_from(host)


def _mend(args: argparse.Namespace) -> str:
    return "" if args.ca else "; where the server has TLS, name its ca.pem by --ca"


def _is_loopback(url: str) -> bool:
    return re.match(r"[a-z]+://(127\.|localhost[:/]|\[::1\])", f"{url}/") is not None


def _url(text: str) -> str:
    url = text if "//" in text else f"nats://{text}"
    if without_credentials(url) != url:
        raise argparse.ArgumentTypeError("an address has no password in it")
    if not re.fullmatch(r"(nats|tls)://[^\s/]+", url):
        raise argparse.ArgumentTypeError(f"{text!r}: write it like nats://host:4222")
    return url


def _name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise argparse.ArgumentTypeError("use up to 63 letters, digits, and . _ @ -")
    return text
