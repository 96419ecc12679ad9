"""Agree to run one submitter's workload on this machine, within limits, until a day.

Says in plain words what will be allowed and asks. The agreement is a file of yours in the state
folder; no message from outside can make, widen or prolong one, and neither can lenderd. A workload
that comes with a program is pinned to it: once the program changes, you are asked again. What a
configuration proposes (lender grants) is only read by --proposed: it asks, and you answer.
"""

import argparse
import base64
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from lender.cli.consent_words import (
    agreement,
    energy_warnings,
    known_programs,
    own_programs,
    terms,
)
from lender.cli.exits import CommandError, Exit
from lender.cli.owner import add_options, become_owner, is_owner, print_json, tell, warn_of
from lender.cli.proposals import LASTING, ProposalError, QuietParser, find, read_words
from lender.cli.revocation import Outcome, revoke
from lender.cli.state_choice import choose
from lender.cli.submitter_key import is_public_key
from lender.cli.words import key, moment, printable, say, size
from lender.core.budget import Budget, parse_budget
from lender.core.consent import Grant
from lender.core.schedule import When, parse_when
from lender.protocol.devices import parse_devices
from lender.protocol.reach import parse_reach
from lender.service.quantities import duration_s, size_bytes
from lender.state.consent_files import ConsentReading, grant_fields, load_consent
from lender.state.folder import StateFolder
from lender.state.grant_file import NAME_PATTERN, SHA256_PATTERN, WORKLOAD_PATTERN
from lender.state.grant_writing import write_grant
from lender.state.programs import Programs
from lender.state.withdrawal import Selection

EXAMPLES = """\
  lender grant alice=UDXU4RCS… --workload render --cpu 4 --mem 2G --expires 30d
  lender grant --proposed alice             what alice.toml proposes to you: see lender grants
  lender grant alice --workload command --when "Mon-Fri 18:00-08:00, Sat-Sun" --expires 30d
  lender grant alice --workload wasm --when always --budget 10cpuh/day,5GB/week --expires 90d
  lender grant alice --workload command --device accel-hailo8 --expires 30d
  lender grant alice --workload command --net data.example.org,*.example.net --expires 30d
  lender grant alice --workload checksum@9f86d081… --expires 2026-12-31 --replace --yes"""

CPU_MAX = 256
MEMORY_BYTES_MIN = 1 << 20
GPU_VRAM_BYTES = 4 << 30
"""What `--gpu` alone allows."""

T = TypeVar("T")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "submitter",
        nargs="?",
        help="public key (U…), NAME=KEY to give it a name, or a name given before",
    )
    parser.add_argument(
        "--proposed",
        metavar="NAME|FILE",
        help="instead of all others but --replace: what that says",
    )
    parser.add_argument(
        "--workload",
        "--class",
        metavar="NAME[@SHA256]",
        help="what may be run: see lender workloads",
    )
    parser.add_argument("--cpu", type=int, default=1, metavar="N", help="cores per task (1)")
    parser.add_argument(
        "--mem", type=size_bytes, default=512 << 20, metavar="SIZE", help="memory per task (512M)"
    )
    parser.add_argument(
        "--gpu", action="store_true", help="a GPU too, with 4G of its memory unless --vram is given"
    )
    parser.add_argument(
        "--vram", type=size_bytes, metavar="SIZE", help="GPU memory per task (none)"
    )
    parser.add_argument(
        "--device",
        type=_typed(parse_devices),
        default=(),
        metavar="NAME,…",
        help="devices that a job may use itself, such as accel-hailo8: see lender doctor",
    )
    parser.add_argument(
        "--net",
        type=_typed(parse_reach),
        default="none",
        metavar="internet|HOST,…",
        help="none (default), internet: ports 80 and 443 of all public hosts, or hosts: "
        "example.org, *.example.org, example.org:8443",
    )
    parser.add_argument(
        "--net-metered",
        action="store_true",
        help="that also while the network is paid by volume",
    )
    parser.add_argument(
        "--when",
        type=_typed(parse_when),
        default="away",
        metavar="WHEN",
        help="away (default), idle, always, or hours like 'Mon-Fri 18:00-08:00, Sat-Sun'",
    )
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="10cpuh/day",
        help="most of it in a day or week of yours: cpuh, GB moved, kWh; several with commas",
    )
    parser.add_argument("--expires", type=_not_after, metavar="30d|DATE", help="last moment of it")
    parser.add_argument(
        "--replace", action="store_true", help="end the grants for this workload that they have"
    )
    parser.add_argument("--yes", action="store_true", help="a script agrees for the owner")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Check the words, show them, ask, write, tell lenderd. Nothing is made before the yes."""
    choice = choose(args.state)
    state = choice.state
    warn_of(choice.others(), state)
    asked = _asked(args, state)
    _permit(state)
    reading, programs = load_consent(state), known_programs(state)
    grant, name = wanted(asked, reading, programs)
    rivals = [
        one
        for one in reading.consent.valid(time.time())
        if (one.submitter, one.workload) == (grant.submitter, grant.workload)
    ]
    beside = [_beside(one, ends=args.replace) for one in rivals]
    text = agreement(grant, name, programs, [*beside, *energy_warnings(grant, state)])
    _ask(text, agreed=args.yes, proposed=args.proposed is not None, quiet=args.json)
    try:
        if not (state.grants.is_dir() and state.tombstones.is_dir()):
            state.create()
        path = write_grant(state, grant, text, name)
    except (OSError, ValueError) as error:
        raise CommandError(Exit.FAILED, f"nothing was granted, could not save: {error}") from error
    ended = [revoke(state, Selection(grant=one.id)) for one in rivals if args.replace]
    told = tell(state, "reload", timeout_s=5.0)
    if args.json:
        print_json(
            "grant",
            {
                "id": grant.id,
                "path": str(path),
                "text": text,
                "daemon": told.outcome,
                "grant": grant_fields(grant, name),
                "replaced": [outcome.as_json() for outcome in ended],
            },
        )
    else:
        say(_lines(grant, ended, reached=told.outcome == "answered"))
    return Exit.DONE if all(outcome.complete for outcome in ended) else Exit.PARTIAL


def _asked(args: argparse.Namespace, state: StateFolder) -> argparse.Namespace:
    """Return the options that say what is to be granted: those typed, or a proposal's.

    Raises:
        CommandError: some are missing, there are both, or it can't be asked.
    """
    if args.proposed is None:
        needed = {
            "SUBMITTER": args.submitter,
            "--workload": args.workload,
            "--expires": args.expires,
        }
        if missing := [name for name, value in needed.items() if value is None]:
            text = f"{', '.join(missing)} missing: say who may run what until when; or --proposed"
            raise CommandError(Exit.USAGE, text)
        return args
    if args.yes:
        raise CommandError(
            Exit.USAGE, "what others propose no script agrees to: without --yes, in a terminal"
        )
    unsaid = vars(_options().parse_args([]))
    own = {"proposed", "replace", "json", "state"}
    if typed := [
        name
        for name, value in unsaid.items()
        if name not in own | {"yes"} and vars(args)[name] != value
    ]:
        option = typed[0].replace("_", "-")
        text = f"{option} beside --proposed: leave it out, or type all of it yourself"
        raise CommandError(Exit.USAGE, text)
    try:
        return options_of(read_words(find(args.proposed, state)))
    except ProposalError as error:
        raise CommandError(Exit.USAGE, printable(f"{args.proposed}: {error}")) from error


def options_of(words: Sequence[str]) -> argparse.Namespace:
    """Return the options that a proposal stands for.

    Args:
        words: of `read_words`.

    Raises:
        ProposalError: one that its owner could not have typed either.
    """
    return _options().parse_args(words)


def _options() -> QuietParser:
    parser = QuietParser()
    configure(parser)
    return parser


def _permit(state: StateFolder) -> None:
    """Refuse a folder that is somebody else's, or no lender's; who grants first owns a new one."""
    if not state.path.exists():
        return
    if not is_owner(state):
        raise CommandError(
            Exit.NOT_PERMITTED, f"only uid {state.owner_uid()} and root may grant here"
        )
    try:
        # A volume of its own may bring a folder along.
        strange = {path.name for path in state.path.iterdir()} - {"lost+found"}
        if strange and not state.grants.is_dir():
            raise CommandError(Exit.USAGE, f"{state.path} is in use and no lender's state folder")
        become_owner(state)
    except OSError as error:
        raise CommandError(Exit.FAILED, f"can't use {state.path}: {error.strerror}") from error


def wanted(
    args: argparse.Namespace, reading: ConsentReading, programs: Programs
) -> tuple[Grant, str]:
    """Return the grant that a yes would make now, and what the owner calls its submitter.

    Raises:
        CommandError: a value that no grant may have.
    """
    name, submitter = _submitter(args.submitter, reading)
    workload, at, digest = args.workload.partition("@")
    when: When = args.when
    grant = Grant(
        id="G-" + base64.b32encode(os.urandom(5)).decode().lower(),
        submitter=submitter,
        workload=_checked(workload, WORKLOAD_PATTERN, "a workload's name"),
        digest=_digest(digest) if at else (own_programs() | programs).get(workload),
        cpu=_cpu(args.cpu),
        memory_bytes=_memory("--mem", args.mem),
        vram_bytes=_vram(args),
        when=when,
        budget=_budget(args.budget),
        net=args.net,
        net_metered=args.net_metered,
        devices=args.device,
        not_after=args.expires,
        granted_at=time.time(),
    )
    return grant, name


def _beside(grant: Grant, *, ends: bool) -> str:
    held = f"{grant.id} ({terms(grant)}, until {moment(grant.not_after)})"
    if ends:
        return f"This replaces {held}: what runs under it is stopped and goes back."
    return f"{held} stays beside it; --replace would end it."


def _lines(grant: Grant, ended: list[Outcome], *, reached: bool) -> list[str]:
    lines = [f"✓ granted as {grant.id}; withdraw with: lender revoke --grant {grant.id}"]
    for outcome in ended:
        mark, fate = ("✓", "ended") if outcome.complete else ("✗", "could not be ended for sure")
        lines.append(f"{mark} {', '.join(outcome.grants)} {fate}")
    if not reached:
        lines.append("! lenderd gave no answer; it reads the grant when it starts.")
    return lines


def _submitter(text: str, reading: ConsentReading) -> tuple[str, str]:
    """The name (or none) and the key that `SUBMITTER` stands for.

    A name is forgotten with the last grant that is not withdrawn: whoever grants again looks at
    the key again.
    """
    trusted = {g.submitter for g in reading.consent.grants if g.id not in reading.consent.revoked}
    named = {known: given for known, given in reading.names.items() if known in trusted}
    name, equals, public_key = text.rpartition("=")
    if not equals and not is_public_key(text):
        keys = [known for known, given in named.items() if given == text]
        if len(keys) == 1:
            return text, keys[0]
    if not is_public_key(public_key):
        raise CommandError(
            Exit.USAGE,
            f"{key(public_key)!r} is neither a name from a grant of yours nor a public key "
            "(U and 55 more characters, checksum included): ask the submitter to copy it again",
        )
    if equals:
        _checked(name, NAME_PATTERN, "a name")
        taken = next((k for k, given in named.items() if given == name and k != public_key), None)
        if taken is not None:
            raise CommandError(Exit.USAGE, f"{name} already means {key(taken)}: take another name")
    return name or named.get(public_key, ""), public_key


def _ask(text: str, *, agreed: bool, proposed: bool, quiet: bool) -> None:
    print(text, file=sys.stderr if quiet else sys.stdout, flush=True)
    if agreed:
        return
    if not sys.stdin.isatty():
        otherwise = "" if proposed else ", or --yes if the owner has agreed"
        raise CommandError(Exit.USAGE, f"nobody to ask: run it in a terminal{otherwise}")
    print("Agree? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError(Exit.FAILED, "nothing was granted")


def _typed(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Have argparse show what is wrong with a value, not only that something is."""

    def typed(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return typed


def _not_after(text: str) -> float:
    """Read `30d`, `12h`, or a date, which ends with that day, as seconds since the epoch."""
    now = time.time()
    if re.fullmatch(LASTING, text):
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


def _memory(option: str, memory_bytes: int) -> int:
    if memory_bytes < MEMORY_BYTES_MIN:
        raise CommandError(Exit.USAGE, f"{option} is at least {size(MEMORY_BYTES_MIN)}")
    return memory_bytes


def _vram(args: argparse.Namespace) -> int:
    if args.vram is not None:
        return _memory("--vram", args.vram)
    return GPU_VRAM_BYTES if args.gpu else 0


def _budget(texts: list[str]) -> Budget:
    try:
        return parse_budget(texts)
    except ValueError as error:
        raise CommandError(Exit.USAGE, f"--budget: {error}") from error
