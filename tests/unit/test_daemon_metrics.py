"""What lenderd tells of itself in a day: nothing that moves with its owner."""

import asyncio
import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from core_world import BUSY, CALM, LIMITS, Bench, make_grant
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from lender.core.effects import Effect
from lender.core.events import Event, MachineSampled
from lender.core.policy import Condition, Policy, Rung
from lender.core.signals import OutsideReading, Signals
from lender.daemon.metrics import DAY_S, DaemonMetrics
from lender.daemon.peer import Peer

NOON = 20_000 * DAY_S + DAY_S / 2
PLAYS = MachineSampled(Signals(0.0, CALM.signals.memory_available_bytes, game=True))


class Watched(Bench):
    """A lender that is watched, under a wall clock of its own."""

    def __init__(self, path: Path) -> None:
        limits = replace(LIMITS, game=Rung.FROZEN)
        super().__init__(policy=Policy(in_use=limits, away=limits))
        self.path = path
        self.wall = NOON
        self.metrics = self.begin()

    def begin(self) -> DaemonMetrics:
        return DaemonMetrics(self.path, self.lender, lambda: self.now, 3, lambda: self.wall)

    def tell(self, event: Event, after_s: float = 0.0) -> list[Effect]:
        effects = super().tell(event, after_s)
        if hasattr(self, "metrics"):
            self.metrics.watch(event, effects)
        return effects

    def page(self) -> str:
        return asyncio.run(self.metrics.page())

    def told(self) -> dict[str, float]:
        return {
            sample.name + "".join(f".{value}" for value in sample.labels.values()): sample.value
            for family in text_string_to_metric_families(self.page())
            for sample in family.samples
        }


def a_day(world: Watched) -> None:
    """A job, the owner's return, a game, a pause and a revocation."""
    world.run()
    for event in (CALM, BUSY, CALM, PLAYS, CALM):
        world.tell(event, 5.0)
    world.pause()
    world.tell(CALM, 1.0)
    world.tell(CALM, 60.0)
    world.pause(paused=False)
    world.consent(revoked=["G-1"])
    world.tell(CALM, 1.0)


def test_over_a_day_the_page_changes_with_nothing_that_the_owner_does(tmp_path: Path) -> None:
    world = Watched(tmp_path / "metrics.json")
    world.ready(make_grant())
    before = world.page()
    a_day(world)
    assert world.page() == before
    world.wall += DAY_S / 2
    told = world.told()
    assert told["lenderd_attempts_total.revoked"] + told["lenderd_attempts_total.evicted"] == 1
    assert told["lenderd_phase_seconds_total.paused"] >= 60
    assert told["lenderd_yields_total.processor"] == 1
    shown = world.page()
    a_day(world)
    assert world.page() == shown


def test_a_game_is_told_neither_then_nor_later(tmp_path: Path) -> None:
    pages = []
    for name, event in (("calm", CALM), ("plays", PLAYS)):
        world = Watched(tmp_path / name)
        world.ready(make_grant())
        for _ in range(10):
            world.tell(event, 1.0)
        world.wall += DAY_S
        pages.append(world.page())
    assert world.lender.status(world.now).phase == "yielding"
    assert pages[0] == pages[1]


def test_what_a_day_brought_outlives_the_night_that_the_machine_is_off(tmp_path: Path) -> None:
    world = Watched(tmp_path / "metrics.json")
    world.ready(make_grant())
    a_day(world)
    world.metrics.save()
    again = world.metrics = world.begin()
    assert world.told()["lenderd_attempts_total.revoked"] == 0
    again.save()
    world.wall += DAY_S
    world.metrics = world.begin()
    told = world.told()
    assert told["lenderd_phase_seconds_total.paused"] >= 60
    assert told["lenderd_slots"] == 3


@pytest.mark.parametrize(
    "kept",
    [b"", b"[]", b'{"day": "x"}', b'{"day": 1, "shown": [1], "held": {}}', b"[" * 100_000, b"\xff"],
)
def test_a_damaged_file_begins_anew(tmp_path: Path, kept: bytes) -> None:
    path = tmp_path / "metrics.json"
    path.write_bytes(kept)
    world = Watched(path)
    assert world.told()["lenderd_attempts_total.failed"] == 0
    world.metrics.save()
    assert json.loads(path.read_bytes())["day"] == NOON // DAY_S


async def test_a_word_of_the_owner_s_is_answered_as_ever_and_timed(tmp_path: Path) -> None:
    world = Watched(tmp_path / "metrics.json")
    timed = world.metrics.timed({"pause": lambda request, _: request, "reload": _later})
    peer = Peer(0, 0)
    for verb in ("pause", "reload"):
        answer = timed[verb]({"verb": verb}, peer)
        assert inspect.isawaitable(answer)
        assert await answer == {"verb": verb}
    world.wall += DAY_S
    page = await world.metrics.page()
    assert "lenderd_pause_seconds_count 1\n" in page
    assert "lenderd_reload_seconds_count 1\n" in page


async def _later(request: dict[str, object], _: Peer) -> dict[str, object]:
    await asyncio.sleep(0)
    return request


def test_a_fault_in_counting_is_nobody_else_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = Watched(tmp_path / "metrics.json")

    def broken(*_: object) -> None:
        raise RuntimeError("wrong")

    monkeypatch.setattr(world.metrics, "_look", broken)
    world.ready(make_grant())
    assert "metrics are wrong" in caplog.text


def test_lenderd_loads_nothing_of_it_unless_asked() -> None:
    look = "import sys, lender.daemon.lifetime; print([m for m in sys.modules if 'metrics' in m])"
    said = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


def test_what_the_house_says_is_not_counted(tmp_path: Path) -> None:
    """A condition may be on who is at home."""
    limits = replace(LIMITS, conditions=(Condition("presence at home", equals=("away",)),))

    def page(name: str, *said: str) -> str:
        world, day = Bench(policy=Policy(limits, limits)), [NOON]
        metrics = DaemonMetrics(tmp_path / name, world.lender, lambda: world.now, 3, lambda: day[0])
        world.ready()
        for one in said:
            heard = (OutsideReading("presence at home", one),)
            event = MachineSampled(replace(CALM.signals, outside=heard))
            metrics.watch(event, world.tell(event, 5.0))
        assert (world.lender.status(world.now).verdict.rung == Rung.FULL) == (said[-1] == "away")
        day[0] += DAY_S
        return asyncio.run(metrics.page())

    assert page("in", "away", "away", "home") == page("out", "away", "away", "away")
