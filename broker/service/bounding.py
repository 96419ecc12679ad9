"""`lender-broker bound`: for whom a lender may work, said anew while it lends.

The serving broker keeps it and makes tokens by it from then on; servers then refuse those that the
lender has, so that a narrower bound holds at once. It fetches another by itself.
"""

import argparse
import asyncio
import time
from pathlib import Path

from broker.core.enrolment.messages import AskLenders, KnownLender, SetBound
from broker.deployment import contents
from broker.deployment.folder import Deployment
from broker.deployment.revocation import is_revoked, refuse_earlier
from broker.service.letting_in import (
    BOUND_OPTIONS,
    LettingInError,
    OperatorsDesk,
    add_bound,
    listed,
    said_by,
    table,
    whom,
)
from broker.service.settings import BrokerSettings
from lender.protocol import subjects
from lender.protocol.errors import ProtocolError
from lender.protocol.signature import check_public_key


def configure(parser: argparse.ArgumentParser, ca_help: str) -> None:
    """Declare the options."""
    parser.description = (
        "Say for whom a lender may work, whatever its owner grants; where nothing is said, list "
        "lenders. What is not named stays as it was, and what runs there goes on. It needs the "
        "folder operator/."
    )
    parser.add_argument("key", nargs="?", type=_key, help="public key of a lender, U...")
    add_bound(parser)
    parser.add_argument("--add", type=listed, metavar="A,B", help="let it work for these as well")
    parser.add_argument("--url", help="NATS server of the fleet")
    parser.add_argument("--ca", type=Path, metavar="FILE", help=ca_help)


def run(arguments: argparse.Namespace, settings: BrokerSettings) -> str:
    """Carry it out; returns what to print. Cut off anywhere, the same command completes it.

    Raises:
        LettingInError: it was not done.
        DeploymentError, LinkError: the deployment or the fleet can't be used.
    """
    desk = OperatorsDesk(settings)
    if arguments.add is None and not any(hasattr(arguments, one) for one in BOUND_OPTIONS):
        return asyncio.run(_list(desk, arguments.key))
    if arguments.key is None:
        raise LettingInError("name the lender by its key: `lender-broker bound` lists them")
    deployment = Deployment(settings.deployment_folder.absolute())
    deployment.key(contents.OPERATOR_KEY)  # without it nothing is begun
    with deployment.locked():
        now = asyncio.run(_bind(desk, deployment, arguments, settings))
        # Tokens tell seconds apart: a revocation that comes next is to be later than this one.
        time.sleep(max(0.0, now.at - time.time()))
    return f"lender {now.name} ({now.key}) may work for {whom(now)}; it fetches a token by itself"


async def _list(desk: OperatorsDesk, key: str | None) -> str:
    lenders = (await desk.ask(subjects.ENROLMENT_LENDERS, AskLenders(key=key))).lenders
    if not lenders:
        return "no lender was let in"
    return table([("NAME", "KEY", "WORKS FOR"), *((x.name, x.key, whom(x)) for x in lenders)])


async def _bind(
    desk: OperatorsDesk,
    deployment: Deployment,
    arguments: argparse.Namespace,
    settings: BrokerSettings,
) -> KnownLender:
    before = (await desk.ask(subjects.ENROLMENT_LENDERS, AskLenders(key=arguments.key))).lenders
    if not before:
        raise LettingInError("no lender with that key was let in: `lender-broker bound` lists them")
    if is_revoked(deployment, arguments.key, before[0].at):
        raise LettingInError("that key was revoked: let it in anew, by `lender-broker approve`")
    said = {field: getattr(before[0], field) for field in BOUND_OPTIONS.values()}
    if arguments.add is not None:
        if hasattr(arguments, "bound_submitters"):
            raise LettingInError("--submitters names all of them, --add some more: say one of both")
        if said["submitters"] is None:
            raise LettingInError("it may work for everybody: --submitters bounds it")
        said["submitters"] = (*said["submitters"], *arguments.add)
    message = said_by(SetBound, arguments, {"key": arguments.key, **said})
    (after,) = (await desk.ask(subjects.ENROLMENT_BOUND, message)).lenders
    await refuse_earlier(deployment, settings.url, settings.ca, after.key, after.at, time.time())
    return after


def _key(text: str) -> str:
    try:
        return check_public_key(text)
    except ProtocolError as error:
        raise argparse.ArgumentTypeError(error.reason) from error
