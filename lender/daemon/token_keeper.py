"""Keeps what lets lenderd into its fleet as the owner's grants, and the fleet's keys, want it.

A token that names classes follows the grants: another is fetched when they change, tried, put in
place of the first, and the line is made anew with it. Running work goes on meanwhile; its reports
are sent again. One that the server refuses, since the key that vouched for it was retired or the
operator bounds us otherwise, is fetched anew in the same way.
"""

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Callable, Iterable

from lender.core.events import TokenRead
from lender.core.token_pace import TokenPace
from lender.link.connection import Connected, Connection, Refused, State
from lender.link.credentials import JWT_LINE, credentials, part_of
from lender.link.enrolling import Applicant, RefusedError, Wanted, ask_once, connect_as_stranger
from lender.link.errors import LinkError
from lender.link.membership import Membership, MembershipError
from lender.link.trying import lets_in_by
from lender.link.way_in import token_of
from lender.protocol.classes import whose
from lender.protocol.enrolment import name_from
from lender.protocol.permissions import ALL, CLASS_TAG
from lender.protocol.signature import Signer

log = logging.getLogger(__name__)

LOOK_S = 0.2
REST_S = 5.0
"""The same while nothing is to be asked for: then we are told of what changes that, but for grants
that time ends, which have time."""
CONNECT_S = 5.0
VAIN_MAX = 3
"""So often a token is fetched that a server refuses as well: then the key was revoked."""

Granted = Callable[[], tuple[str, ...] | None]


class TokenKeeper:
    """One lender's; it does nothing before it was told what to keep."""

    def __init__(
        self,
        signer: Signer,
        seed: bytes,
        name: str,
        granted: Granted,
        post: Callable[[TokenRead], None],
    ) -> None:
        """Prepare.

        Args:
            signer: the lender's key.
            seed: the same, as credentials have it.
            name: what people call the machine.
            granted: returns the classes that the owner's grants name; None: not known yet.
            post: is told which of them our token names.
        """
        self._signer = signer
        self._seed = seed
        self._name = name_from(name)
        self._granted = granted
        self._post = post
        self._pace = TokenPace(random.random)
        self._membership: Membership | None = None
        self._text = ""
        self._held: frozenset[str] | None = None
        self._connection: Connection | None = None
        self._refusal = ""
        self._was_in = False
        self._stirred = asyncio.Event()
        self._vain = 0
        """How often we were given nothing that the server takes, since it last let us in."""
        self.out: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Set with the server's word when it has cut us off for good."""

    @property
    def not_approved(self) -> frozenset[tuple[str, str]]:
        """Whose work, and of which workload, is granted here and not approved by the operator."""
        return _work(self._pace.lacking) - _work(self._held or ())

    @property
    def not_asked(self) -> frozenset[tuple[str, str]]:
        """Whose work, and of which workload, is granted here beyond what one token can name."""
        return _work(self._pace.beyond) - _work(self._held or ())

    def keep(self, membership: Membership | None) -> None:
        """Look after these credentials; None: after none, since they are not ours to replace."""
        self._membership = membership
        self._read()

    def look(self) -> None:
        """Look at what is granted, which may have changed."""
        self._stirred.set()

    def use(self, connection: Connection) -> None:
        """Have this line, which is up, made anew when there is another token."""
        self._connection = connection
        self.on_state(Connected())

    def on_state(self, state: State) -> None:
        """Take up what became of the line."""
        if isinstance(state, Refused):
            if not self._refusal:  # what comes on the way back says less
                log.warning("%s: what lets us in is fetched anew", state.reason)
                self._refusal = state.reason
            self._pace.refused()
            self.look()
        elif isinstance(state, Connected):
            self._was_in, self._refusal, self._vain = True, "", 0
            self._pace.let_in()
            self._read()
            self._post(TokenRead(self._held))

    async def run(self) -> None:
        """Keep it until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REST_S if self._pace.rests else LOOK_S):
                    await self._stirred.wait()
            self._stirred.clear()
            membership = self._membership
            asked = self._pace.due(time.monotonic(), self._granted())
            if membership is None or asked is None:
                continue
            try:
                await self._fetch(membership, asked)
            except RefusedError as error:
                self._bar(str(error))
            except (LinkError, MembershipError, ValueError) as error:
                log.warning("no other token yet: %s", error)
                self._pace.failed(time.monotonic())

    async def _fetch(self, membership: Membership, asked: tuple[str, ...]) -> None:
        applicant = Applicant(self._signer, Wanted("lender", self._name, asked), os.urandom)
        url, ca, key = membership.url, membership.ca, self._signer.public_key
        async with await connect_as_stranger(url, ca, CONNECT_S) as stranger:
            answer = await ask_once(stranger, applicant)
        text = credentials(answer.token or "", self._seed) if answer is not None else ""
        if text == self._text and not self._refusal:
            self._pace.answered(time.monotonic(), asked, self._held)
        elif text not in ("", self._text) and await lets_in_by(
            text, membership.credentials.parent, url, ca, key
        ):
            held = _classes_of(text)
            membership.renew(text)
            self._text, self._held = text, held
            self._pace.answered(time.monotonic(), asked, self._held)
            log.info("another token was fetched: %s", _told(self._held))
            if self._connection is not None:
                await self._connection.come_back()
        else:
            self._in_vain()

    def _in_vain(self) -> None:
        self._pace.failed(time.monotonic())
        log.warning("the fleet has no token for us that its server takes")
        self._vain += 1
        if self._vain >= VAIN_MAX and self._is_revoked:
            self._bar("what it was given is refused as well")

    def _bar(self, reason: str) -> None:
        self._pace.barred()
        log.warning("this machine is let in no more: %s", reason)
        if self._is_revoked and not self.out.done():
            self.out.set_result(self._refusal)

    @property
    def _is_revoked(self) -> bool:
        """Whether the server has cut us off by that word; any other may pass, as it starts anew."""
        return self._was_in and "revoked" in self._refusal.lower()

    def _read(self) -> None:
        """Take up what somebody else may have put there: `lender enroll`."""
        if self._membership is None:
            return
        try:
            text = self._membership.credentials.read_bytes().decode("ascii")
            held = _classes_of(text)
        except (OSError, ValueError, IndexError) as error:
            log.warning("%s can't be used: %s", self._membership.credentials, error)
            return
        if text != self._text:
            self._text, self._held = text, held
            self._pace.read(held)
            self.look()
            self._post(TokenRead(held))


def _classes_of(text: str) -> frozenset[str] | None:
    """Return what the token of a file of credentials names; None: all classes.

    Raises:
        ValueError, IndexError: it holds no token.
    """
    tags = token_of(part_of(text, JWT_LINE)).nats.tags
    named = [tag.partition(":")[2] for tag in tags if tag.startswith(f"{CLASS_TAG}:")]
    return None if ALL in named else frozenset(named)


def _told(held: frozenset[str] | None) -> str:
    return "for all classes" if held is None else f"for {len(held)} classes"


def _work(classes: Iterable[str]) -> frozenset[tuple[str, str]]:
    named = filter(None, map(whose, classes))
    return frozenset((one.submitter, one.workload) for one in named)
