"""The owner's words reach the core: by the wall clock, and with who said them."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from core_world import Bench

from lender.core.consent import Intent
from lender.core.events import Event, IntentLoaded
from lender.daemon import owner as owner_module
from lender.daemon.clock import Clock
from lender.daemon.owner import OwnerVerbs
from lender.daemon.peer import Peer
from lender.daemon.status_view import lending
from lender.state.consent_files import read_intent, write_intent
from lender.state.folder import StateFolder

BACK_S = 7200.0

SetBack = Callable[[], None]


class Told:
    """A shell that has a core handle what it is told, and keeps what is to be done."""

    def __init__(self, bench: Bench, clock: Clock) -> None:
        self.bench = bench
        self.clock = clock
        self.executions: dict[str, object] = {}
        self.done: list[object] = []

    def post(self, event: Event) -> None:
        self.bench.now = self.clock()
        self.done += self.bench.tell(event)

    def freeze_all(self) -> list[object]:
        return []


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "state")
    made.create()
    return made


@pytest.fixture
def set_back(monkeypatch: pytest.MonkeyPatch) -> SetBack:
    def carry_out() -> None:
        wall = time.time
        monkeypatch.setattr(time, "time", lambda: wall() - BACK_S)

    return carry_out


@pytest.fixture
def told() -> Told:
    clock = Clock()
    bench = Bench()
    bench.now = clock()
    return Told(bench.ready(), clock)


def verbs(state: StateFolder, told: Told) -> OwnerVerbs:
    nothing: Any = SimpleNamespace()
    return OwnerVerbs(
        state,
        told.bench.lender,
        told,  # type: ignore[arg-type]  # a stand-in
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        {},
        dict,
        told.clock,
    )


def owner(state: StateFolder) -> Peer:
    return Peer(state.owner_uid(), 1)


def phase(told: Told) -> str:
    return told.bench.lender.status(told.bench.now).phase


def test_a_pause_for_an_hour_holds_where_the_clock_was_set_back(
    state: StateFolder, told: Told, set_back: SetBack
) -> None:
    said = verbs(state, told)
    set_back()
    now = time.time()
    intent = {"paused_at": now, "until": now + 3600.0}
    said.pause({"intent": intent}, owner(state))
    assert phase(told) == "paused"
    told.bench.wait(3590.0)
    assert phase(told) == "paused"
    told.bench.wait(20.0)
    assert phase(told) != "paused"


def test_a_pause_that_was_said_before_follows_the_clock_at_the_next_look(
    state: StateFolder, told: Told, set_back: SetBack
) -> None:
    said = verbs(state, told)
    write_intent(state, Intent(True, time.time(), until=time.time() + 60.0))
    said.load()
    set_back()
    said.load_changed()
    status = told.bench.lender.status(told.clock())
    assert status.behind_s == pytest.approx(BACK_S, abs=1.0)
    told.bench.wait(3600.0)
    assert phase(told) == "paused"


def paused_by(told: Told) -> object:
    return lending(told.bench.lender.status(told.bench.now), told.bench.now, {})["paused_by"]


def test_a_pause_by_another_user_tells_who_it_was_also_after_a_restart(
    state: StateFolder, told: Told
) -> None:
    verbs(state, told).pause({}, Peer(state.owner_uid() + 1001, 1))
    assert paused_by(told) == state.owner_uid() + 1001
    told.post(IntentLoaded(Intent()))
    verbs(state, told).load()
    assert (phase(told), paused_by(told)) == ("paused", state.owner_uid() + 1001)


def test_a_pause_of_the_owners_is_theirs_whatever_it_claims(state: StateFolder, told: Told) -> None:
    intent = {"paused_at": time.time(), "said_by": 1001}
    verbs(state, told).pause({"intent": intent}, owner(state))
    assert (phase(told), paused_by(told)) == ("paused", None)


def test_another_users_pause_takes_nothing_from_one_of_the_owners_without_an_end(
    state: StateFolder, told: Told
) -> None:
    said, other = verbs(state, told), Peer(state.owner_uid() + 1001, 1)
    said.pause({"intent": {"paused_at": time.time()}}, owner(state))
    before = read_intent(state)
    said.pause({}, other)
    assert read_intent(state) == before
    timed = {"paused_at": time.time(), "until": time.time() + 60.0}
    said.pause({"intent": timed}, owner(state))
    said.pause({}, other)
    assert (read_intent(state).until, read_intent(state).said_by) == (None, other.uid)


def test_a_pause_that_could_not_be_saved_holds_until_the_next_word_whatever_the_clock(
    state: StateFolder, told: Told, set_back: SetBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_state: StateFolder, _intent: Intent) -> None:
        raise OSError(28, "No space left on device")

    said = verbs(state, told)
    with monkeypatch.context() as patched:
        patched.setattr(owner_module, "write_intent", full)
        with pytest.raises(OSError, match="No space"):
            said.pause({}, owner(state))
    said.load()
    assert phase(told) == "paused"
    set_back()
    write_intent(state, Intent(paused=False, paused_at=time.time()))
    said.load()
    assert phase(told) != "paused"
