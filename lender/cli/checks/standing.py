"""What a server that lets us in says of us: our rights, held against the table, and its time."""

from collections.abc import Iterator, Mapping
from typing import Final

from lender.cli.checks.check import Check
from lender.cli.words import key as short_key
from lender.cli.words import printable, span
from lender.link.server_words import Rights, Standing, Subjects
from lender.link.way_in import WayIn
from lender.protocol.held_rights import Difference, Held, difference, nearest_role
from lender.protocol.permissions import Role, Verb

SKEW_WARNING_S: Final = 5.0
"""Leases, jobs and words of leave end by the clock, some after seconds."""
SKEW_BLOCKER_S: Final = 300.0
"""What is signed here would have ended, or not begun, where it is read."""

_TOLD_MAX: Final = 3
_RESIGN = "its operator signs the accounts for this version: lender-broker rotate"
_SET_CLOCK = "timedatectl set-ntp true"


def skew(standing: Standing, before: float, after: float) -> Iterator[Check]:
    """How far this clock is from the server's.

    Args:
        standing: has the server's time.
        before: this clock's, when it was asked.
        after: this clock's, when it had answered.
    """
    try:
        theirs = standing.server.time.timestamp()
    except (OverflowError, OSError, ValueError):
        yield Check("clock.server", "warning", "the server tells no time", "ask its operator")
        return
    ahead_s = (before + after) / 2 - theirs
    # It answered some time in between.
    sure_s = max(0.0, abs(ahead_s) - (after - before) / 2)
    which = "ahead of" if ahead_s > 0 else "behind"
    text = f"this clock is {span(sure_s)} {which} the server's"
    if sure_s > SKEW_BLOCKER_S:
        yield Check("clock.server", "blocker", text, f"{_SET_CLOCK}; or its operator's is wrong")
    elif sure_s > SKEW_WARNING_S:
        yield Check("clock.server", "warning", f"{text}: leases end too early", _SET_CLOCK)
    else:
        yield Check(
            "clock.server", "ok", f"this clock and the server's agree within {sure_s:.1f} s"
        )


def standing_checks(
    standing: Standing, way_in: WayIn | None, role: Role | None, url: str, *, local: bool
) -> Iterator[Check]:
    """Hold what the server lets us do against what the table says.

    Args:
        standing: what it said.
        way_in: how we were let in; None: as a stranger.
        role: that we want to be; None: the one that the rights are most like.
        url: of the server.
        local: it is on this machine's loopback.
    """
    rights = standing.data.permissions
    if rights is None or _everything(rights):
        yield _open_to_all(way_in, local=local)
        return
    key = way_in.public_key if way_in else None
    if key is None:
        if not difference("stranger", "", (), held_of(rights)).size:
            text = "the server lets in only whom its operator vouches for, and we are strangers yet"
            yield Check("login", "info", text, f"lender enroll {url}")
            return
        text = "the server has rules of its own: not those of `lender-broker init`"
        yield Check("permissions", "info", text, "its operator compares them: docs/permissions.md")
        return
    if way_in and way_in.token is None and not difference("stranger", "", (), held_of(rights)).size:
        text = "a key without a token lets nobody in there: the server takes us for strangers"
        mend = f"lender enroll {url} (--role submitter --key FILE), which finds its token by itself"
        yield Check("login", "blocker", text, mend)
        return
    if standing.data.user != key:
        text = f"the server takes us for {printable(short_key(standing.data.user))}"
        yield Check("pins.key", "blocker", text, "have the credentials made anew, for this key")
        return
    tags = way_in.token.nats.tags if way_in and way_in.token else ()
    held = held_of(rights)
    wanted = role or nearest_role(key, tags, held)
    yield from _compared(wanted, difference(wanted, key, tags, held))


def held_of(rights: Rights) -> Mapping[Verb, Held]:
    """Return rights in the words of the table."""
    return {"publish": _held(rights.publish), "subscribe": _held(rights.subscribe)}


def _held(subjects: Subjects | None) -> Held:
    if subjects is None or not subjects.allow:
        # A server that names no bounds sets none.
        return Held((">",), subjects.deny if subjects else ())
    return Held(subjects.allow, subjects.deny)


def _everything(rights: Rights) -> bool:
    return all(one == Held((">",)) for one in held_of(rights).values())


def _open_to_all(way_in: WayIn | None, *, local: bool) -> Check:
    if way_in is not None:
        text = "the server lets us do everything: so it may let others"
    else:
        text = "the server asks nobody who they are: whoever reaches it reads and disturbs all"
    if local:
        return Check("permissions", "info", f"{text}; fine on a machine of your own")
    return Check("permissions", "warning", text, "its operator: lender-broker init")


def _compared(role: Role, found: Difference) -> Iterator[Check]:
    if not found.size:
        yield Check("permissions", "ok", f"we may do what a {role} may, and nothing else")
    if found.missing:
        text = f"the server does not let us do all that a {role} does: {_some(found.missing)}"
        yield Check("permissions.missing", "blocker", text, _RESIGN)
    if found.beyond:
        text = f"the server lets us do more than a {role} should: {_some(found.beyond)}"
        yield Check("permissions.beyond", "warning", text, _RESIGN)


def _some(lines: tuple[str, ...]) -> str:
    more = len(lines) - _TOLD_MAX
    told = printable("; ".join(line[:120] for line in lines[:_TOLD_MAX]))
    return f"{told}, and {more} more" if more > 0 else told
