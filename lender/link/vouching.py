"""Who may vouch for a fleet's servers, as the fleet itself says.

A successor comes with a token, and stands in the stream LEADER, where every member reads it over a
line that somebody whom he knows has vouched for (docs/decisions/0026, "New keys").
"""

import asyncio
import contextlib
import logging
import random
import ssl
from pathlib import Path

from lender.link.api import JetStream
from lender.link.connection import Connected, Connection, State
from lender.link.errors import LinkError, StrangeAnswerError
from lender.link.membership import Membership, MembershipError
from lender.link.server_words import leading_of
from lender.link.trying import lets_in_vouched_by
from lender.protocol.streams import LEADER
from lender.protocol.subjects import LEADERSHIP_KEY

log = logging.getLogger(__name__)

# Has Python load what it reads dates by: whoever begins as root may not do so later, as another.
ssl.cert_time_to_seconds("Jan  1 00:00:00 1970 GMT")

LOOK_S = 3600.0
AGAIN_S = 10.0
"""Where nobody said anything: a broker that starts anew, or a server without one."""
SPREAD_S = 2.0
"""Within so long all look who come back to a server that starts anew."""


def believed(named: bytes | None, told: str) -> list[bytes | None]:
    """Return authorities to be tried in turn: those that we are told of, then those we know.

    Who named none believes none: nobody has vouched for the server that says so.

    Args:
        named: certificates in PEM that have vouched for the server; None: nobody has.
        told: by the broker, in the same form.
    """
    if named is None or not _certificates(told):
        return [named]
    return list(dict.fromkeys((told.encode(), named)))


def succeeds(told: str, known: str) -> bool:
    """Tell whether authorities are a later word of the fleet's than those we know.

    The latest of all is the successor: who has heard of it may drop what was before it, and never
    takes that back. So a broker whose copy is older says nothing new.

    Args:
        told: certificates in PEM.
        known: in the same form.
    """
    then, now = _certificates(known), _certificates(told)
    latest = max(now.values(), default=0.0)
    latest_known = max(then.values(), default=0.0)
    return latest > latest_known or (latest == latest_known and now.keys() < then.keys())


async def renew(connection: Connection, folder: Path, url: str, public_key: str) -> bool:
    """Keep who vouches for the fleet's servers by now, if that is somebody else; tells whether.

    Args:
        connection: to the fleet, whose server somebody we know has vouched for.
        folder: of the membership that it is made by.
        url: to which it is made; a membership of another fleet is left alone.
        public_key: that is let in.

    Raises:
        LinkError: no answer, or a strange one.
        MembershipError, OSError: what is kept can't be read or written.
    """
    membership = Membership.read(folder)
    if membership is None or membership.ca is None or membership.url != url:
        return False
    stored = await JetStream(connection).get_last(LEADER, LEADERSHIP_KEY)
    told = "" if stored is None else leading_of(stored.payload).authorities
    if not succeeds(told, membership.ca.read_text(errors="replace")):
        return False
    # Whatever we are told: the server that is there now has to be vouched for.
    if not await lets_in_vouched_by(told, membership, public_key):
        raise StrangeAnswerError("what a broker says of who vouches for its server")
    membership.vouched_by(told)
    return True


async def keep(
    connection: Connection, folder: Path, url: str, public_key: str, every_s: float = LOOK_S
) -> None:
    """Do so now and then, and whenever the line is up anew, until cancelled."""
    came_back = asyncio.Event()

    def hear(state: State) -> None:
        if isinstance(state, Connected):
            came_back.set()

    unwatch = connection.watch(hear)
    try:
        while True:
            await asyncio.sleep(random.random() * min(SPREAD_S, every_s))  # noqa: S311 - jitter
            came_back.clear()
            pause_s = every_s
            try:
                if await renew(connection, folder, url, public_key):
                    log.info("%s: who vouches for the fleet's servers is fetched anew", folder)
            except (LinkError, MembershipError, OSError) as error:
                log.info("who vouches for the fleet's servers is not known anew: %s", error)
                pause_s = min(AGAIN_S, every_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(came_back.wait(), pause_s)
    finally:
        unwatch()


def _certificates(text: str) -> dict[bytes, float]:
    """Return authorities, each with when it began; empty where the text is none."""
    if not text or not text.isascii():
        return {}
    try:
        context = ssl.create_default_context(cadata=text)
        began = [ssl.cert_time_to_seconds(str(one["notBefore"])) for one in context.get_ca_certs()]
        return dict(zip(context.get_ca_certs(binary_form=True), began, strict=True))
    except (ssl.SSLError, ValueError):
        return {}
