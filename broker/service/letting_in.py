"""`lender-broker requests`, `approve`, `token`: the operator's part of enrolment.

They ask the broker that serves, by NATS, with the broker's credentials of the deployment folder.
"""

import argparse
import asyncio
import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from broker.core.enrolment.messages import (
    EXPIRES_S_MAX,
    Approve,
    AskLenders,
    KeepToken,
    KnownLender,
    OperatorAnswer,
    WaitingRequest,
    Whom,
)
from broker.deployment.folder import Deployment
from broker.service.settings import BrokerSettings
from lender.link.connection import ConnectError, connect
from lender.link.errors import NoRespondersError
from lender.protocol import subjects
from lender.protocol.codec import Closed, decode, encode
from lender.protocol.enrolment import SECRET_BYTES, digest_of, fingerprint_of, read_code
from lender.protocol.errors import ProtocolError
from lender.service.quantities import duration_s

COMMANDS = ("requests", "approve", "token")
BOUND_OPTIONS = {"bound_submitters": "submitters", "bound_pools": "pools"}
"""As arguments and as messages have them: settings are called like these."""

W = TypeVar("W", bound=Whom)

_CONNECT_S = 10.0
_ANSWER_S = 10.0
_TRIES = 10
_PAUSE_S = 0.5


class LettingInError(Exception):
    """It was not done; says why."""


class _Nothing(Closed):
    """Asks without a word."""


def configure(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    common: argparse.ArgumentParser,
    ca_help: str,
) -> None:
    """Declare the commands."""
    requests = commands.add_parser(
        "requests", parents=[common], help="list who waits to be let in (`lender enroll`)"
    )
    requests.add_argument("--json", action="store_true", help="print JSON")
    approve = commands.add_parser("approve", parents=[common], help="let one in who waits")
    approve.description = (
        "Compare code and fingerprint with what the other screen shows. A lender may then work "
        "for the submitters that are named, or for all; what runs on it stays its owner's to say."
    )
    approve.add_argument("code", type=_code, help="that the machine shows, such as 4G7K-X2MQ")
    add_bound(approve)
    approve.add_argument("--name", help="call it so, and not as it calls itself")
    approve.add_argument("--yes", action="store_true", help="do not ask")
    token = commands.add_parser(
        "token", parents=[common], help="print a join token, which lets one in without asking, once"
    )
    token.add_argument("--role", choices=("lender", "submitter"), default="lender")
    token.add_argument(
        "--expires", type=_expires_s, default=3600.0, metavar="1h", help="30m, 1h, 2d (1h)"
    )
    add_bound(token)
    for parser in (requests, approve, token):
        parser.add_argument("--url", help="NATS server of the fleet")
        parser.add_argument("--ca", type=Path, metavar="FILE", help=ca_help)


def run(
    arguments: argparse.Namespace, settings: BrokerSettings, entropy: Callable[[int], bytes]
) -> str:
    """Carry out one command; returns what to print.

    Raises:
        LettingInError: it was not done.
        DeploymentError, LinkError: the fleet can't be asked.
    """
    return asyncio.run(_run(arguments, settings, entropy))


async def _run(
    arguments: argparse.Namespace, settings: BrokerSettings, entropy: Callable[[int], bytes]
) -> str:
    desk = OperatorsDesk(settings)
    if arguments.command == "requests":
        waiting = (await desk.ask(subjects.ENROLMENT_REQUESTS, _Nothing())).requests
        return _as_json(waiting) if arguments.json else _as_table(waiting)
    if arguments.command == "token":
        secret = base64.urlsafe_b64encode(entropy(SECRET_BYTES)).rstrip(b"=").decode()
        join_token = f"ljt_{secret}"
        digest, expires_s = digest_of(join_token), arguments.expires
        said = {"digest": digest, "role": arguments.role, "expires_s": expires_s}
        await desk.ask(subjects.ENROLMENT_TOKEN, said_by(KeepToken, arguments, said))
        return join_token
    waiting = (await desk.ask(subjects.ENROLMENT_REQUESTS, _Nothing())).requests
    one = next((one for one in waiting if one.code == arguments.code), None)
    if one is None:
        raise LettingInError(
            f"nobody waits under {arguments.code}; `lender-broker requests` lists who does"
        )
    said = {"code": one.code, "key": one.key, "name": arguments.name}
    message = said_by(Approve, arguments, said)
    asked = AskLenders(key=one.key)
    before = (await desk.ask(subjects.ENROLMENT_LENDERS, asked)).lenders
    said_now = any(hasattr(arguments, option) for option in BOUND_OPTIONS)
    if one.role == "lender" and not said_now and any(map(_is_bound, before)):
        # Whoever has its key can ask again at any time, and is to gain nothing by that.
        raise LettingInError(
            f"it was let in before, to work for {whom(before[0])}: say for whom now, "
            "by --submitters and --pools; --submitters all for everybody"
        )
    if not arguments.yes:
        _ask_person(one, message)
    await desk.ask(subjects.ENROLMENT_APPROVE, message)
    said_of = f"{one.role} {arguments.name or one.name} ({one.key}) is let in"
    if one.role != "lender":
        return said_of
    said_of += f", to work for {whom(message)}"
    if before and not any(_same(message, known) for known in before):
        said_of += (
            f"\n! it was let in before, for {whom(before[0])}: what it was given then is good "
            f"unless it was revoked; `lender-broker bound {one.key} --submitters ...` ends it"
        )
    return said_of


def said_by(kind: type[W], arguments: argparse.Namespace, fields: dict[str, object]) -> W:
    """Return what a command says of a lender's bound and besides.

    Raises:
        LettingInError: an option has what it may not have.
    """
    said = {name: value for name, value in fields.items() if value is not None}
    told = vars(arguments)
    said |= {field: told[option] for option, field in BOUND_OPTIONS.items() if option in told}
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        reason = fault["msg"].removeprefix("Value error, ")
        raise LettingInError(f"--{fault['loc'][0]}: {reason}") from error


def whom(bound: Whom | KnownLender) -> str:
    """Return for whom a lender may work, in words: `alice and bob alone, in the pool render`."""
    said = "everybody" if bound.submitters is None else f"{', '.join(bound.submitters)} alone"
    if bound.pools is not None:
        said += f", in the pool{'s' * (len(bound.pools) > 1)} {', '.join(bound.pools)}"
    return said


def _is_bound(known: KnownLender) -> bool:
    return (known.submitters, known.pools) != (None, None)


def _same(bound: Whom, known: KnownLender) -> bool:
    return (bound.submitters, bound.pools) == (known.submitters, known.pools)


def add_bound(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say for whom a lender may work."""
    parser.add_argument(
        "--submitters",
        dest="bound_submitters",
        type=listed,
        default=argparse.SUPPRESS,
        metavar="A,B",
        help="of a lender: it may work for these alone, by name or key; all for everybody",
    )
    parser.add_argument(
        "--pools",
        dest="bound_pools",
        type=listed,
        default=argparse.SUPPRESS,
        metavar="P,Q",
        help="of a lender: in these pools alone; all for every one",
    )


def _ask_person(one: WaitingRequest, message: Approve) -> None:
    """Show who it is, and have somebody at a terminal agree."""
    print(_shown(one, message), file=sys.stderr)  # noqa: T201 - asked for
    if not sys.stdin.isatty():
        raise LettingInError("nobody is there to agree: add --yes, or run it in a terminal")
    print("Is that what the other screen shows? Let it in? [y/N] ", end="", file=sys.stderr)  # noqa: T201
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise LettingInError("not let in")


def _shown(one: WaitingRequest, message: Approve) -> str:
    lines = [
        f"code         {one.code}",
        f"role         {one.role}",
        # Letters, digits and a few marks: the broker takes no other names.
        f"calls itself {one.name}",
        f"fingerprint  {fingerprint_of(one.key)}",
        f"key          {one.key}",
        f"comes from   {ascii(one.host)[1:-1] or 'the server does not say'}",
    ]
    if one.role == "lender":
        lines.append(f"may work for {whom(message)}")
    return "\n".join(lines)


def _as_table(waiting: tuple[WaitingRequest, ...]) -> str:
    if not waiting:
        return "nobody waits to be let in"
    rows: list[tuple[str, ...]] = [("CODE", "ROLE", "NAME", "WAITS", "FROM", "FINGERPRINT")]
    rows += [
        (
            one.code,
            one.role,
            one.name,
            f"{int(one.waits_s)} s",
            ascii(one.host)[1:-1],
            fingerprint_of(one.key),
        )
        for one in waiting
    ]
    return table(rows)


def table(rows: list[tuple[str, ...]]) -> str:
    """Return rows as aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _as_json(waiting: tuple[WaitingRequest, ...]) -> str:
    told = [
        {**one.model_dump(mode="json"), "fingerprint": fingerprint_of(one.key)} for one in waiting
    ]
    return json.dumps({"schema": "lender-broker.requests/1", "requests": told}, indent=2)


class OperatorsDesk:
    """The broker that serves, wherever it is."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._deployment = Deployment(settings.deployment_folder.absolute())

    async def ask(self, subject: str, message: Closed) -> OperatorAnswer:
        """Ask, for a while also where no broker leads just now.

        Raises:
            LettingInError: it refuses, or there is none.
            LinkError: no server, or no answer.
        """
        credentials = self._settings.credentials or self._deployment.broker_credentials
        try:
            connection = await connect(
                self._settings.url,
                name="lender-broker",
                credentials=credentials,
                ca=self._settings.ca,
                timeout_s=_CONNECT_S,
            )
        except ConnectError as error:
            raise LettingInError(f"{error}; name the fleet's server by --url") from error
        async with connection:
            for _ in range(_TRIES):
                try:
                    msg = await connection.request(subject, encode(message), timeout_s=_ANSWER_S)
                    said = decode(OperatorAnswer, msg.data)
                except NoRespondersError:
                    await asyncio.sleep(_PAUSE_S)
                    continue
                except ProtocolError as error:
                    raise LettingInError(f"the broker answers in another way: {error}") from error
                if said.error:
                    raise LettingInError(said.error)
                return said
        raise LettingInError("no broker leads just now: see that `lender-broker serve` runs")


def listed(text: str) -> tuple[str, ...] | None:
    """Read `A,B`; None: `all`.

    Raises:
        ArgumentTypeError: it names nobody.
    """
    if text == "all":
        return None
    named = tuple(one.strip() for one in text.split(",") if one.strip())
    if not named:
        raise argparse.ArgumentTypeError("name at least one, or say all")
    return named


def _code(text: str) -> str:
    try:
        return read_code(text)
    except ProtocolError as error:
        raise argparse.ArgumentTypeError(error.reason) from error


def _expires_s(text: str) -> float:
    expires_s = duration_s(text)
    if not 0 < expires_s <= EXPIRES_S_MAX:
        raise argparse.ArgumentTypeError(f"{text!r}: write 30m, 1h or 2d, at most 30d")
    return expires_s
