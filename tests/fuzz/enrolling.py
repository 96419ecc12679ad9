"""Enrolment: what strangers say to the broker, and what is said to those who ask."""

from enrolment_world import Machine, World, join_token, signer

from broker.core.enrolment.bound import Bound
from broker.core.enrolment.events import (
    Asked,
)
from broker.core.enrolment.messages import (
    Admission,
    Approve,
    AskLenders,
    JoinToken,
    KeepToken,
    SetBound,
)
from broker.service.enrolment import Place, asked_by_operator, place_of
from broker.service.enrolment_kept import record_of
from fuzz.target import Target, taken
from lender.link.enrolling import Applicant, RefusedError, Wanted
from lender.protocol.codec import encode
from lender.protocol.enrolment import EnrolAnswer, commitment_of, signed_part
from lender.protocol.errors import ProtocolError

_KEY = signer(1)
_ADMISSION = Admission(role="lender", key=_KEY.public_key, name="desk", classes=("*",), at=9)
_BOUND = _ADMISSION.model_copy(
    update={"classes": (), "bound": Bound(submitters=(_KEY.public_key,), pools=("a",))}
)
_TOKEN = JoinToken(digest="ab" * 32, role="lender", expires_at=99, used=_ADMISSION)


def _stranger(data: bytes) -> None:
    """Another still pairs, and nobody is in whom nobody approved."""
    world, desk = World(), Machine(2)
    world.keep(join_token(1))
    for line in ("a", "b"):
        signature = _KEY.sign(signed_part(data))
        world.do(Asked(data, signature, "stranger", world.nonce(), line, "host"))
    world.ask(desk, 2)
    assert world.approve(desk.code, desk.signer.public_key) == ""
    world.ask(desk)
    assert desk.admitted is not None
    assert {one.admission.key for one in world.admissions} == {desk.signer.public_key}


def _kept(data: bytes) -> None:
    for subject in (_ADMISSION.subject, _TOKEN.subject):
        record = taken(ProtocolError, record_of, subject, data)
        assert record is None or record.subject == subject


def _operator(data: bytes) -> None:
    words = ("approve", "token", "bound", "lenders", "x")
    for subject in (f"enrolment.{word}" for word in words):
        taken(ProtocolError, asked_by_operator, subject, data)


def _place(data: bytes) -> None:
    found = place_of(data.decode(errors="replace"))
    assert isinstance(found, Place)
    assert len(found.line) <= 250
    assert len(found.host) <= 100


def _applicant(data: bytes) -> None:
    one = Applicant(_KEY, Wanted("lender", "desk"), bytes)
    found = taken(RefusedError, one.take, data)
    assert found is None or (found.key == _KEY.public_key and found.token)
    one.request()


def _answers() -> tuple[bytes, ...]:
    base = EnrolAnswer(
        key=_KEY.public_key, commitment=commitment_of(bytes(32).hex()), state="begun"
    )
    return tuple(
        encode(base.model_copy(update=fields))
        for fields in (
            {"nonce": "ab" * 32},
            {"state": "waiting"},
            {"state": "admitted", "token": "e.y.x", "at": 9},
            {"state": "refused", "reason": "no"},
            {"state": "anew"},
        )
    )


_DESK = Machine(1)
TARGETS = (
    Target(
        "broker-enrolment",
        _stranger,
        (_DESK.applicant.request()[0],),
        ("broker.core.enrolment.enrolment.Enrolment._asked",),
    ),
    Target(
        "broker-enrolment-kept",
        _kept,
        (encode(_ADMISSION), encode(_BOUND), encode(_TOKEN)),
        ("broker.service.enrolment_kept.record_of",),
    ),
    Target(
        "broker-enrolment-operator",
        _operator,
        (
            encode(
                Approve(code="4G7K-X2MQ", key=_KEY.public_key, submitters=("alice",), name="desk")
            ),
            encode(KeepToken(digest="ab" * 32, role="lender", expires_s=60.0, pools=("a",))),
            encode(SetBound(key=_KEY.public_key, submitters=(_KEY.public_key, "bob"))),
            encode(AskLenders(key=_KEY.public_key)),
        ),
        ("broker.service.enrolment.asked_by_operator",),
    ),
    Target(
        "broker-enrolment-place",
        _place,
        (b'{"acc":"A","host":"10.0.0.1","id":7,"server":"one"}',),
        ("broker.service.enrolment.place_of",),
    ),
    Target(
        "link-enrolment-answer",
        _applicant,
        _answers(),
        ("lender.link.enrolling.Applicant.take",),
    ),
)
