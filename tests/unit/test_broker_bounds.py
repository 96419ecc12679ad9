"""For whom a lender may work: said, named by its token, and offered."""

import msgpack
import pytest
from broker_world import ALICE, BOB, L1, L2, archive, class_of, job_spec
from broker_world import World as Fleet
from enrolment_world import Machine, World, join_token, signer

from broker.core.enrolment.bound import Bound
from broker.core.enrolment.events import Asked, SubmittersNamed
from broker.core.enrolment.messages import Admission, JoinToken
from broker.core.events import LendersBounded
from broker.core.leasing.locality import FETCH_BYTES_MIN
from lender.protocol.bounds import ENROL_CLASSES_MAX
from lender.protocol.classes import WorkClass, own_queue
from lender.protocol.codec import decode, encode
from lender.protocol.enrolment import EnrolRequest, signed_part

KEY = signer(1).public_key
OF_ALICE, OF_BOB = class_of(ALICE), class_of(BOB)
PEOPLE = SubmittersNamed({"alice": ALICE.public_key, "bob": BOB.public_key})


@pytest.fixture
def world() -> World:
    one = World()
    one.do(PEOPLE)
    return one


def let_in(world: World, submitters: tuple[str, ...] | None, **more: tuple[str, ...]) -> Machine:
    desk = Machine(1)
    world.ask(desk, 2)
    assert world.approve(desk.code, KEY, submitters, **more) == ""
    return desk


def named(world: World, *classes: str) -> tuple[str, ...]:
    """What the token names that this lender is given when it asks for these classes."""
    asking = Machine(1, classes=classes, line="another")
    world.ask(asking)
    assert asking.admitted is not None
    return world.admissions[-1].classes


def test_a_token_names_what_was_asked_for_within_the_bound(world: World) -> None:
    let_in(world, ("alice",))
    assert named(world) == ()
    assert named(world, OF_ALICE, OF_BOB, OF_ALICE) == (OF_ALICE,)
    assert named(world, OF_BOB) == ()
    assert named(world, "*") == (), "nor does it ask for all"
    world.restart()
    assert named(world, OF_ALICE, OF_BOB) == (OF_ALICE,)
    assert world.core.bounds == {KEY: Bound(submitters=(ALICE.public_key,))}


def test_who_has_no_bound_is_given_all_whatever_it_asks_for(world: World) -> None:
    let_in(world, None)
    assert named(world, OF_ALICE) == ("*",)
    assert world.core.bounds == {}
    assert world.lenders()[0].submitters is None


def test_pools_bound_it_too(world: World) -> None:
    let_in(world, ("alice",), pools=("render",))
    elsewhere = class_of(ALICE, pool="render")
    assert named(world, OF_ALICE, elsewhere, class_of(BOB, pool="render")) == (elsewhere,)
    (known,) = world.lenders(KEY)
    assert (known.submitters, known.pools) == (("alice",), ("render",))


def test_pools_alone_bound_it_for_everybody(world: World) -> None:
    let_in(world, None, pools=("render",))
    elsewhere = class_of(BOB, pool="render")
    assert named(world, OF_ALICE, elsewhere) == (elsewhere,)
    (known,) = world.lenders(KEY)
    assert (known.submitters, known.pools) == (None, ("render",))


def test_submitters_are_named_or_given_by_key_and_nobody_passes_for_another(world: World) -> None:
    carol = signer(7).public_key
    # Whoever calls himself by another's key does not get what is meant for that one.
    world.do(SubmittersNamed({**PEOPLE.keys, carol: BOB.public_key}))
    desk = Machine(1)
    world.ask(desk, 2)
    assert "no submitter is called 'dave'" in world.approve(desk.code, KEY, ("alice", "dave"))
    assert world.waiting() == [desk.code]
    assert world.approve(desk.code, KEY, ("alice", carol)) == ""
    assert world.core.bounds[KEY].submitters == (ALICE.public_key, carol)
    assert world.lenders()[0].submitters == ("alice", carol)


@pytest.mark.parametrize("name", [signer(7).public_key, "all", "bob, carol"])
def test_whom_a_bound_names_is_told_so_that_it_can_be_said_again(world: World, name: str) -> None:
    # `lender-broker bound --add` says what it is told, and one more.
    mallory = signer(6).public_key
    world.do(SubmittersNamed({**PEOPLE.keys, name: mallory}))
    let_in(world, (mallory,))
    (told,) = world.lenders()
    assert told.submitters is not None
    world.now += 2
    assert world.bind(KEY, (*told.submitters, "alice")) == ""
    assert world.core.bounds[KEY].submitters == (mallory, ALICE.public_key)


def test_a_join_token_bounds_whom_it_lets_in(world: World) -> None:
    assert world.keep(join_token(1), submitters=("bob",)) == ""
    assert "no submitter" in world.keep(join_token(2), submitters=("dave",))
    world.restart()
    desk = Machine(1, token=join_token(1), classes=(OF_ALICE, OF_BOB))
    world.ask(desk)
    assert world.admissions[-1].classes == (), "it asks for them when it is in"
    assert named(world, OF_ALICE, OF_BOB) == (OF_BOB,)


def test_a_bound_that_is_said_anew_makes_later_tokens(world: World) -> None:
    let_in(world, None)
    (before,) = world.lenders()
    assert world.bind(KEY, ("alice",)) == ""
    (after,) = world.last.lenders
    assert after.at > before.at
    assert named(world, OF_ALICE, OF_BOB) == (OF_ALICE,)
    assert world.bind(KEY, ("alice",)) == "", "a command that was cut off is made again"
    assert world.last.lenders == (after,)
    assert "do it again" in world.bind(KEY, ("bob",))
    world.now += 2
    assert world.bind(KEY, ("bob",)) == ""
    world.restart()
    assert named(world, OF_ALICE, OF_BOB) == (OF_BOB,)
    world.now += 2
    assert world.bind(KEY) == ""
    assert named(world) == ("*",)


def test_nobody_is_bound_who_was_not_let_in(world: World) -> None:
    assert "no lender" in world.bind(KEY, ("alice",))
    let_in(world, None)
    assert "no submitter" in world.bind(KEY, ("dave",))
    assert world.lenders(signer(2).public_key) == ()


def test_who_submits_has_no_bound(world: World) -> None:
    one = Machine(3, "submitter", "carol")
    world.ask(one, 2)
    assert world.approve(one.code, one.signer.public_key, ("alice",)) == ""
    assert (world.core.bounds, world.lenders()) == ({}, ())


def test_records_of_earlier_versions_are_read(world: World) -> None:
    """An operator could name classes: such a token names them still, whatever is asked for."""
    old = {"v": 1, "role": "lender", "key": KEY, "name": "desk", "classes": [OF_BOB], "at": 9}
    token = {"v": 1, "digest": "ab" * 32, "role": "lender", "classes": ["*"], "expires_at": 9}
    assert decode(JoinToken, msgpack.packb(token)).bound is None
    record = decode(Admission, msgpack.packb(old))
    world.stored[record.subject] = (record, 1)
    world.restart()
    assert named(world, OF_ALICE) == (OF_BOB,)
    assert world.core.bounds == {}


def test_a_broker_that_knows_no_bounds_gives_nothing_away(world: World) -> None:
    """It makes a token of `classes`, as it has always done."""
    let_in(world, ("alice",))
    ((record, _),) = world.stored.values()
    assert isinstance(record, Admission)
    assert record.classes == ()


# What a bound lender can try.


def asked(world: World, sender: Machine, **fields: object) -> Asked:
    """A request of the lender's key that `sender` signs."""
    payload, _ = Machine(1, classes=(OF_ALICE,)).applicant.request()
    request = decode(EnrolRequest, payload).model_copy(update=fields)
    payload = encode(request)
    signature = sender.signer.sign(signed_part(payload))
    return Asked(payload, signature, "stranger", world.nonce(), "line", "host")


def test_nobody_asks_in_anothers_name(world: World) -> None:
    let_in(world, ("alice",))
    assert world.do(asked(world, Machine(2))) is None
    assert world.admissions == []


def test_a_request_that_comes_again_changes_nothing(world: World) -> None:
    """Its answer is for the key, and for the opening that the lender chose then."""
    let_in(world, None)
    old = asked(world, Machine(1))
    assert world.do(old) is not None
    world.now += 5
    assert world.bind(KEY, ("bob",)) == ""
    records = dict(world.stored)
    told = world.do(old)
    assert told is not None
    assert world.admissions[-1].classes == (), "what was approved then holds no more"
    assert world.stored == records
    now = Machine(1, classes=(OF_BOB,))
    now.applicant.begin()
    assert now.applicant.take(encode(told)) is None, "it takes no answer to another request"


@pytest.mark.parametrize("count", [ENROL_CLASSES_MAX + 1, 10_000])
def test_who_asks_for_more_classes_than_a_token_holds_is_not_answered(
    world: World, count: int
) -> None:
    let_in(world, ("alice",))
    names = (f"w{n}" for n in range(count))
    many = tuple(class_of(ALICE, name) for name in names)
    assert world.do(asked(world, Machine(1), classes=many)) is None
    most = tuple(class_of(ALICE, f"w{n}") for n in range(ENROL_CLASSES_MAX))
    assert named(world, *most) == most


# What the broker offers it.


def bound(*submitters: str) -> LendersBounded:
    return LendersBounded({L1: Bound(submitters=submitters)})


def both(world: Fleet, lender: str, **fields: object) -> None:
    world.offer(lender, classes=(OF_ALICE, OF_BOB), **fields)


MODEL = archive(FETCH_BYTES_MIN)


def waiting(world: Fleet, lender: str) -> list[str]:
    return [lease.job for lease in world.queued(own_queue(lender))]


def test_nothing_is_put_into_the_own_queue_of_who_may_not_work_for_them() -> None:
    """The server lets each pull from its own: what is in there is the broker's to say."""
    fleet = Fleet()
    fleet.do(bound(ALICE.public_key))
    both(fleet, L1, blobs=(MODEL.sha256,))
    both(fleet, L2)
    fleet.submit(job_spec(BOB, "job-bob-1", program=MODEL), BOB)
    assert waiting(fleet, L1) == []
    fleet.submit(job_spec(ALICE, "job-alice", program=MODEL))
    assert waiting(fleet, L1) == ["job-alice"]


def test_a_narrower_bound_takes_back_what_waits_and_leaves_what_runs() -> None:
    fleet = Fleet()
    both(fleet, L1, blobs=(MODEL.sha256,), slots=4)
    both(fleet, L2)
    fleet.submit(job_spec(BOB, "job-bob-1", program=MODEL), BOB)
    running = fleet.pull()
    both(fleet, L1, blobs=(MODEL.sha256,), slots=4, leases=[running])
    fleet.submit(job_spec(BOB, "job-bob-2", program=MODEL), BOB)
    fleet.submit(job_spec(ALICE, "job-alice", program=MODEL))
    assert sorted(waiting(fleet, L1)) == ["job-alice", "job-bob-1", "job-bob-2"]
    fleet.do(bound(ALICE.public_key))
    assert sorted(waiting(fleet, L1)) == ["job-alice", "job-bob-1"]
    assert fleet.run(running, L1) == "committed"
    fleet.do(LendersBounded({}))
    both(fleet, L1)
    assert fleet.broker.state.fleet.get(L1).classes == {OF_ALICE, OF_BOB}  # type: ignore[union-attr]


def test_bounds_are_known_before_anybody_is_heard() -> None:
    fleet = Fleet()
    broker = fleet.new_broker()
    assert broker.handle(fleet.now, bound(ALICE.public_key)) == []
    assert broker.state.bounds[L1].submitters == (ALICE.public_key,)


def test_what_is_no_class_lies_within_no_bound() -> None:
    assert Bound().within(("*", "", "a_b", OF_ALICE)) == (OF_ALICE,)
    assert Bound(submitters=()).within((OF_ALICE,)) == ()
    assert WorkClass.parse(OF_ALICE).submitter == ALICE.public_key
