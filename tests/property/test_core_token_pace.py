"""Whatever grants, servers and brokers do: tokens follow the grants, and nobody asks too often."""

from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lender.core.token_pace import AGAIN_FIRST_S, AGAIN_MAX_S, SETTLE_S, TokenPace

NAMES = st.sets(st.sampled_from("abcd")).map(lambda names: tuple(sorted(names)))
TICK_S = 0.25


class Following(RuleBasedStateMachine):
    """A lender, its owner, its server, and a broker that bounds it by some of four classes."""

    @initialize(bound=st.none() | NAMES, held=NAMES)
    def begin(self, bound: tuple[str, ...] | None, held: tuple[str, ...]) -> None:
        self.now = 0.0
        self.bound = bound
        self.wanted: tuple[str, ...] | None = None
        self.held = None if bound is None else frozenset(held) & frozenset(bound)
        self.refused = False
        self.silent = False
        self.asked_at: list[float] = []
        self.pace = TokenPace(lambda: 0.5)
        self.pace.read(self.held)

    @rule(wanted=NAMES)
    def grant(self, wanted: tuple[str, ...]) -> None:
        self.wanted = wanted

    @rule()
    def fall_silent_or_speak(self) -> None:
        self.silent = not self.silent

    @rule(bound=st.none() | NAMES)
    def bind(self, bound: tuple[str, ...] | None) -> None:
        """The operator says it anew, and the servers refuse what was given before."""
        self.bound = bound
        self.refused = True
        self.pace.refused()

    @rule(ticks=st.integers(min_value=1, max_value=20))
    def wait(self, ticks: int) -> None:
        for _ in range(ticks):
            self.now += TICK_S
            asked = self.pace.due(self.now, self.wanted)
            if asked is not None:
                self._answer(asked)

    def _answer(self, asked: tuple[str, ...]) -> None:
        assert self.refused or self.held is not None, "nothing is asked for without need"
        self.asked_at.append(self.now)
        if self.silent:
            self.pace.failed(self.now)
            return
        within = None if self.bound is None else frozenset(asked) & frozenset(self.bound)
        self.held = within
        self.pace.answered(self.now, asked, within)
        if self.refused:
            self.refused = False
            self.pace.let_in()

    @invariant()
    def it_asks_a_second_apart(self) -> None:
        asked_at = getattr(self, "asked_at", [])
        assert all(b - a >= AGAIN_FIRST_S for a, b in pairwise(asked_at))

    @invariant()
    def it_names_what_both_have_said_when_it_is_quiet(self) -> None:
        if not hasattr(self, "pace") or self.silent or self.wanted is None:
            return
        for _ in range(int((AGAIN_MAX_S + SETTLE_S + 1) / TICK_S)):
            self.now += TICK_S
            asked = self.pace.due(self.now, self.wanted)
            if asked is not None:
                self._answer(asked)
        if self.bound is None:
            assert self.held is None
            assert self.pace.lacking == frozenset()
            return
        assert self.held == frozenset(self.wanted) & frozenset(self.bound)
        assert self.pace.lacking <= frozenset(self.wanted) - self.held


Following.TestCase.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)
TestFollowing = Following.TestCase
