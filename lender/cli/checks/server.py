"""A server as it is met before joining: is it there, who vouches for it, what does it let us do.

Each line to it is bounded in time and bytes, nothing is said to one that nobody vouches for, and
what is asked is asked of the server itself: no stream and no broker hears of it.
"""

import ipaddress
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lender.cli.checks import tls
from lender.cli.checks.broker import leading_checks
from lender.cli.checks.check import Check
from lender.cli.checks.places import not_there
from lender.cli.checks.standing import skew, standing_checks
from lender.cli.words import duration, printable
from lender.link.errors import LinkError, NoRespondersError
from lender.link.probe import Line, Place, ProbeError, RefusedError
from lender.link.server_words import Greeting, Standing
from lender.link.way_in import WayIn
from lender.protocol.bounds import PAYLOAD_BYTES_MAX
from lender.protocol.permissions import STRANGERS_INBOX, Role

VERSION_MIN: Final = (2, 12)
"""Of nats-server: results are committed by atomic batches, which came with it."""
VERSION_TRIED: Final = (2, 15)

LINE_S: Final = 5.0
"""For all that is said with one server."""


@dataclass(slots=True)
class Visit:
    """What is met, by whom, and what came of it.

    Attributes:
        places: of one server, or of those of a cluster.
        ca: who may vouch for them; None: whom this machine trusts.
        tls: is asked for, whatever they say.
        way_in: None: as a stranger.
        way_in_file: where that stands, for people.
        role: to be held against; None: the one that the rights are most like.
        standing: what a server said of us.
    """

    places: list[Place]
    ca: Path | None
    tls: bool
    way_in: WayIn | None
    way_in_file: Path | None
    role: Role | None
    standing: Standing | None = None


def visit_all(visit: Visit, left_s: float) -> Iterator[Check]:
    """Meet every server; one that can't be had is a warning where another can."""
    share_s = min(LINE_S, left_s / len(visit.places))
    met = [list(_visit(visit, place, share_s)) for place in visit.places]
    one_is_well = any(not _blocked(found) for found in met)
    for found in met:
        for check in found:
            spared = one_is_well and check.level == "blocker"
            yield replace(check, level="warning") if spared else check


def _visit(visit: Visit, place: Place, within_s: float) -> Iterator[Check]:
    with Line(place, within_s) as line:
        reached = list(_reach(line))
        yield from reached
        if _blocked(reached):
            return
        try:
            greeting = line.greet()
        except LinkError as error:
            text = f"{place} is no NATS server: {printable(str(error))}"
            yield Check("server", "blocker", text, "name another address; NATS has port 4222")
            return
        yield from _greeted(place, greeting)
        secured = list(_secured(visit, line, greeting))
        yield from secured
        if not _blocked(secured):
            yield from _let_in(visit, line, greeting)


def _reach(line: Line) -> Iterator[Check]:
    place = line.place
    try:
        addresses = line.resolve()
    except ProbeError as error:
        text = f"no address is known of {printable(place.host)} ({error})"
        yield Check("server.name", "blocker", text, f"getent hosts {place.host}; ask its operator")
        return
    began = time.monotonic()
    try:
        line.open(addresses)
    except ProbeError as error:
        mend = f"nc -vz {place.host} {place.port}; ask its operator whether it runs"
        yield not_there("server.reach", place, str(error), mend)
        return
    took = duration(time.monotonic() - began)
    yield Check("server.reach", "ok", f"{place} takes connections, after {took}")


def _greeted(place: Place, greeting: Greeting) -> Iterator[Check]:
    version = printable(greeting.version)
    numbers = _numbers(greeting.version)
    wanted = ".".join(map(str, VERSION_MIN))
    if numbers is None or numbers < VERSION_MIN:
        text = f"{place} is nats-server {version}; {wanted} or later is needed"
        yield Check("server.version", "blocker", text, "its operator installs a later nats-server")
    elif numbers[0] > VERSION_TRIED[0]:
        tried = ".".join(map(str, VERSION_TRIED))
        text = f"{place} is nats-server {version}, and we were tried with {tried}"
        yield Check("server.version", "warning", text, "pip install --upgrade lender")
    else:
        yield Check("server.version", "ok", f"nats-server {version}; we need {wanted} or later")
    if not greeting.jetstream:
        text = f"{place} says that it has no JetStream"
        yield Check("server.jetstream", "warning", text, "its operator: nats-server --jetstream")
    if greeting.max_payload < PAYLOAD_BYTES_MAX:
        text = f"{place} takes messages of {greeting.max_payload} bytes; large jobs are refused"
        mend = f"its operator: max_payload: {PAYLOAD_BYTES_MAX}"
        yield Check("server.payload", "warning", text, mend)


def _secured(visit: Visit, line: Line, greeting: Greeting) -> Iterator[Check]:
    place, offered = line.place, greeting.tls_required or greeting.tls_available
    asked = visit.tls or visit.ca is not None
    if greeting.tls_required or (asked and offered):
        yield from tls.handshake(line, visit.ca)
    elif asked:
        text = f"{place} offers no TLS, and it was asked for: nothing is said to it"
        yield Check("tls", "blocker", text, "ask its operator; somebody may stand in between")
    elif _is_loopback(place.host):
        yield Check("tls", "ok", f"no TLS, and {place} is this machine's own loopback")
    else:
        text = f"all that is said with {place} can be read and changed on its way"
        mend = "get ca.pem from its operator, and name it: --ca ca.pem"
        yield Check("tls", "warning", text, mend)


def _let_in(visit: Visit, line: Line, greeting: Greeting) -> Iterator[Check]:
    way_in = visit.way_in
    said = {} if way_in is None else way_in.introduce(greeting.nonce)
    try:
        line.log_in(said)
    except RefusedError as error:
        yield _not_let_in(visit, line.place, printable(str(error)))
        return
    except LinkError as error:
        text = f"{line.place} does not answer as a NATS server: {printable(str(error))}"
        yield Check("login", "blocker", text, "ask its operator what stands in between")
        return
    before = time.time()
    try:
        inbox, standing = _standing(line, way_in)
    except (RefusedError, NoRespondersError, ProbeError):
        text = f"{line.place} lets us in, and does not say what we may do, nor its time"
        mend = "its operator signs the accounts for this version: lender-broker rotate"
        yield Check("permissions", "warning", text, mend)
        return
    except LinkError as error:
        text = f"{line.place} says strange things of us: {printable(str(error))}"
        yield Check("permissions", "blocker", text, "ask its operator what stands in between")
        return
    visit.standing = standing
    yield from skew(standing, before, time.time())
    url, local = f"nats://{line.place}", _is_loopback(line.place.host)
    yield from standing_checks(standing, way_in, visit.role, url, local=local)
    yield from _led(line, inbox)


def _standing(line: Line, way_in: WayIn | None) -> tuple[str, Standing]:
    """Ask by the inbox that is ours, or by strangers', for whom a server takes a key alone.

    Returns:
        The inbox that it let us have, and what it says.
    """
    strangers = f"{STRANGERS_INBOX}.{secrets.token_hex(8)}"
    if way_in is None or way_in.public_key is None:
        return strangers, line.standing(strangers)
    own = f"_INBOX_{way_in.public_key}.preflight"
    try:
        return own, line.standing(own)
    except RefusedError:
        if way_in.token is not None:
            raise
    return strangers, line.standing(strangers)


def _led(line: Line, inbox: str) -> Iterator[Check]:
    try:
        yield from leading_checks(line.leading(inbox))
    except RefusedError:
        return  # whether we should be let is said already
    except NoRespondersError:
        yield from leading_checks(None)
    except LinkError as error:
        text = f"{line.place} says nothing of its broker that we understand: {error}"
        mend = "its operator: is there a lender-broker?"
        yield Check("broker", "warning", printable(text), mend)


def _not_let_in(visit: Visit, place: Place, reason: str) -> Check:
    if visit.way_in is None:
        text = f"{place} lets in only whom its operator vouches for, and we are strangers yet"
        return Check("login", "info", text, f"lender enroll nats://{place}")
    text = f"{place} does not take {visit.way_in_file} ({reason})"
    mend = f"they are another fleet's, or have ended, or were revoked: lender enroll nats://{place}"
    return Check("login", "blocker", text, mend)


def _blocked(found: list[Check]) -> bool:
    return any(check.level == "blocker" for check in found)


def _numbers(version: str) -> tuple[int, ...] | None:
    """Major and minor; None: it is no version."""
    parts = version.split(".")[:2]
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    return tuple(int(part[:6]) for part in parts)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
