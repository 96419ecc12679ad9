"""Asks a fleet to let a key in, as a stranger, until it is let in, refused, or time is up."""

import asyncio
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lender.link.connection import Connection, connect
from lender.link.errors import LinkError, NoRespondersError
from lender.protocol import subjects
from lender.protocol.codec import CONTENT_TYPE_HEADER, MSGPACK, decode, encode
from lender.protocol.enrolment import (
    OPENING_BYTES,
    EnrolAnswer,
    EnrolledRole,
    EnrolRequest,
    code_of,
    commitment_of,
    signed_part,
)
from lender.protocol.errors import ProtocolError
from lender.protocol.permissions import STRANGERS_INBOX
from lender.protocol.signature import SIGNATURE_HEADER, Signer

ASK_AGAIN_S = 1.0
_ANSWER_S = 3.0
_NOBODY_S = 0.2
_TOKEN = re.compile(r"[A-Za-z0-9_.-]+")
"""A JWT's letters: in a file of credentials nothing else can follow from one."""


class RefusedError(Exception):
    """The broker will not let this key in; says why."""


class Wanted(NamedTuple):
    """What a key asks for.

    Attributes:
        role: as which it would be let in.
        name: what people are to call it.
        classes: of a lender, that its token is to name where the operator bounds whom it works
            for: what its owner's grants name. Another's names all of them.
        join_token: approves it, if it is good; None: the operator is to.
    """

    role: EnrolledRole
    name: str
    classes: tuple[str, ...] = ()
    join_token: str | None = None


class Applicant:
    """One key that asks. It holds to the first nonce that it was told for an opening."""

    def __init__(self, signer: Signer, wanted: Wanted, entropy: Callable[[int], bytes]) -> None:
        """Prepare; `entropy` returns so many random bytes."""
        self._signer = signer
        self._wanted = wanted
        self._entropy = entropy
        self._after = 0
        self.why_anew = ""
        """What the broker said when it had us begin again."""
        self.begin()

    def begin(self) -> None:
        """Choose another opening, under which another nonce may be told."""
        self._opening = self._entropy(OPENING_BYTES).hex()
        self._nonce: str | None = None
        self.waits = False
        """Whether the operator can approve the code by now."""

    def is_no_good(self, token_at: int) -> None:
        """Note that a token of this second is refused by the server: ask for a later one."""
        self._after = token_at
        self.begin()

    @property
    def code(self) -> str | None:
        """What people are to compare; None until the broker has answered."""
        if self._nonce is None:
            return None
        return code_of(self._signer.public_key, self._nonce, self._opening)

    def request(self) -> tuple[bytes, dict[str, str]]:
        """Return payload and headers of what is to be asked next."""
        payload = encode(
            EnrolRequest(
                role=self._wanted.role,
                key=self._signer.public_key,
                name=self._wanted.name,
                classes=self._wanted.classes,
                commitment=commitment_of(self._opening),
                opening=None if self._nonce is None else self._opening,
                after=self._after,
                token=self._wanted.join_token,
            )
        )
        signature = self._signer.sign(signed_part(payload))
        return payload, {SIGNATURE_HEADER: signature, CONTENT_TYPE_HEADER: MSGPACK}

    def take(self, payload: bytes) -> EnrolAnswer | None:
        """Return an answer that admits us; None for any other.

        Raises:
            RefusedError: we are not let in.
        """
        try:
            answer = decode(EnrolAnswer, payload)
        except ProtocolError:
            return None
        ours = (self._signer.public_key, commitment_of(self._opening))
        if (answer.key, answer.commitment) != ours:
            return None  # another's, which somebody had sent to us
        if answer.state == "admitted":
            return answer if _TOKEN.fullmatch(answer.token or "") else None
        if answer.state == "refused":
            raise RefusedError(answer.reason)
        if answer.state == "anew":
            self.why_anew = answer.reason
            self.begin()
        elif answer.state == "waiting":
            self.waits = True
        elif answer.state == "begun" and answer.nonce is not None:
            if self._nonce not in (None, answer.nonce):
                # Our opening is known by now: a nonce could have been made to fit a code.
                self.begin()
            else:
                self._nonce = answer.nonce
        return None


async def ask(
    connection: Connection, applicant: Applicant, tell: Callable[[], None]
) -> EnrolAnswer:
    """Ask until we are let in; `tell` is called after each answer, and where none came.

    Raises:
        RefusedError: we are not.
    """
    while True:
        before = applicant.code
        payload, headers = applicant.request()
        pause_s = ASK_AGAIN_S
        try:
            msg = await connection.request(subjects.ENROL, payload, headers, _ANSWER_S)
            if (answer := applicant.take(msg.data)) is not None:
                return answer
            if before is None and applicant.code is not None:
                pause_s = 0.0  # now it can be shown
        except NoRespondersError:
            # The broker reads no more just now, as in a flood: who comes often is let through.
            pause_s = _NOBODY_S * (0.5 + random.random())  # noqa: S311 - jitter
        except LinkError:
            pass
        tell()
        await asyncio.sleep(pause_s)


async def connect_as_stranger(url: str, ca: Path | None, timeout_s: float) -> Connection:
    """Connect as who has no token yet.

    Raises:
        ConnectError, CredentialsError: see `connect`.
    """
    return await connect(
        url, name="lender enroll", ca=ca, inbox_prefix=STRANGERS_INBOX, timeout_s=timeout_s
    )


async def ask_once(connection: Connection, applicant: Applicant) -> EnrolAnswer | None:
    """Have a token made for a key that was let in before; None: no answer that we can use.

    Nobody is asked to approve anything: who is not in is told so at once, and waits for nothing.

    Raises:
        RefusedError: the fleet lets this key in no more.
        LinkError: nobody answers.
    """
    payload, headers = applicant.request()
    msg = await connection.request(subjects.ENROL, payload, headers, _ANSWER_S)
    answer = applicant.take(msg.data)
    if answer is None and (applicant.code is not None or applicant.why_anew):
        raise RefusedError("the operator has to let this machine in anew: `lender enroll`")
    return answer
