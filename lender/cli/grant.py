"""Agree to run one submitter's workload on this machine, within limits, until a day.

Says in plain words what will be allowed and asks. The agreement is a file of yours in the state
folder; no message from outside can make, widen or prolong one, and neither can lenderd.
"""

import argparse
import base64
import os
import re
import sys
import time
from datetime import datetime

from lender.cli.exits import CommandError, Exit
from lender.cli.owner import add_options, become_owner, find_state, is_owner, print_json, tell
from lender.cli.quantities import duration_s, size_bytes
from lender.cli.submitter_key import is_public_key
from lender.cli.words import count, key, moment, say, size
from lender.core.consent import Grant
from lender.daemon.consent_files import (
    NAME_PATTERN,
    SHA256_PATTERN,
    WORKLOAD_PATTERN,
    load_consent,
    write_grant,
)
from lender.daemon.state import StateFolder

EXAMPLES = """\
  lender grant alice=UDXU4RCS… --workload render --cpu 4 --mem 2G --expires 30d
  lender grant alice --workload checksum@9f86d081… --expires 2026-12-31 --yes"""

CPU_MAX = 256
MEMORY_BYTES_MIN = 1 << 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "submitter", help="public key (U…), NAME=KEY to give it a name, or a name given before"
    )
    parser.add_argument(
        "--workload", "--class", required=True, metavar="NAME[@SHA256]", help="what may be run"
    )
    parser.add_argument("--cpu", type=int, default=1, metavar="N", help="cores per task (1)")
    parser.add_argument(
        "--mem", type=size_bytes, default=512 << 20, metavar="SIZE", help="memory per task (512M)"
    )
    parser.add_argument(
        "--expires", required=True, type=_not_after, metavar="30d|DATE", help="last moment of it"
    )
    parser.add_argument("--yes", action="store_true", help="a script agrees for the owner")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Check the words, show them, ask, write, tell lenderd."""
    state = find_state(args)
    _prepare(state)
    name, submitter = _submitter(args.submitter, state)
    workload, _, digest = args.workload.partition("@")
    grant = Grant(
        id="G-" + base64.b32encode(os.urandom(5)).decode().lower(),
        submitter=submitter,
        workload=_checked(workload, WORKLOAD_PATTERN, "a workload's name"),
        digest=_digest(digest) if digest or args.workload.endswith("@") else None,
        cpu=_cpu(args.cpu),
        memory_bytes=_memory(args.mem),
        not_after=args.expires,
        granted_at=time.time(),
    )
    text = _text(grant, name)
    _ask(text, agreed=args.yes, quiet=args.json)
    try:
        path = write_grant(state, grant, text, name)
    except (OSError, ValueError) as error:
        raise CommandError(Exit.FAILED, f"nothing was granted, could not save: {error}") from error
    told = tell(state, "reload", timeout_s=5.0)
    if args.json:
        print_json(
            "grant", {"id": grant.id, "path": str(path), "text": text, "daemon": told.outcome}
        )
        return Exit.DONE
    lines = [f"✓ granted as {grant.id}; withdraw with: lender revoke --grant {grant.id}"]
    if told.outcome != "answered":
        lines.append("! lenderd gave no answer; it reads the grant when it starts.")
    say(lines)
    return Exit.DONE


def _prepare(state: StateFolder) -> None:
    """Make the state folder on first use; it belongs to whoever grants first."""
    try:
        if state.path.exists():
            if not is_owner(state):
                raise CommandError(
                    Exit.NOT_PERMITTED, f"only uid {state.owner_uid()} and root may grant here"
                )
            become_owner(state)
        state.create()
    except OSError as error:
        raise CommandError(Exit.FAILED, f"can't use {state.path}: {error.strerror}") from error


def _submitter(text: str, state: StateFolder) -> tuple[str, str]:
    """The name (or none) and the key that `SUBMITTER` stands for."""
    named = load_consent(state).names
    name, equals, public_key = text.rpartition("=")
    if not equals and not is_public_key(text):
        keys = [known for known, given in named.items() if given == text]
        if len(keys) == 1:
            return text, keys[0]
    if not is_public_key(public_key):
        raise CommandError(
            Exit.USAGE,
            f"{key(public_key)!r} is neither a name from an earlier grant nor a public key "
            "(U and 55 more characters, checksum included): ask the submitter to copy it again",
        )
    if equals:
        _checked(name, NAME_PATTERN, "a name")
        taken = next((k for k, given in named.items() if given == name and k != public_key), None)
        if taken is not None:
            raise CommandError(Exit.USAGE, f"{name} already means {key(taken)}: take another name")
    return name or named.get(public_key, ""), public_key


def _text(grant: Grant, name: str) -> str:
    """What the owner agrees to, in full."""
    program = f", only the program sha256:{grant.digest}," if grant.digest else ""
    who = f"{name} ({grant.submitter})" if name else grant.submitter
    return (
        f"{who}\n"
        f"may run the workload {grant.workload}{program} on this machine, each task with at most\n"
        f"{count(grant.cpu, 'core')} and {size(grant.memory_bytes)} of memory, in a sandbox: "
        f"no network, none of your files.\n"
        f"Ends {moment(grant.not_after)}. Withdraw any time: lender revoke."
    )


def _ask(text: str, *, agreed: bool, quiet: bool) -> None:
    print(text, file=sys.stderr if quiet else sys.stdout, flush=True)
    if agreed:
        return
    if not sys.stdin.isatty():
        raise CommandError(
            Exit.USAGE, "nobody to ask: run it in a terminal, or --yes if the owner has agreed"
        )
    print("Agree? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError(Exit.FAILED, "nothing was granted")


def _not_after(text: str) -> float:
    """Read `30d`, `12h`, or a date, which ends with that day, as seconds since the epoch."""
    now = time.time()
    if re.fullmatch(r"\d+(\.\d+)?[smhd]", text):
        not_after = now + duration_s(text)
    else:
        try:
            moment_named = datetime.fromisoformat(text)
        except ValueError as error:
            message = f"{text!r} is neither like 30d nor like 2026-12-31"
            raise argparse.ArgumentTypeError(message) from error
        if len(text) == len("2026-12-31"):
            moment_named = moment_named.replace(hour=23, minute=59, second=59)
        not_after = moment_named.timestamp()
    if not now < not_after < now + 10 * 366 * 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not within the next ten years")
    return not_after


def _checked(text: str, pattern: str, what: str) -> str:
    if re.fullmatch(pattern, text) is None:
        raise CommandError(Exit.USAGE, f"{text!r} is not {what}: it has the form {pattern}")
    return text


def _digest(text: str) -> str:
    return _checked(text.removeprefix("sha256:").lower(), SHA256_PATTERN, "a SHA-256")


def _cpu(cores: int) -> int:
    if not 1 <= cores <= CPU_MAX:
        raise CommandError(Exit.USAGE, f"--cpu is 1 to {CPU_MAX}")
    return cores


def _memory(memory_bytes: int) -> int:
    if memory_bytes < MEMORY_BYTES_MIN:
        raise CommandError(Exit.USAGE, f"--mem is at least {size(MEMORY_BYTES_MIN)}")
    return memory_bytes
