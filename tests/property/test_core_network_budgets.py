"""However work with a network comes, goes and moves: no more than a byte budget in all."""

from dataclasses import replace
from typing import Any

from core_world import ALICE, BOB, CALM, Bench, class_of, every, lease_id, make_grant, make_lease
from core_world import make_spec as spec_like
from hypothesis import given, settings
from hypothesis import strategies as st

from lender.core.budget import parse_budget
from lender.core.effects import AllowNetwork, CloseSandbox, Effect
from lender.core.events import Capabilities, CapabilitiesFound, SandboxPrepared, UsageMetered

AMOUNT = 1_000_000
IN_ALL = 1_500_000
SIGNERS = (ALICE, BOB)
NETWORKED = Capabilities("x86_64", "linux", frozenset({"process"}), net=frozenset({"process"}))

MOVES = st.tuples(
    st.just("move"), st.integers(0, 3), st.sampled_from([1, AMOUNT // 3, AMOUNT, AMOUNT])
)
METERS = st.tuples(st.just("meter"), st.integers(0, 3), st.just(0))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 1), st.just(0)),
        *(MOVES, MOVES, MOVES, METERS, METERS),
        st.tuples(st.just("sample"), st.just(0), st.just(0)),
        st.tuples(st.just("cancel"), st.integers(0, 3), st.just(0)),
    ),
    min_size=8,
    max_size=40,
)


class World:
    """A core, and proxies that move what they are allowed and nothing more."""

    def __init__(self) -> None:
        grants = [
            make_grant(
                f"G-{number}", one, workload="command", net=("internet",),
                budget=parse_budget(["1MB/day"]),
            )
            for number, one in enumerate(SIGNERS)
        ]  # fmt: skip
        self.bench = Bench(budget=parse_budget(["1.5MB/week"])).ready(*grants)
        self.bench.tell(CapabilitiesFound(NETWORKED))
        self.moved: dict[str, int] = {}
        self.allowed: dict[str, int] = {}
        self.of: dict[str, int] = {}
        self.total = [0, 0]
        self.sharers_max = 1

    def tell(self, effects: list[Effect]) -> None:
        for one in every(AllowNetwork, effects):
            assert one.moved_bytes is not None, "there is a bound"
            self.allowed[one.lease] = one.moved_bytes
        for gone in every(CloseSandbox, effects):
            self.moved.pop(gone.lease, None)

    def begin(self, signer: int) -> None:
        number = len(self.of) + 1
        fields: dict[str, Any] = {"workload": "command", "runtime": "process", "program": None}
        spec = spec_like(
            SIGNERS[signer], id=f"job-{number:05}", argv=("x",), inputs=(), limits={"cpu": 1},
            requires={"net": ("a.org",)}, **fields,
        )  # fmt: skip
        lease = make_lease(spec, number, signer=SIGNERS[signer])
        self.of[lease.lease], self.moved[lease.lease] = signer, 0
        self.allowed[lease.lease] = 0
        effects = self.bench.deliver(lease, class_of(spec))
        if lease.lease not in self.bench.lender._leases.attempts._runs:
            del self.moved[lease.lease]
        self.tell(effects + self.bench.tell(SandboxPrepared(lease.lease)))
        self.sharers_max = max(self.sharers_max, len(self.moved))

    def move(self, lease: str, wanted: int) -> None:
        more = max(0, min(wanted, self.allowed[lease] - self.moved[lease]))
        self.moved[lease] += more
        self.total[self.of[lease]] += more

    def meter(self, lease: str) -> None:
        moved = self.moved[lease]
        self.tell(self.bench.tell(UsageMetered(lease, 0.0, 0, network_in_bytes=moved)))

    def step(self, what: str, which: int, amount: int) -> None:
        if what == "begin" and len(self.moved) < 4:
            self.begin(which)
        elif what == "sample":
            for lease in list(self.moved):
                if lease in self.moved:
                    self.meter(lease)
            self.tell(self.bench.tell(replace(CALM), 1.0))
        elif what in ("move", "meter") and self.moved:
            lease = sorted(self.moved)[which % len(self.moved)]
            self.move(lease, amount) if what == "move" else self.meter(lease)
        elif what == "cancel" and self.moved:
            # lenderd takes a last reading of what may be about to end.
            lease = sorted(self.moved)[which % len(self.moved)]
            self.meter(lease)
            if lease in self.moved:
                self.tell(self.bench.lender._leases.drop(self.bench.now, lease, "cancelled"))


@given(STEPS)
@settings(max_examples=200, deadline=None)
def test_no_more_is_moved_than_the_budgets_allow(steps: list[tuple[str, int, int]]) -> None:
    world = World()
    for step in (("begin", 0, 0), ("begin", 0, 0), *steps):
        world.step(*step)
        rounding = len(world.of) + world.sharers_max
        assert max(world.total) <= AMOUNT + rounding
        assert sum(world.total) <= IN_ALL + rounding


def test_all_of_a_budget_can_be_moved() -> None:
    world = World()
    for _ in range(2):
        world.begin(0)
    for _ in range(60):
        world.step("sample", 0, 0)
        for lease in list(world.moved):
            world.move(lease, AMOUNT)
    world.step("sample", 0, 0)
    assert AMOUNT <= world.total[0] <= AMOUNT + 2
    assert not world.moved, "the grant is closed, and what ran under it is ended"
    assert lease_id(1) in world.of
