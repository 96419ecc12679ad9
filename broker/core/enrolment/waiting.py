"""Requests that wait for the operator: bounded, since strangers write them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from lender.protocol.enrolment import CODE_LIVES_S, EnrolRequest, code_of

ALL_MAX = 512
OF_HOST_MAX = 64
OF_LINE_MAX = 2
"""One machine needs one; another is one that was begun anew."""

SILENT_S = 30.0
"""Who waits asks every few seconds; who does not has gone."""

Who = tuple[str, str]
"""Role and public key."""


@dataclass(slots=True)
class Waiting:
    """One request, as it was when it began."""

    request: EnrolRequest
    nonce: str
    line: str
    host: str
    since: float
    heard_at: float
    code: str = ""
    """Empty until it was opened."""


class WaitingRoom:
    """Who waits."""

    def __init__(self) -> None:
        self._waiting: dict[Who, Waiting] = {}

    def __iter__(self) -> Iterator[Waiting]:
        """Return all of them, those that came first before others."""
        return iter(self._waiting.values())

    def tidy(self, now: float) -> None:
        """Forget who has gone, and codes that are too old."""
        for who, one in list(self._waiting.items()):
            if now > one.since + CODE_LIVES_S or now > one.heard_at + SILENT_S:
                del self._waiting[who]

    def get(self, who: Who) -> Waiting | None:
        """Return the request of a key, if it waits."""
        return self._waiting.get(who)

    def take_in(self, one: Waiting) -> bool:
        """Let a request wait, in place of an earlier one of its key; False: there is no room."""
        who = (one.request.role, one.request.key)
        others = [other for at, other in self._waiting.items() if at != who]
        lines = Counter(other.line for other in others)
        hosts = Counter(other.host for other in others)
        if (
            len(others) >= ALL_MAX
            or (one.host and hosts[one.host] >= OF_HOST_MAX)
            or (one.line and lines[one.line] >= OF_LINE_MAX)
        ):
            return False
        self._waiting.pop(who, None)
        self._waiting[who] = one
        return True

    def open(self, one: Waiting, opening: str) -> bool:
        """Give a request its code; False where another waits under the same one."""
        code = code_of(one.request.key, one.nonce, opening)
        if any(other.code == code for other in self if other is not one):
            return False
        one.code = code
        return True

    def under(self, code: str) -> Waiting | None:
        """Return who waits under a code."""
        return next((one for one in self if one.code == code), None)

    def drop(self, who: Who) -> None:
        """Forget a request."""
        self._waiting.pop(who, None)
