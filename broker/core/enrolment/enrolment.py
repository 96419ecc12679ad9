"""Decides who is let in: `handle(now, event) -> effects`. No clock, no randomness, no I/O.

What was decided counts once it is stored: `Store` names the record that it follows, so that of two
brokers, or two requests with one join token, the server takes one.
"""

from typing import assert_never

from broker.core.enrolment.bound import Bound
from broker.core.enrolment.events import (
    Admit,
    Allowed,
    AllowSubmitter,
    Asked,
    Effect,
    Event,
    Inform,
    NotStored,
    OperatorAsked,
    Recalled,
    Store,
    Stored,
    SubmittersNamed,
    Tell,
)
from broker.core.enrolment.messages import (
    Admission,
    Approve,
    AskLenders,
    JoinToken,
    KeepToken,
    KnownLender,
    OperatorAnswer,
    Record,
    SetBound,
    WaitingRequest,
    Whom,
    admission_in,
    as_allowed,
)
from broker.core.enrolment.people import Named, UnknownNameError, fault_of
from broker.core.enrolment.waiting import Waiting, WaitingRoom, Who
from lender.protocol.codec import decode
from lender.protocol.enrolment import (
    ALL_CLASSES,
    EnrolAnswer,
    EnrolRequest,
    EnrolState,
    commitment_of,
    digest_of,
    read_code,
    signed_part,
)
from lender.protocol.errors import ProtocolError
from lender.protocol.signature import verify

TOKENS_MAX = 1000
"""Join tokens that are good."""

TOLD_MAX = 256
"""Requests in one answer to the operator."""

_NO_TOKEN = "this join token is not good: it was used, or has expired, or is for another role"  # noqa: S105
_NO_CODE = (
    "nobody waits under that code, or under it no more: `lender-broker requests` lists who does"
)


class Enrolment:
    """What one broker knows of enrolment."""

    def __init__(self) -> None:
        self._room = WaitingRoom()
        self._tokens: dict[str, tuple[JoinToken, int]] = {}
        self._admissions: dict[Who, Admission] = {}
        self._sequences: dict[str, int] = {}
        """Of the record at each subject."""
        self._submitters = Named({})

    @property
    def bounds(self) -> dict[str, Bound]:
        """Return the bound of each lender that has one, by key."""
        return {
            key: one.bound
            for (role, key), one in self._admissions.items()
            if role == "lender" and one.bound is not None
        }

    def handle(self, now: float, event: Event) -> list[Effect]:
        """Return what is to be done about an event; `now` in seconds since the epoch."""
        self._room.tidy(now)
        match event:
            case Asked():
                return self._asked(now, event)
            case OperatorAsked():
                return [self._operator_asked(now, event)]
            case SubmittersNamed():
                self._submitters = Named(event.keys)
                return []
            case Recalled():
                return self._recalled(event)
            case Allowed() | Stored() | NotStored():
                return self._done(event)
            case _:
                assert_never(event)

    def _recalled(self, event: Recalled) -> list[Effect]:
        """Go on where a broker was cut off that had let a submitter in, and not yet allowed it."""
        self._tokens, self._admissions, self._sequences = {}, {}, {}
        for record, sequence in event.records:
            self._know(record, sequence)
        return [
            effect
            for record, sequence in event.records
            for effect in self._allowing(record, sequence)
        ]

    def _allowing(self, record: Record, sequence: int) -> list[Effect]:
        one = admission_in(record)
        if one is None or one.allowed or self._name_fault(one.role, one.name, one.key):
            return []
        return [AllowSubmitter(one.name, one.key, record, sequence)]

    def _asked(self, now: float, event: Asked) -> list[Effect]:
        """Whatever is not what we know is answered by nothing: it names nobody to be told."""
        try:
            request = decode(EnrolRequest, event.payload)
            verify(request.key, signed_part(event.payload), event.signature)
        except ProtocolError:
            return []
        admission = self._admissions.get((request.role, request.key))
        if admission is not None and admission.at > request.after:
            named = admission.named(request.classes)
            return [Admit(event.reply_to, admission, request.commitment, named)]
        if request.token is not None:
            return [self._join(now, request, request.token, event.reply_to)]
        return [self._wait(now, request, event)]

    def _join(self, now: float, request: EnrolRequest, token: str, reply_to: str) -> Effect:
        kept, sequence = self._tokens.get(digest_of(token), (None, 0))
        if (
            kept is None
            or kept.used is not None
            or kept.role != request.role
            or kept.expires_at <= now
        ):
            return _answer(request, reply_to, "refused", reason=_NO_TOKEN)
        if fault := self._name_fault(request.role, request.name, request.key):
            return _answer(request, reply_to, "refused", reason=fault)
        used = self._admission(now, request, request.name, kept.classes, kept.bound)
        record = kept.model_copy(update={"used": used})
        return Store(record, sequence, reply_to, request.commitment)

    def _wait(self, now: float, request: EnrolRequest, event: Asked) -> Effect:
        one = self._room.get((request.role, request.key))
        if one is None or one.request.commitment != request.commitment:
            if request.opening is not None:
                return _answer(request, event.reply_to, "anew", reason="the code has expired")
            one = Waiting(request, event.nonce, event.line, event.host, now, now)
            if not self._room.take_in(one):
                reason = "too many wait already from where you are; this is tried again"
                return _answer(request, event.reply_to, "anew", reason=reason)
        one.heard_at = now
        if request.opening is None:
            return _answer(request, event.reply_to, "begun", nonce=one.nonce)
        opened = commitment_of(request.opening) == request.commitment
        if not opened or not self._room.open(one, request.opening):
            self._room.drop((request.role, request.key))
            return _answer(request, event.reply_to, "anew", reason="that code can't be used")
        return _answer(request, event.reply_to, "waiting")

    def _operator_asked(self, now: float, event: OperatorAsked) -> Effect:
        what, reply_to = event.what, event.reply_to
        try:
            match what:
                case Approve():
                    return self._approve(now, what, reply_to)
                case KeepToken():
                    return self._keep_token(now, what, reply_to)
                case SetBound():
                    return self._set_bound(now, what, reply_to)
                case AskLenders():
                    return Inform(reply_to, OperatorAnswer(lenders=self._lenders(what.key)))
                case None:
                    return self._who_waits(now, reply_to)
                case _:
                    assert_never(what)
        except UnknownNameError as error:
            return _refusal(reply_to, str(error))

    def _who_waits(self, now: float, reply_to: str) -> Effect:
        told = [
            WaitingRequest(
                code=one.code,
                role=one.request.role,
                key=one.request.key,
                name=one.request.name,
                host=one.host[:60],
                waits_s=max(0.0, now - one.since),
            )
            for one in self._room
            if one.code
        ]
        return Inform(reply_to, OperatorAnswer(requests=tuple(told[:TOLD_MAX])))

    def _approve(self, now: float, what: Approve, reply_to: str) -> Effect:
        try:
            one = self._room.under(read_code(what.code))
        except ProtocolError as error:
            return _refusal(reply_to, error.reason)
        if one is None or one.request.key != what.key:
            return _refusal(reply_to, _NO_CODE)
        request = one.request
        name = what.name or request.name
        if fault := self._name_fault(request.role, name, request.key):
            return _refusal(reply_to, f"{fault}; give it another by --name")
        bound = self._bound(request.role, what)
        record = self._admission(now, request, name, _all_classes(request.role, bound), bound)
        return Store(record, self._sequences.get(record.subject, 0), reply_to, "")

    def _keep_token(self, now: float, what: KeepToken, reply_to: str) -> Effect:
        good = [1 for kept, _ in self._tokens.values() if not kept.used and kept.expires_at > now]
        if len(good) >= TOKENS_MAX:
            return _refusal(reply_to, f"{len(good)} join tokens wait to be used: enough for now")
        bound = self._bound(what.role, what)
        record = JoinToken(
            digest=what.digest,
            role=what.role,
            classes=_all_classes(what.role, bound),
            bound=bound,
            expires_at=int(now + what.expires_s),
        )
        return Store(record, 0, reply_to, "")

    def _set_bound(self, now: float, what: SetBound, reply_to: str) -> Effect:
        known = self._admissions.get(("lender", what.key))
        if known is None:
            return _refusal(reply_to, "no lender with that key was let in")
        bound = self._bound("lender", what)
        classes = _all_classes("lender", bound)
        if (known.bound, known.classes) == (bound, classes):
            return Inform(reply_to, OperatorAnswer(lenders=self._lenders(what.key)))
        if known.at > now:
            return _refusal(reply_to, "that was said anew in this very second: do it again")
        # Its earlier tokens can be refused then, and the next one is not among them.
        at = int(now) + 1
        record = known.model_copy(update={"bound": bound, "classes": classes, "at": at})
        return Store(record, self._sequences.get(record.subject, 0), reply_to, "")

    def _bound(self, role: str, what: Whom) -> Bound | None:
        """Return what was said, by keys; None: no bound.

        Raises:
            UnknownNameError: a name leads to nobody.
        """
        if role != "lender" or (what.submitters, what.pools) == (None, None):
            return None
        return Bound(submitters=self._submitters.keys(what.submitters), pools=what.pools)

    def _lenders(self, key: str | None) -> tuple[KnownLender, ...]:
        wanted = [
            one
            for (role, of), one in self._admissions.items()
            if role == "lender" and key in (None, of)
        ]
        return tuple(
            KnownLender(
                key=one.key,
                name=one.name,
                submitters=None if one.bound is None else self._submitters.names(one.bound),
                pools=None if one.bound is None else one.bound.pools,
                at=one.at,
            )
            for one in wanted[:TOLD_MAX]
        )

    def _done(self, event: Allowed | Stored | NotStored) -> list[Effect]:
        if isinstance(event, Stored):
            return self._stored(event)
        if isinstance(event, NotStored):
            return self._not_stored(event.store)
        # Said once, and kept: whom an operator forbids afterwards stays forbidden.
        done = event.allowing
        return [Store(as_allowed(done.record), done.sequence, "", "")]

    def _stored(self, event: Stored) -> list[Effect]:
        store, record = event.store, event.store.record
        self._know(record, event.sequence)
        if not store.reply_to:
            return []
        admission = admission_in(record)
        if admission is None:
            return [Inform(store.reply_to, OperatorAnswer())]
        self._room.drop((admission.role, admission.key))
        allowed = self._allowing(record, event.sequence)
        if isinstance(record, JoinToken):
            named = admission.named(())
            return [*allowed, Admit(store.reply_to, admission, store.commitment, named)]
        known = self._lenders(admission.key) if admission.role == "lender" else ()
        return [*allowed, Inform(store.reply_to, OperatorAnswer(lenders=known))]

    def _not_stored(self, store: Store) -> list[Effect]:
        if store.commitment or not store.reply_to:
            return []  # it asks again, or is found when the records are read again
        return [_refusal(store.reply_to, "it could not be kept just now: do it again")]

    def _know(self, record: Record, sequence: int) -> None:
        self._sequences[record.subject] = sequence
        if isinstance(record, JoinToken):
            self._tokens[record.digest] = (record, sequence)
        admission = admission_in(record)
        if admission is None:
            return
        who = (admission.role, admission.key)
        known = self._admissions.get(who)
        if known is None or admission.at >= known.at:
            self._admissions[who] = admission

    def _admission(
        self,
        now: float,
        request: EnrolRequest,
        name: str,
        classes: tuple[str, ...],
        bound: Bound | None,
    ) -> Admission:
        # A key that was revoked in this very second is let in by what was issued after it.
        again = (request.role, request.key) in self._admissions
        return Admission(
            role=request.role,
            key=request.key,
            name=name,
            classes=classes,
            bound=bound,
            at=int(now) + again,
            allowed=request.role != "submitter",
        )

    def _name_fault(self, role: str, name: str, key: str) -> str:
        """Say why a key can't be called so: a submitter's name is known to lead to its key."""
        if role != "submitter":
            return ""
        if fault := fault_of(name):
            return fault
        if self._submitters.by_name.get(name, key) == key:
            return ""
        return f"another submitter is called {name}"


def _all_classes(role: str, bound: Bound | None) -> tuple[str, ...]:
    """Return what the token of somebody without a bound names."""
    return (ALL_CLASSES,) if role == "lender" and bound is None else ()


def _answer(
    request: EnrolRequest,
    reply_to: str,
    state: EnrolState,
    nonce: str | None = None,
    reason: str = "",
) -> Tell:
    answer = EnrolAnswer(
        key=request.key,
        commitment=request.commitment,
        state=state,
        nonce=nonce,
        reason=reason,
    )
    return Tell(reply_to, answer)


def _refusal(reply_to: str, reason: str) -> Inform:
    return Inform(reply_to, OperatorAnswer(error=reason))
