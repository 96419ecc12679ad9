"""Whatever lenders ask for and operators say: a token names what both have said, and no more."""

from dataclasses import replace

from enrolment_world import Machine, World, signer
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.core.enrolment.events import Asked, SubmittersNamed
from lender.protocol.classes import WorkClass, whose

PEOPLE = {name: signer(90 + n).public_key for n, name in enumerate(("alice", "bob", "carol"))}
POOLS = ("default", "render")
CLASSES = [
    WorkClass(pool, "wasm", "any", "none", key, "wasm").token
    for pool in POOLS
    for key in PEOPLE.values()
]
WHOM = st.none() | st.lists(st.sampled_from([*PEOPLE, *PEOPLE.values()]), max_size=3).map(tuple)
WHERE = st.none() | st.sets(st.sampled_from(POOLS), min_size=1).map(lambda x: tuple(sorted(x)))
NAMES = st.lists(st.sampled_from([*CLASSES, "*"]), max_size=4).map(tuple)
LENDERS = st.integers(min_value=1, max_value=2)

Said = tuple[tuple[str, ...] | None, tuple[str, ...] | None]


class Bounding(RuleBasedStateMachine):
    """Two lenders, three submitters, two pools, and brokers that come and go."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.world.do(SubmittersNamed(PEOPLE))
        self.said: dict[str, Said] = {}
        self.at: dict[str, int] = {}
        self.heard: list[Asked] = []

    @rule(n=LENDERS, whom=WHOM, where=WHERE)
    def let_in(self, n: int, whom: tuple[str, ...] | None, where: tuple[str, ...] | None) -> None:
        machine = Machine(n)
        key = machine.signer.public_key
        if key in self.said:
            return
        self.world.ask(machine, 2)
        assert self.world.approve(machine.code, key, whom, pools=where) == ""
        self.said[key] = whom, where

    @rule(n=LENDERS, whom=WHOM, where=WHERE)
    def bind(self, n: int, whom: tuple[str, ...] | None, where: tuple[str, ...] | None) -> None:
        key = signer(n).public_key
        error = self.world.bind(key, whom, where)
        if not error:
            self.said[key] = whom, where
        else:
            assert key not in self.said or "do it again" in error

    @rule(n=LENDERS, names=NAMES)
    def ask(self, n: int, names: tuple[str, ...]) -> None:
        asked = Machine(n, classes=names, line=f"again {n}").asks(self.world.nonce())
        self.heard.append(asked)
        self._hear(asked, signer(n).public_key, names)

    @rule(n=LENDERS, by=LENDERS, names=NAMES)
    def ask_in_anothers_name(self, n: int, by: int, names: tuple[str, ...]) -> None:
        theirs = Machine(n, classes=names).asks(self.world.nonce())
        signed = Machine(by, classes=names).asks(self.world.nonce())
        if n != by:
            assert self.world.do(replace(theirs, signature=signed.signature)) is None

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        if self.heard:
            records = dict(self.world.stored)
            self.world.do(data.draw(st.sampled_from(self.heard)))
            assert self.world.stored == records

    @rule(s=st.sampled_from([0.3, 2.0, 1e8]))
    def wait(self, s: float) -> None:
        self.world.now += s

    @rule()
    def take_over(self) -> None:
        self.world.restart()
        self.world.do(SubmittersNamed(PEOPLE))

    def _hear(self, asked: Asked, key: str, names: tuple[str, ...]) -> None:
        before = len(self.world.admissions)
        self.world.do(asked)
        given = self.world.admissions[before:]
        assert bool(given) is (key in self.said)
        for one in given:
            assert one.admission.key == key
            assert set(one.classes) == self._allowed(key, names)
            # What was given before can be refused without refusing this.
            assert one.admission.at >= self.at.get(key, 0)
            self.at[key] = one.admission.at

    def _allowed(self, key: str, names: tuple[str, ...]) -> set[str]:
        whom, where = self.said[key]
        if (whom, where) == (None, None):
            return {"*"}
        keys = None if whom is None else {PEOPLE.get(one, one) for one in whom}
        found = [(one, whose(one)) for one in names]
        return {
            name
            for name, one in found
            if one is not None
            and (keys is None or one.submitter in keys)
            and (where is None or one.pool in where)
        }

    @invariant()
    def the_broker_knows_of_each_bound(self) -> None:
        if hasattr(self, "said"):
            bound = {key for key, said in self.said.items() if said != (None, None)}
            assert set(self.world.core.bounds) == bound


Bounding.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestBounding = Bounding.TestCase
