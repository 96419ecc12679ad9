"""Who is let in: by code, by join token, once; what does not wait, and what is refused."""

import pytest
from enrolment_world import START, Death, Machine, World, join_token, signer

from broker.core.enrolment import enrolment, waiting
from broker.core.enrolment.events import (
    Allowed,
    AllowSubmitter,
    Asked,
    Store,
    SubmittersNamed,
)
from broker.core.enrolment.messages import Admission, JoinToken
from lender.link.enrolling import Applicant, Wanted
from lender.protocol.codec import decode, encode
from lender.protocol.enrolment import EnrolAnswer, EnrolRequest, code_of
from lender.protocol.signature import SIGNATURE_HEADER

CLASS = f"default_wasm_any_none_{signer(90).public_key}_wasm"


@pytest.fixture
def world() -> World:
    return World()


def test_a_machine_is_let_in_by_the_code_that_it_shows(world: World) -> None:
    desk = Machine(1)
    world.ask(desk)
    assert world.waiting() == [], "nobody is shown before the code is certain"
    world.ask(desk)
    assert world.waiting() == [desk.code]
    (shown,) = world.last.requests
    assert (shown.key, shown.name, shown.host) == (desk.signer.public_key, "desk", "10.0.0.1")
    assert desk.admitted is None
    assert world.approve(desk.code, desk.signer.public_key) == ""
    assert world.waiting() == []
    world.ask(desk)
    assert desk.admitted is not None
    assert desk.admitted.token == f"token.of.{desk.signer.public_key}"
    assert world.admissions[0].admission.classes == ("*",)
    assert world.allowed == {}


def test_an_answer_that_was_lost_is_had_again_also_from_another_broker(world: World) -> None:
    desk = Machine(1)
    world.ask(desk, 2)
    world.approve(desk.code, desk.signer.public_key)
    for _ in range(3):
        world.ask(desk)
        world.restart()
    assert [one.admission for one in world.admissions] == [world.admissions[0].admission] * 3
    desk.applicant.begin()  # a run of its own
    world.ask(desk)
    assert desk.admitted is not None


def test_the_operator_gives_it_another_name(world: World) -> None:
    attic = Machine(2, classes=(CLASS,))
    world.ask(attic, 2)
    assert world.approve(attic.code.lower(), attic.signer.public_key, name="attic") == ""
    world.ask(attic)
    (found,) = world.admissions
    assert (found.admission.name, found.classes) == ("attic", ("*",))


def test_no_code_lets_anybody_in_but_the_one_that_is_shown_with_its_key(world: World) -> None:
    desk, mallory = Machine(1), Machine(2)
    for one in (desk, mallory):
        world.ask(one, 2)
    assert "nobody waits" in world.approve("0000-0000", desk.signer.public_key)
    assert "8 letters" in world.approve("x", desk.signer.public_key)
    assert "nobody waits" in world.approve(mallory.code, desk.signer.public_key)
    for one in (desk, mallory):
        world.ask(one)
        assert one.admitted is None
    assert world.stored == {}


def test_a_request_goes_with_its_machine_and_with_its_code(world: World) -> None:
    desk = Machine(1)
    world.ask(desk, 2)
    world.now += waiting.SILENT_S + 1
    assert world.waiting() == []
    world.ask(desk, 3)
    (first,) = world.waiting()
    for _ in range(30):
        world.now += 19
        world.ask(desk)
    assert world.waiting() == [first]
    assert world.now < START + 31 + 601
    world.now += 29
    world.ask(desk)
    old = desk.code if desk.applicant.code else first
    world.now += 29
    assert old not in world.waiting()
    assert "nobody waits" in world.approve(first, desk.signer.public_key)
    world.ask(desk, 3)
    assert world.waiting() == [desk.code]
    assert desk.code != first


def test_a_broker_that_took_over_has_it_begin_anew_with_another_opening(world: World) -> None:
    desk = Machine(1)
    world.ask(desk, 2)
    before = desk.code
    world.restart()
    world.ask(desk)
    assert desk.applicant.code is None
    assert desk.applicant.why_anew
    world.ask(desk, 2)
    assert world.waiting() == [desk.code] != [before]


def test_whoever_shows_another_opening_or_the_code_of_another_begins_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Machine(1)
    world.ask(desk)
    request = decode(EnrolRequest, desk.applicant.request()[0])
    wrong = _signed(desk, request.model_copy(update={"opening": "00" * 32}))
    answer = world.do(wrong)
    assert answer is not None
    assert answer.state == "anew"
    assert world.waiting() == []
    attic = Machine(2)
    world.ask(attic, 2)
    monkeypatch.setattr(waiting, "code_of", lambda *_: attic.code)
    third = Machine(3)
    world.ask(third, 2)
    assert third.applicant.code is None
    assert world.waiting() == [attic.code]


def _signed(machine: Machine, request: EnrolRequest) -> Asked:
    payload = encode(request)
    signature = machine.signer.sign(enrolment.signed_part(payload))
    return Asked(payload, signature, "stranger", "ff" * 32, machine.line, machine.host)


def test_what_is_asked_for_anothers_key_is_not_answered(world: World) -> None:
    desk, mallory = Machine(1), Machine(2)
    world.ask(desk, 2)
    request = decode(EnrolRequest, desk.applicant.request()[0])
    assert world.do(_signed(mallory, request)) is None
    payload, headers = desk.applicant.request()
    for payload_, signature in (
        (payload, None),
        (payload, "x"),
        (payload + b" ", headers[SIGNATURE_HEADER]),
        (b"", headers[SIGNATURE_HEADER]),
        (b"\xc1", None),
    ):
        assert world.do(Asked(payload_, signature, "stranger", "ff" * 32, "l", "h")) is None
    assert world.waiting() == [desk.code], "it still waits"


def test_one_line_or_host_takes_no_others_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "OF_HOST_MAX", 4)
    monkeypatch.setattr(waiting, "ALL_MAX", 6)
    of_line = [Machine(n, line="one") for n in range(1, 5)]
    for one in of_line:
        world.ask(one, 2)
    assert len(world.waiting()) == waiting.OF_LINE_MAX
    of_host = [Machine(n) for n in range(5, 9)]
    for one in of_host:
        world.ask(one, 2)
    assert len(world.waiting()) == 4
    assert of_host[-1].applicant.why_anew.startswith("too many")
    others = [Machine(n, host=f"10.0.1.{n}") for n in range(10, 14)]
    for one in others:
        world.ask(one, 2)
    assert len(world.waiting()) == 6
    world.now += waiting.SILENT_S + 1
    world.ask(others[-1], 2)
    assert world.waiting() == [others[-1].code]


def test_where_the_server_says_nothing_of_places_only_the_whole_is_bounded(world: World) -> None:
    for n in range(1, 101):
        world.ask(Machine(n, line="", host=""), 2)
    assert len(world.waiting()) == 100


def test_a_join_token_lets_one_in_once_whatever_restarts(world: World) -> None:
    token = join_token(1)
    assert world.keep(token) == ""
    world.restart()
    desk, attic = Machine(1, token=token), Machine(2, token=token)
    world.ask(desk)
    assert desk.admitted is not None
    for _ in range(2):
        world.ask(attic)
        assert attic.admitted is None
        assert "join token" in attic.refused
        world.restart()
    world.ask(desk)
    assert desk.admitted is not None, "the answer may have been lost"
    kept = next(iter(world.stored.values()))[0]
    assert isinstance(kept, JoinToken)
    assert token not in kept.model_dump_json()


def test_of_two_with_one_token_at_the_same_time_the_server_takes_one(world: World) -> None:
    token = join_token(1)
    world.keep(token)
    desk, attic = Machine(1, token=token), Machine(2, token=token)
    effects = [world.core.handle(world.now, one.asks(world.nonce())) for one in (desk, attic)]
    told = [world.carry_out(one) for one in effects]
    assert [one.state if one else None for one in told] == ["admitted", None]
    world.recall()
    world.ask(attic)
    assert "join token" in attic.refused


@pytest.mark.parametrize("why", ["never made", "expired", "of another role"])
def test_a_token_that_is_not_good_is_refused(world: World, why: str) -> None:
    token = join_token(1)
    if why != "never made":
        world.keep(token, "submitter" if why == "of another role" else "lender", expires_s=60)
    world.now += 61 if why == "expired" else 0
    desk = Machine(1, token=token)
    world.ask(desk)
    assert "join token" in desk.refused
    assert desk.admitted is None


def test_a_token_that_is_kept_already_is_not_made_good_again(world: World) -> None:
    token = join_token(1)
    world.keep(token)
    world.ask(Machine(1, token=token))
    assert "could not be kept" in world.keep(token)
    attic = Machine(2, token=token)
    world.ask(attic)
    assert attic.refused


def test_tokens_that_are_good_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "TOKENS_MAX", 2)
    assert [world.keep(join_token(n), expires_s=60) for n in (1, 2)] == ["", ""]
    assert "enough" in world.keep(join_token(3))
    world.now += 61
    assert world.keep(join_token(3)) == ""


def test_a_revoked_key_is_let_in_by_a_later_approval_alone(world: World) -> None:
    token = join_token(1)
    world.keep(token)
    desk = Machine(1, token=token)
    world.ask(desk)
    assert desk.admitted is not None
    revoked_at = desk.admitted.at
    desk.applicant.is_no_good(revoked_at)
    world.ask(desk)
    assert desk.admitted is None
    assert "join token" in desk.refused
    again = Machine(1)
    again.applicant.is_no_good(revoked_at)
    world.ask(again, 3)
    assert again.admitted is None
    assert world.approve(again.code, again.signer.public_key) == ""
    world.ask(again)
    assert again.admitted is not None
    assert again.admitted.at > revoked_at, "also within the same second"
    world.restart()
    world.ask(again)
    assert again.admitted.at > revoked_at


def test_submitters_are_written_down_and_none_takes_anothers_name(world: World) -> None:
    alice, mallory = Machine(1, "submitter", "alice"), Machine(2, "submitter", "alice")
    world.allowed["bob"] = signer(9).public_key
    world.do(SubmittersNamed(world.allowed))
    for one in (alice, mallory):
        world.ask(one, 2)
    assert world.approve(alice.code, alice.signer.public_key) == ""
    assert world.allowed["alice"] == alice.signer.public_key
    assert "another submitter is called alice" in world.approve(
        mallory.code, mallory.signer.public_key
    )
    for name in ("bob", "default", "all", alice.signer.public_key):
        assert "--name" in world.approve(mallory.code, mallory.signer.public_key, name=name)
    assert world.approve(mallory.code, mallory.signer.public_key, name="mallory") == ""
    assert world.allowed["mallory"] == mallory.signer.public_key
    token = join_token(1)
    world.keep(token, "submitter")
    for name, says in (
        ("alice", "another submitter"),
        ("default", "stands for all"),
        ("all", "everybody"),
        (alice.signer.public_key, "no name"),
    ):
        third = Machine(3, "submitter", name, token)
        world.ask(third)
        assert says in third.refused
    third = Machine(3, "submitter", "carol", token, classes=(CLASS,))
    world.ask(third)
    assert third.admitted is not None
    assert world.allowed["carol"] == third.signer.public_key
    assert world.admissions[-1].admission.classes == ()


def test_a_key_has_each_role_by_itself(world: World) -> None:
    lender = Machine(1)
    world.ask(lender, 2)
    world.approve(lender.code, lender.signer.public_key)
    submitter = Machine(1, "submitter", "alice", line="other")
    world.ask(submitter, 3)
    assert submitter.admitted is None


def test_what_was_approved_has_no_end(world: World) -> None:
    """Nor has a bound, which would end with it."""
    desk = Machine(1)
    world.ask(desk, 2)
    world.approve(desk.code, desk.signer.public_key, ())
    world.now += 1000 * 86_400.0
    desk.applicant.begin()
    world.ask(desk)
    assert desk.admitted is not None
    assert world.admissions[-1].classes == ()


def test_an_approval_that_could_not_be_kept_is_told(world: World) -> None:
    desk = Machine(1)
    world.ask(desk, 2)
    at = f"enrolled.lender.{desk.signer.public_key}"
    by_another = Admission(role="lender", key=desk.signer.public_key, name="x", at=1)
    world.stored[at] = (by_another, 7)
    assert "do it again" in world.approve(desk.code, desk.signer.public_key)
    world.recall()
    assert world.approve(desk.code, desk.signer.public_key) == ""


def submitter(world: World, token: str | None = None) -> Machine:
    """One that asks, and waits where it has no token."""
    alice = Machine(1, "submitter", "alice", token)
    world.ask(alice, 1 if token else 2)
    return alice


@pytest.mark.parametrize("dies", ["before", "after"])
@pytest.mark.parametrize("token", [None, join_token(1)], ids=["approved", "by token"])
def test_a_submitter_may_submit_whenever_the_broker_dies_that_has_let_it_in(
    world: World, dies: Death, token: str | None
) -> None:
    world.keep(join_token(1), "submitter")
    world.dies = dies
    alice = submitter(world, token)
    if token is None:
        assert world.approve(alice.code, alice.signer.public_key) == ""
    assert world.dies == ""
    assert world.allowed == {"alice": alice.signer.public_key}
    world.ask(alice, 2)
    assert alice.admitted is not None


def test_whom_an_operator_forbids_stays_forbidden_whoever_takes_over(world: World) -> None:
    alice = submitter(world)
    world.approve(alice.code, alice.signer.public_key)
    world.forbid("alice")
    for _ in range(2):
        world.restart()
    assert world.allowed == {}


def test_what_earlier_versions_have_kept_allows_nobody_again(world: World) -> None:
    kept = {"v": 1, "role": "submitter", "key": signer(1).public_key, "name": "alice", "at": 1}
    former = Admission.model_validate(kept)
    world.stored[former.subject] = (former, 1)
    world.restart()
    assert world.allowed == {}


def test_a_name_that_an_operator_gave_to_another_meanwhile_stays_with_that_one(
    world: World,
) -> None:
    record = Admission(
        role="submitter", key=signer(1).public_key, name="alice", at=1, allowed=False
    )
    world.stored[record.subject] = (record, 1)
    world.allowed["alice"] = signer(2).public_key
    world.restart()
    assert world.allowed == {"alice": signer(2).public_key}


def test_that_one_may_submit_is_noted_when_the_server_takes_it(world: World) -> None:
    record = Admission(
        role="submitter", key=signer(1).public_key, name="alice", at=1, allowed=False
    )
    world.stored[record.subject] = (record, 1)
    (allowing,) = world.recall()
    assert isinstance(allowing, AllowSubmitter)
    (store,) = world.core.handle(world.now, Allowed(allowing))
    assert isinstance(store, Store)
    world.stored[record.subject] = (record, 2)  # another broker was first
    assert world.core.handle(world.now, world.store(store)) == []


def test_an_older_record_that_is_read_later_changes_nothing(world: World) -> None:
    desk = Machine(1)
    world.ask(desk, 2)
    world.approve(desk.code, desk.signer.public_key)
    newer = world.stored[f"enrolled.lender.{desk.signer.public_key}"][0]
    assert isinstance(newer, Admission)
    older = newer.model_copy(update={"at": newer.at - 5, "name": "old"})
    token = JoinToken(digest="ab" * 32, role="lender", expires_at=newer.at, used=older)
    world.stored[token.subject] = (token, 99)
    world.restart()
    world.ask(desk)
    assert world.admissions[-1].admission == newer


def test_an_applicant_heeds_its_own_answers_alone_and_one_nonce() -> None:
    key = signer(1)
    numbers = iter(range(1, 9))
    one = Applicant(key, Wanted("lender", "desk"), lambda size: bytes([next(numbers)] * size))
    request = decode(EnrolRequest, one.request()[0])
    assert request.opening is None

    def say(**fields: object) -> EnrolAnswer | None:
        asked = decode(EnrolRequest, one.request()[0])
        said = {"key": key.public_key, "commitment": asked.commitment, "state": "begun"}
        return one.take(encode(EnrolAnswer.model_validate({**said, **fields})))

    assert one.take(b"garbage") is None
    assert say(key=signer(2).public_key, state="refused") is None
    assert say(commitment="ab" * 32, state="refused") is None
    assert say(state="admitted") is None, "without a token"
    for text in ("", "a b", "e.y.x\n-----BEGIN USER NKEY SEED-----\nSU", "e.y.\u0443"):
        assert say(state="admitted", token=text) is None, "no token, or more than one"
    assert say(state="begun") is None
    assert one.code is None
    assert say(nonce="ab" * 32) is None
    opening = decode(EnrolRequest, one.request()[0]).opening
    assert opening is not None
    assert one.code == code_of(key.public_key, "ab" * 32, opening)
    assert say(nonce="ab" * 32) is None
    assert one.code is not None
    assert not one.waits
    assert say(state="waiting") is None
    assert one.waits
    # Whoever now knows the opening could have looked for this one.
    assert say(nonce="cd" * 32) is None
    assert one.code is None
    assert decode(EnrolRequest, one.request()[0]).commitment != request.commitment
