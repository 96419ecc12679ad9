"""Down at once, up a rung at a time and only after calm that lasted."""

from typing import Any

from core_world import GIB, START

from lender.core.comfort import Comfort
from lender.core.policy import Limits, Policy, Rung, Steps, Threshold
from lender.core.signals import Presence, Signals

LIMITS = Limits(
    cpu_others=Steps(Threshold(1, 0.5), Threshold(3, 2)),
    pressure_cpu=Steps(Threshold(10, 5), Threshold(40, 20)),
    memory_kept_bytes=Threshold(GIB, 2 * GIB),
    stay_s=10.0,
)


class Machine:
    def __init__(self, policy: Policy | None = None) -> None:
        self.comfort = Comfort(policy or Policy(LIMITS, LIMITS), 4.0)
        self.reads(0)

    def reads(self, at: float, **changes: object) -> tuple[Rung, float]:
        fields: dict[str, Any] = {"cpu_others": 0.2, "memory_available_bytes": 8 * GIB}
        self.comfort.sampled(START + at, Signals(**(fields | changes)))
        return self.comfort.verdict.rung, self.comfort.verdict.cores

    @property
    def reason(self) -> str:
        return self.comfort.verdict.reason


def test_it_climbs_one_rung_after_each_stay() -> None:
    machine = Machine()
    assert machine.reads(1, memory_available_bytes=0) == (Rung.EVICTED, 0)
    assert machine.reads(2) == (Rung.EVICTED, 0)
    assert machine.comfort.verdict.climbs_at == START + 12
    assert machine.reads(11.9) == (Rung.EVICTED, 0)
    assert machine.reason == "calm for 10 s, lends more after 10 s"
    assert machine.reads(12) == (Rung.FROZEN, 0)
    assert machine.reads(21) == (Rung.FROZEN, 0)
    assert machine.reads(22) == (Rung.REDUCED, 2)
    assert machine.reads(32) == (Rung.FULL, 4)
    assert machine.comfort.verdict.findings == ()


def test_a_value_between_threshold_and_twin_neither_climbs_nor_falls() -> None:
    machine = Machine()
    machine.reads(1, pressure_cpu=50.0)
    for at in range(2, 60):
        assert machine.reads(at, pressure_cpu=21.0) == (Rung.FROZEN, 0)
    assert machine.reason == "programs wait for the CPU 21.0 % of the time, lends more at 20 %"
    again = Machine()
    for at in range(1, 60):
        assert again.reads(at, pressure_cpu=9.9) == (Rung.FULL, 4)
    assert again.comfort.verdict.findings == (), "not crossed: no reason to step back"


def test_one_bad_reading_makes_the_stay_begin_anew() -> None:
    machine = Machine()
    machine.reads(1, pressure_cpu=50.0)
    machine.reads(2)
    machine.reads(11, pressure_cpu=20.1)
    machine.reads(12)
    assert machine.reads(21.9)[0] == Rung.FROZEN
    assert machine.reads(22)[0] == Rung.REDUCED


def test_it_climbs_only_to_what_every_reading_of_the_stay_allowed() -> None:
    machine = Machine()
    machine.reads(1, pressure_cpu=50.0)
    machine.reads(2, pressure_cpu=6.0)
    machine.reads(11)
    assert machine.reads(12) == (Rung.REDUCED, 2)
    assert machine.reads(13, pressure_cpu=6.0) == (Rung.REDUCED, 2)
    assert machine.reads(23) == (Rung.REDUCED, 2), "a new stay since the reading of 13"
    assert machine.reads(33) == (Rung.FULL, 4)


def test_others_get_exactly_what_they_need_and_give_back_after_a_stay() -> None:
    machine = Machine()
    assert machine.reads(1, cpu_others=1.5) == (Rung.REDUCED, 2.5)
    assert machine.reads(2, cpu_others=2.0) == (Rung.REDUCED, 2.0)
    assert machine.reads(3, cpu_others=1.2) == (Rung.REDUCED, 2.0)
    assert machine.reads(8, cpu_others=1.4) == (Rung.REDUCED, 2.0)
    assert machine.reads(13, cpu_others=1.1) == (Rung.REDUCED, 2.6), "the least of the stay"
    assert machine.reads(14, cpu_others=0.7) == (Rung.REDUCED, 2.6)
    assert machine.reads(23, cpu_others=0.7) == (Rung.REDUCED, 2.9)
    assert machine.reads(33, cpu_others=0.7) == (Rung.REDUCED, 3.3)
    assert machine.reason == "others use 0.7 cores, lends more at 0.5"


def test_room_that_changes_its_kind_within_a_stay_begins_a_new_one() -> None:
    limits = Limits(cpu_others=LIMITS.cpu_others, metered=False, stay_s=10.0)
    machine = Machine(Policy(limits, limits))
    machine.reads(1, cpu_others=2.0, metered=True)
    machine.reads(2, cpu_others=1.5, metered=True)
    machine.reads(11, cpu_others=2.0)
    assert machine.reads(12, cpu_others=2.0) == (Rung.REDUCED, 2.0)
    assert not machine.comfort.verdict.new_work
    machine.reads(21, cpu_others=2.0)
    assert machine.comfort.verdict.new_work


def test_a_reading_that_takes_something_away_gives_nothing_back() -> None:
    limits = Limits(game=Rung.FROZEN, metered=False, stay_s=10.0)
    machine = Machine(Policy(limits, limits))
    machine.reads(1, metered=True)
    machine.reads(2)
    assert machine.reads(12, game=True) == (Rung.FROZEN, 0)
    assert not machine.comfort.verdict.new_work


def test_after_a_sleep_nothing_stale_counts_and_it_climbs_by_stays() -> None:
    machine = Machine()
    machine.reads(1)
    machine.comfort.forget()
    verdict = machine.comfort.verdict
    assert (verdict.rung, verdict.cores, verdict.presence) == (Rung.FROZEN, 0.0, "present")
    assert verdict.reason == "the machine has not been measured yet"
    assert machine.comfort.signals is None
    assert machine.reads(100) == (Rung.FROZEN, 0)
    assert machine.reads(110) == (Rung.REDUCED, 2)
    assert machine.reads(120) == (Rung.FULL, 4)


def test_a_sleep_does_not_forgive_an_eviction() -> None:
    machine = Machine()
    machine.reads(1, memory_available_bytes=0)
    machine.comfort.forget()
    assert machine.reads(100) == (Rung.EVICTED, 0)


def test_whoever_wakes_the_machine_is_no_bump() -> None:
    machine = Machine()
    machine.reads(1, presence=Presence(1000.0, False, desktop=True))
    machine.comfort.forget()
    machine.reads(5000, presence=Presence(0.0, False, desktop=True))
    machine.reads(5100, presence=Presence(100.0, False, desktop=True))
    assert machine.comfort.verdict.presence == "present"


def test_forgetting_before_the_first_reading_is_harmless() -> None:
    comfort = Comfort(Policy(), 4.0)
    comfort.forget()
    comfort.sampled(START, Signals(0.0, GIB))
    assert comfort.verdict.rung == Rung.FROZEN


def test_somebody_who_comes_is_given_way_at_once_and_stays_the_longer() -> None:
    machine = Machine(Policy(Limits(cores=1.0, stay_s=30.0), Limits(stay_s=10.0)))
    assert machine.reads(1) == (Rung.FULL, 4)
    here = Presence(idle_s=0.0, desktop=True)
    assert machine.reads(2, presence=here) == (Rung.REDUCED, 1)
    assert machine.comfort.verdict.presence == "present"
    assert machine.reason == "somebody is here: at most 1 of 4 cores are lent"
    gone = Presence(idle_s=3.0, locked=True, desktop=True)
    assert machine.reads(3, presence=gone) == (Rung.REDUCED, 1)
    assert machine.reads(13, presence=gone) == (Rung.FULL, 4)
