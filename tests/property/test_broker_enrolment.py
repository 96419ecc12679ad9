"""Whatever strangers, operators and failing brokers do: nobody is in whom nobody approved."""

from enrolment_world import Death, Machine, World, join_token
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.enrolment import waiting
from broker.core.enrolment.events import Asked
from broker.core.enrolment.messages import JoinToken

MACHINES = st.integers(min_value=0, max_value=5)
TOKENS = st.integers(min_value=0, max_value=2)


class Letting(RuleBasedStateMachine):
    """Brokers that come and go, six machines, three join tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.machines = [
            Machine(n + 1, "submitter" if n > 3 else "lender", f"m{n}", host=f"10.0.0.{n % 2}")
            for n in range(6)
        ]
        self.approved: set[str] = set()
        self.users: dict[str, str] = {}
        self.may_submit: dict[str, str] = {}

    @rule(n=MACHINES, times=st.integers(min_value=1, max_value=3))
    def ask(self, n: int, times: int) -> None:
        self.world.ask(self.machines[n], times)

    @rule(n=MACHINES)
    def lose_an_answer(self, n: int) -> None:
        self.world.do(self.machines[n].asks(self.world.nonce()))

    @rule(n=MACHINES)
    def begin_anew(self, n: int) -> None:
        self.machines[n].applicant.begin()

    @rule(n=MACHINES, other=MACHINES)
    def approve(self, n: int, other: int) -> None:
        code, key = self.machines[n].applicant.code, self.machines[other].signer.public_key
        if code is None:
            return
        waits = code in self.world.waiting()
        error = self.world.approve(code, key)
        assert (error == "") is (waits and n == other)
        if not error:
            self.approved.add(key)
            if n > 3:
                self.may_submit[f"m{n}"] = key

    @rule(t=TOKENS)
    def make_token(self, t: int) -> None:
        self.world.keep(join_token(t), expires_s=600)

    @rule(t=TOKENS, n=st.integers(min_value=0, max_value=3))
    def join(self, t: int, n: int) -> None:
        token, key = join_token(t), self.machines[n].signer.public_key
        joining = Machine(n + 1, "lender", f"m{n}", token)
        self.world.ask(joining)
        if joining.admitted is not None and key not in self.approved:
            assert self.users.setdefault(token, key) == key, "twice"
            self.approved.add(key)

    @rule(s=st.sampled_from([1.0, 20.0, 45.0, 601.0]))
    def wait(self, s: float) -> None:
        self.world.now += s

    @rule(dies=st.sampled_from(["before", "after"]))
    def have_the_broker_die_as_it_allows_a_submitter(self, dies: Death) -> None:
        self.world.dies = dies

    @precondition(lambda self: self.may_submit)
    @rule(data=st.data())
    def forbid(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.may_submit)))
        del self.may_submit[name]
        self.world.forbid(name)

    @rule()
    def take_over(self) -> None:
        self.world.restart()

    @rule(payload=st.binary(max_size=200), signature=st.none() | st.text(max_size=90))
    def say_garbage(self, payload: bytes, signature: str | None) -> None:
        asked = Asked(payload, signature, "stranger", "00" * 32, "x", "y")
        assert self.world.do(asked) is None

    @invariant()
    def nobody_is_in_whom_nobody_approved(self) -> None:
        for one in self.machines:
            if one.admitted is not None:
                assert one.signer.public_key in self.approved
        assert {one.admission.key for one in self.world.admissions} <= self.approved

    @invariant()
    def whom_the_operator_said_may_submit(self) -> None:
        assert self.world.allowed == self.may_submit

    @invariant()
    def a_token_has_one_user(self) -> None:
        for record, _ in self.world.stored.values():
            if isinstance(record, JoinToken) and record.used is not None:
                assert record.used.key in self.approved

    @invariant()
    def they_are_few(self) -> None:
        assert len(self.world.waiting()) <= waiting.ALL_MAX


Letting.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLetting = Letting.TestCase
