"""What is pinned here (keys, an authority, work, programs), held against what was met."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lender.cli.checks import tls
from lender.cli.checks.check import Check
from lender.cli.consent_words import changed, known_programs
from lender.cli.words import key as short_key
from lender.cli.words import printable, span
from lender.client.errors import KeyFault
from lender.client.keys import read_trusted
from lender.core.consent import Grant
from lender.link.way_in import WayIn
from lender.protocol.classes import WorkClass
from lender.protocol.errors import ProtocolError
from lender.protocol.permissions import CLASS_TAG
from lender.protocol.signature import Signer, check_public_key
from lender.state.consent_files import load_consent
from lender.state.folder import StateFolder

TRUST = "LENDER_TRUST"

_EXPIRES_SOON_S = 7 * 86_400.0
_APPROVE = "start lenderd, or ask its operator: lender-broker bound {} --add {}"
_ENROLL = "lender enroll --renew URL, on this machine"


def authority(ca: Path) -> Iterator[Check]:
    """Whom we let vouch for the server: to be compared with what its operator says."""
    for digest, ends_at in tls.authorities(ca):
        text = f"{ca} pins the authority SHA256:{digest}"
        left_s = ends_at - time.time()
        if left_s < tls.EXPIRES_SOON_S:
            mend = "get a new ca.pem from its operator by a way that you trust"
            yield Check("pins.ca", "warning", f"{text}, which ends in {span(left_s)}", mend)
        else:
            yield Check("pins.ca", "ok", text)


def own_key(state: StateFolder | None, way_in: WayIn | None) -> Iterator[Check]:
    """Which key is ours, and whether what lets us in was given to that one."""
    mine = _identity(state)
    given = way_in.public_key if way_in else None
    token = way_in.token if way_in else None
    if token is not None and token.sub != given:
        text = f"the token is for {printable(token.sub[:56])}, and the key beside it is {given}"
        yield Check("pins.token", "blocker", text, _ENROLL)
    if mine is not None and given is not None and mine != given:
        text = f"this machine signs as {mine}, and its credentials are for {given}"
        yield Check("pins.key", "blocker", text, _ENROLL)
    elif mine or given:
        yield Check("pins.key", "ok", f"our public key is {mine or given}")
    if token is not None and token.exp is not None:
        left_s = token.exp - time.time()
        if left_s < _EXPIRES_SOON_S:
            ends = f"ends in {span(left_s)}" if left_s > 0 else "has ended"
            yield Check("pins.token", "warning", f"what lets us in {ends}", _ENROLL)


def grants(state: StateFolder, way_in: WayIn, now: float) -> Iterator[Check]:
    """Whose work the owner granted, and whether the server would hand it out to us."""
    tags = way_in.token.nats.tags if way_in.token else ()
    classes = [tag.partition(":")[2] for tag in tags if tag.startswith(f"{CLASS_TAG}:")]
    reading = load_consent(state)
    for grant in reading.consent.valid(now):
        name = printable(reading.names.get(grant.submitter, "") or short_key(grant.submitter))
        what = f"{grant.workload} of {name} ({grant.submitter})"
        if _is_handed_out(grant, classes):
            yield Check("pins.grant", "ok", f"granted, and let through by our token: {what}")
        else:
            text = f"granted, and the operator has not approved this machine for it: {what}"
            yield Check(
                "pins.grant", "warning", text, _APPROVE.format(way_in.public_key, grant.submitter)
            )


def programs(state: StateFolder, now: float) -> Iterator[Check]:
    """Which programs the owner's grants are pinned to, and whether those are still the ones."""
    known = known_programs(state)
    for grant in load_consent(state).consent.valid(now):
        if grant.digest is None:
            continue
        what = f"grant {grant.id} pins {grant.workload} to sha256:{grant.digest[:12]}…"
        if changed(grant, known):
            text = f"{what}, and this machine knows another program: nothing runs by it"
            yield Check("pins.program", "warning", text, "lender grant it again, if you want that")
        else:
            yield Check("pins.program", "ok", what)


def trusted(path: Path) -> Iterator[Check]:
    """Whose results count for a submitter who named some lenders."""
    try:
        keys = read_trusted(path)
    except KeyFault as error:
        yield Check("pins.trust", "blocker", str(error), f"name another file, or none: {TRUST}")
        return
    wrong = [key for key in keys if not _is_key(key)]
    if wrong:
        text = f"{path} names {printable(wrong[0][:60])}, which is no lender's public key"
        yield Check("pins.trust", "blocker", text, "correct that line: a key is U and 55 more")
    elif not keys:
        text = f"{path} names no lender: no result counts"
        yield Check("pins.trust", "warning", text, f"name some, or unset {TRUST}")
    else:
        yield Check("pins.trust", "ok", f"results of {len(keys)} lenders count, by {path}")


def _is_key(text: str) -> bool:
    try:
        return bool(check_public_key(text))
    except ProtocolError:
        return False


def _is_handed_out(grant: Grant, classes: Sequence[str]) -> bool:
    for name in classes:
        if name == "*":
            return True
        try:
            one = WorkClass.parse(name)
        except ProtocolError:
            continue
        if (one.submitter, one.workload) == (grant.submitter, grant.workload):
            return True
    return False


def _identity(state: StateFolder | None) -> str | None:
    """The key of this machine; None: it has none yet.

    Raises:
        OSError, ValueError: it can't be read.
    """
    if state is None or not state.identity.exists():
        return None
    try:
        return Signer(state.identity.read_bytes()).public_key
    except ProtocolError as error:
        raise ValueError(f"{state.identity}: {error.reason}") from error
