"""`lender-broker strangers`: who is connected without a token, and how to hold them to fewer lines.

A server bounds the lines of all strangers together and none by address: whoever holds them all
keeps others from asking to be let in.
"""

import argparse
import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from broker.deployment.claims import STRANGERS_CONNECTIONS_MAX
from broker.deployment.folder import Deployment
from broker.deployment.server_words import User
from broker.deployment.servers import Servers, servers
from lender.service.quantities import duration_s

SWEEP_S = 0.1
_TOLD_MAX = 40


def configure(parser: argparse.ArgumentParser, ca_help: str) -> None:
    """Declare the options."""
    parser.description = (
        "List from which addresses lines are open whose holder has no token, or hold each address "
        "to a few of them for a while, so that others can be let in."
    )
    parser.add_argument(
        "--at-most",
        type=_count,
        metavar="N",
        help="cut what an address has beyond N, all the time",
    )
    parser.add_argument(
        "--for",
        dest="for_s",
        type=duration_s,
        default=600.0,
        metavar="TIME",
        help="with --at-most: so long (10m); Ctrl-C ends it sooner",
    )
    parser.add_argument("--url", help="NATS server of the fleet")
    parser.add_argument("--ca", type=Path, metavar="FILE", help=ca_help)


def run(arguments: argparse.Namespace, deployment: Deployment, url: str, ca: Path | None) -> str:
    """Do it, and return what to tell of it.

    Raises:
        DeploymentError: the operator's folder is not here.
        LinkError: no server, or no answer.
    """
    account = deployment.identities().accounts["strangers"]
    if arguments.at_most is None:
        return asyncio.run(_listed(deployment, account, url, ca))
    cut: Counter[str] = Counter()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_hold(deployment, account, url, ca, arguments.at_most, arguments.for_s, cut))
    return "\n".join(["cut, by address:", *_rows(cut)]) if cut else "nothing was cut"


async def sweep(speaking: Servers, account: str, at_most: int) -> Counter[str]:
    """Cut what each address has beyond so many lines, the latest first; returns how many of each.

    Raises:
        DeploymentError, LinkError: see `Servers.lines`.
    """
    surplus: list[tuple[str, User]] = []
    kept: Counter[str] = Counter()
    for server, one in sorted(await speaking.lines(account), key=_age):
        kept[one.ip] += 1
        if kept[one.ip] > at_most:
            surplus.append((server, one))
    await speaking.cut((server, one.cid) for server, one in surplus)
    return Counter(one.ip for _, one in surplus)


async def _hold(
    deployment: Deployment,
    account: str,
    url: str,
    ca: Path | None,
    at_most: int,
    for_s: float,
    cut: Counter[str],
) -> None:
    ends_at = time.monotonic() + for_s
    async with servers(deployment, url, ca) as speaking:
        while True:
            cut.update(await sweep(speaking, account, at_most))
            if time.monotonic() >= ends_at:
                return
            await asyncio.sleep(min(SWEEP_S, max(0.0, ends_at - time.monotonic())))


async def _listed(deployment: Deployment, account: str, url: str, ca: Path | None) -> str:
    async with servers(deployment, url, ca) as speaking:
        found = Counter(one.ip for _, one in await speaking.lines(account))
    head = f"{found.total()} lines of strangers, of {STRANGERS_CONNECTIONS_MAX} that there may be"
    return "\n".join([head, *_rows(found)])


def _rows(counted: Counter[str]) -> Iterable[str]:
    rows = [f"  {count:>6}  {ascii(ip)[1:-1]}" for ip, count in counted.most_common(_TOLD_MAX)]
    more = len(counted) - _TOLD_MAX
    return [*rows, f"  and {more} addresses more"] if more > 0 else rows


def _age(line: tuple[str, User]) -> tuple[str, int]:
    return line[1].start, line[1].cid


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least 1: the machine that is to be let in needs it")
    return count
