"""The core of enrolment with a store, machines that ask, and an operator."""

from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from broker.core.enrolment.enrolment import Enrolment
from broker.core.enrolment.events import (
    Admit,
    Allowed,
    AllowSubmitter,
    Asked,
    Effect,
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
    Approve,
    AskLenders,
    KeepToken,
    KnownLender,
    OperatorAnswer,
    Record,
    SetBound,
)
from lender.link.enrolling import Applicant, RefusedError, Wanted
from lender.protocol.codec import encode
from lender.protocol.enrolment import EnrolAnswer, EnrolledRole, digest_of
from lender.protocol.signature import SIGNATURE_HEADER, Signer, seed_from_entropy

START = 1_790_000_000.0

Death = Literal["", "before", "after"]


def signer(number: int) -> Signer:
    """A key."""
    return Signer(seed_from_entropy(bytes([number]) * 32))


def join_token(number: int) -> str:
    """A join token."""
    return f"ljt_{number:043d}"


class Machine:
    """One that asks."""

    def __init__(
        self,
        number: int,
        role: EnrolledRole = "lender",
        name: str = "desk",
        token: str | None = None,
        line: str | None = None,
        host: str = "10.0.0.1",
        classes: tuple[str, ...] = (),
    ) -> None:
        self.signer = signer(number)
        numbers = count(number * 1000)
        self.applicant = Applicant(
            self.signer,
            Wanted(role, name, classes, token),
            lambda size: next(numbers).to_bytes(size, "big"),
        )
        self.line = f"line-{number}" if line is None else line
        self.host = host
        self.refused = ""
        self.admitted: EnrolAnswer | None = None

    @property
    def code(self) -> str:
        """What it shows."""
        assert self.applicant.code is not None
        return self.applicant.code

    def asks(self, nonce: str) -> Asked:
        """What it would say now."""
        payload, headers = self.applicant.request()
        return Asked(payload, headers[SIGNATURE_HEADER], "stranger", nonce, self.line, self.host)

    def hears(self, answer: EnrolAnswer) -> None:
        """Take an answer."""
        try:
            self.admitted = self.applicant.take(encode(answer))
        except RefusedError as error:
            self.admitted, self.refused = None, str(error)


@dataclass
class World:
    """Brokers come and go; what is stored stays."""

    now: float = START
    core: Enrolment = field(default_factory=Enrolment)
    stored: dict[str, tuple[Record, int]] = field(default_factory=dict)
    allowed: dict[str, str] = field(default_factory=dict)
    admissions: list[Admit] = field(default_factory=list)
    last: OperatorAnswer = field(default_factory=OperatorAnswer)
    sequence: int = 0
    nonces: int = 0
    dies: Death = ""
    """Whether the broker dies when it is to write down who may submit; another one takes over."""

    def nonce(self) -> str:
        """Another one."""
        self.nonces += 1
        return f"{self.nonces:064x}"

    def store(self, effect: Store) -> Stored | NotStored:
        """As the server does: what was not seen is not replaced."""
        at = effect.record.subject
        if self.stored.get(at, (None, 0))[1] != effect.replaces:
            return NotStored(effect)
        self.sequence += 1
        self.stored[at] = (effect.record, self.sequence)
        return Stored(effect, self.sequence)

    def restart(self) -> None:
        """Another broker takes over."""
        self.core = Enrolment()
        self.core.handle(self.now, SubmittersNamed(self.allowed))
        self.carry_out(self.recall())

    def recall(self) -> list[Effect]:
        """Read what is stored."""
        records = tuple(sorted(self.stored.values(), key=lambda one: one[1]))
        return self.core.handle(self.now, Recalled(records))

    def forbid(self, name: str) -> None:
        """As the operator."""
        del self.allowed[name]
        self.core.handle(self.now, SubmittersNamed(self.allowed))

    def do(self, event: Asked | OperatorAsked | SubmittersNamed) -> EnrolAnswer | None:
        """Have it decided, and stored; returns what a stranger is told."""
        return self.carry_out(self.core.handle(self.now, event))

    def carry_out(self, effects: list[Effect]) -> EnrolAnswer | None:
        """Do what was decided."""
        told = None
        for effect in effects:
            match effect:
                case Store():
                    told = self.carry_out(self.core.handle(self.now, self.store(effect)))
                case Tell():
                    told = effect.answer
                case Admit():
                    self.admissions.append(effect)
                    one = effect.admission
                    told = EnrolAnswer(
                        key=one.key,
                        commitment=effect.commitment,
                        state="admitted",
                        token=f"token.of.{one.key}",
                        at=one.at,
                    )
                case AllowSubmitter():
                    dies, self.dies = self.dies, ""
                    if dies != "before":
                        self.allowed[effect.name] = effect.key
                        self.core.handle(self.now, SubmittersNamed(self.allowed))
                    if dies:
                        self.restart()
                        return None
                    self.carry_out(self.core.handle(self.now, Allowed(effect)))
                case Inform():
                    self.last = effect.answer
        return told

    def ask(self, machine: Machine, times: int = 1) -> None:
        """Have a machine ask, and hear what it is told."""
        for _ in range(times):
            answer = self.do(machine.asks(self.nonce()))
            if answer is not None:
                machine.hears(answer)

    def approve(
        self,
        code: str,
        key: str,
        submitters: tuple[str, ...] | None = None,
        name: str | None = None,
        pools: tuple[str, ...] | None = None,
    ) -> str:
        """As the operator; returns the broker's complaint."""
        what = Approve(code=code, key=key, submitters=submitters, pools=pools, name=name)
        self.last = OperatorAnswer()  # a broker that dies gives none
        self.do(OperatorAsked(what, "operator"))
        return self.last.error

    def keep(
        self,
        token: str,
        role: EnrolledRole = "lender",
        expires_s: float = 3600.0,
        submitters: tuple[str, ...] | None = None,
    ) -> str:
        """Have a join token kept; returns the broker's complaint."""
        digest = digest_of(token)
        what = KeepToken(digest=digest, role=role, expires_s=expires_s, submitters=submitters)
        self.do(OperatorAsked(what, "operator"))
        return self.last.error

    def bind(
        self,
        key: str,
        submitters: tuple[str, ...] | None = None,
        pools: tuple[str, ...] | None = None,
    ) -> str:
        """Say for whom a lender may work; returns the broker's complaint."""
        what = SetBound(key=key, submitters=submitters, pools=pools)
        self.do(OperatorAsked(what, "operator"))
        return self.last.error

    def lenders(self, key: str | None = None) -> tuple[KnownLender, ...]:
        """Those that were let in."""
        self.do(OperatorAsked(AskLenders(key=key), "operator"))
        return self.last.lenders

    def waiting(self) -> list[str]:
        """Codes of those who wait."""
        self.do(OperatorAsked(None, "operator"))
        return [one.code for one in self.last.requests]
