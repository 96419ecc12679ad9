"""Readings of the machine become verdicts in words, with their numbers."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from core_world import GIB, MIB, START

from lender.core.comfort import Comfort
from lender.core.policy import Limits, Policy, PresenceRule, Rung, Steps, Threshold
from lender.core.schedule import parse_when
from lender.core.signals import GpuSignal, Presence, Signals
from lender.core.usual import dedicated_policy, usual_policy

PRESSED = Steps(Threshold(10, 5), Threshold(40, 20), Threshold(80, 60))
KEPT = Threshold(GIB, 2 * GIB)


def comfort(**limits: object) -> Comfort:
    fields: dict[str, Any] = {"stay_s": 10.0}
    one = Limits(**(fields | limits))
    return Comfort(Policy(one, one), 4.0)


def signals(**changes: object) -> Signals:
    fields: dict[str, Any] = {"cpu_others": 0.2, "memory_available_bytes": 8 * GIB}
    return Signals(**(fields | changes))


def verdict_on(changes: dict[str, Any], **limits: object) -> tuple[Rung, float, str]:
    room = comfort(**limits)
    room.sampled(START, signals())
    room.sampled(START + 1, signals(**changes))
    verdict = room.verdict
    finding = verdict.findings[0]
    assert finding.rung == verdict.rung
    return verdict.rung, verdict.cores, verdict.reason


def test_what_was_never_measured_is_not_spare() -> None:
    verdict = comfort().verdict
    assert (verdict.rung, verdict.cores, verdict.presence) == (Rung.FROZEN, 0.0, "present")
    assert verdict.reason == verdict.figures == "the machine has not been measured yet"
    assert verdict.findings[0].signal == "unmeasured"


def test_the_first_calm_reading_lends_everything_with_its_figures() -> None:
    room = comfort(pressure_cpu=PRESSED)
    watching = Presence(idle_s=840, locked=True, desktop=True, sources=("mutter",))
    room.sampled(
        START,
        signals(
            pressure_cpu=0.4, pressure_io=0.1, temperature_c=61.2, battery=0.8, presence=watching
        ),
    )
    verdict = room.verdict
    assert (verdict.rung, verdict.cores, verdict.findings) == (Rung.FULL, 4.0, ())
    assert verdict.reason == (
        "others use 0.2 cores, 8.0 GiB of memory available, pressure 0.4 %, 61 °C, "
        "on mains, away 14 min, screen locked (mutter)"
    )


def test_the_first_reading_is_held_to_the_stricter_twins() -> None:
    room = comfort(pressure_cpu=PRESSED)
    room.sampled(START, signals(pressure_cpu=25.0))
    assert room.verdict.rung == Rung.FROZEN
    assert room.verdict.reason == (
        "programs wait for the CPU 25.0 % of the time, lends more at 20 %"
    )


@pytest.mark.parametrize(
    ("changes", "limits", "told"),
    [
        (
            {"cpu_others": 1.44},
            {"cpu_others": Steps(Threshold(1, 0.5), Threshold(3, 2))},
            (Rung.REDUCED, 2.5, "others use 1.4 cores, over 1.0"),
        ),
        (
            {"cpu_others": 3.2},
            {"cpu_others": Steps(Threshold(1, 0.5), Threshold(3, 2))},
            (Rung.FROZEN, 0.0, "others use 3.2 cores, over 3.0"),
        ),
        (
            {"cpu_others": 0.8},
            {"cpu_others": Steps(Threshold(0.75, 0.5))},
            (Rung.REDUCED, 3.2, "others use 0.8 cores, over 0.75"),
        ),
        (
            {"cpu_others": 3.95},
            {"cpu_others": Steps(Threshold(1, 0.5))},
            (Rung.FROZEN, 0.0, "others use 4.0 cores, over 1.0"),
        ),
        (
            {"pressure_cpu": 12.0},
            {"pressure_cpu": PRESSED, "reduced_share": 0.25},
            (Rung.REDUCED, 1.0, "programs wait for the CPU 12.0 % of the time, over 10 %"),
        ),
        (
            {"pressure_io": 41.0},
            {"pressure_io": PRESSED},
            (Rung.FROZEN, 0.0, "programs wait for the disk 41.0 % of the time, over 40 %"),
        ),
        (
            {"pressure_memory": 81.0},
            {"pressure_memory": PRESSED},
            (Rung.EVICTED, 0.0, "programs wait for memory 81.0 % of the time, over 80 %"),
        ),
        (
            {"memory_available_bytes": 912 * MIB},
            {"memory_kept_bytes": KEPT},
            (Rung.EVICTED, 0.0, "912 MiB of memory available, under 1.0 GiB"),
        ),
        (
            {"swap_in_bytes_per_s": 3.0 * MIB},
            {"swap_in_bytes_per_s": Steps(evicted=Threshold(256 << 10, 0))},
            (Rung.EVICTED, 0.0, "3 MiB a second come back from swap, over 256 KiB"),
        ),
        (
            {"gpus": (GpuSignal("a", 0), GpuSignal("b", 0, use_others=0.62))},
            {"gpu_others": Steps(frozen=Threshold(0.5, 0.3))},
            (Rung.FROZEN, 0.0, "others use the GPU 62 % of the time, over 50 %"),
        ),
        (
            {"temperature_c": 86.0, "temperature_limit_c": 100.0},
            {"temperature_c": Steps(Threshold(-20, -25), Threshold(-10, -15))},
            (Rung.REDUCED, 2.0, "86 °C, over 80 °C"),
        ),
        (
            {"throttled": True},
            {"throttled": Rung.FROZEN},
            (Rung.FROZEN, 0.0, "the machine slows itself down for heat or power"),
        ),
        ({"on_battery": True}, {"on_battery": Rung.FROZEN}, (Rung.FROZEN, 0.0, "on battery")),
        (
            {"on_battery": True, "battery": 0.84},
            {"on_battery": Rung.REDUCED},
            (Rung.REDUCED, 2.0, "on battery, 84 % left"),
        ),
        (
            {"on_battery": True, "battery": 0.42},
            {"on_battery": Rung.FROZEN, "battery_enough": Threshold(0.5, 0.6)},
            (Rung.FROZEN, 0.0, "on battery, 42 % left, under 50 %"),
        ),
        ({"game": True}, {"game": Rung.FROZEN}, (Rung.FROZEN, 0.0, "a game is played")),
        (
            {"exclusive_app": "blender"},
            {"exclusive_app": Rung.EVICTED},
            (Rung.EVICTED, 0.0, "blender runs"),
        ),
        (
            {"inhibited_by": "VLC"},
            {"inhibited": Rung.FROZEN},
            (Rung.FROZEN, 0.0, "VLC keeps the screen awake"),
        ),
    ],
)
def test_each_signal_steps_in_at_once_and_says_why(
    changes: dict[str, Any], limits: dict[str, Any], told: tuple[Rung, float, str]
) -> None:
    assert verdict_on(changes, **limits) == told


@pytest.mark.parametrize(
    "changes",
    [
        {"cpu_others": 4.0},
        {"pressure_cpu": 99.0, "pressure_memory": 99.0, "pressure_io": 99.0},
        {"memory_available_bytes": 0},
        {"swap_in_bytes_per_s": 1e9},
        {"gpus": (GpuSignal("a", 0, use_others=1.0),)},
        {"temperature_c": 120.0, "temperature_limit_c": 100.0},
        {"temperature_c": 120.0},
        {"throttled": True, "on_battery": True, "battery": 0.01, "metered": True},
        {"game": True, "exclusive_app": "blender", "inhibited_by": "VLC"},
    ],
)
def test_a_limit_that_was_taken_away_never_steps_in(changes: dict[str, Any]) -> None:
    room = comfort()
    room.sampled(START, signals(**changes))
    assert (room.verdict.rung, room.verdict.cores) == (Rung.FULL, 4.0)


def test_enough_charge_lends_on_battery_until_its_threshold_and_again_from_its_twin() -> None:
    room = comfort(on_battery=Rung.FROZEN, battery_enough=Threshold(0.5, 0.6), stay_s=0.0)
    for now, charge, rung in [
        (0, 0.7, Rung.FULL),
        (1, 0.5, Rung.FULL),
        (2, 0.49, Rung.FROZEN),
        (3, 0.59, Rung.FROZEN),
        (4, 0.6, Rung.REDUCED),
    ]:
        room.sampled(START + now, signals(on_battery=True, battery=charge))
        assert room.verdict.rung == rung
        if now == 3:
            assert room.verdict.reason == "on battery, 59 % left, lends more from 60 %"
    room.sampled(START + 5, signals(on_battery=True, battery=None))
    assert room.verdict.rung == Rung.FROZEN, "a charge that nobody knows may be low"


def test_battery_matters_not_where_the_owner_says_so() -> None:
    room = comfort(battery_enough=Threshold(0.5, 0.6))
    room.sampled(START, signals(on_battery=True, battery=0.1))
    assert room.verdict.rung == Rung.FULL


def test_a_network_paid_by_volume_keeps_new_work_away_until_calm_lasted() -> None:
    room = comfort(metered=False)
    room.sampled(START, signals())
    room.sampled(START + 1, signals(metered=True))
    assert (room.verdict.rung, room.verdict.new_work) == (Rung.FULL, False)
    assert room.verdict.reason == "the network is paid by volume: nothing new is taken"
    room.sampled(START + 2, signals())
    assert not room.verdict.new_work
    assert room.verdict.climbs_at == START + 12
    assert room.verdict.reason == "calm for 0 s, lends more after 10 s"
    room.sampled(START + 12, signals())
    assert room.verdict.new_work
    assert room.verdict.findings == ()


def test_metered_while_frozen_for_another_reason_keeps_its_own_reason() -> None:
    room = comfort(metered=False, game=Rung.FROZEN)
    room.sampled(START, signals(game=True))
    room.sampled(START + 1, signals(metered=True))
    assert room.verdict.rung == Rung.FROZEN
    assert [one.signal for one in room.verdict.findings] == ["stay", "metered"]


def test_outside_of_the_owners_hours_everything_stands_still() -> None:
    # START is Monday 13:46:40 UTC.
    room = comfort(hours=parse_when("Mon-Fri 18:00-08:00"))
    room.sampled(START, signals())
    assert room.verdict.reason == "lends only Mon-Fri 18:00-08:00"
    assert room.verdict.rung == Rung.FROZEN
    room.sampled(START + 1, signals(utc_offset_s=5 * 3600))
    room.sampled(START + 11, signals(utc_offset_s=5 * 3600))
    assert room.verdict.rung == Rung.REDUCED


def test_fewer_cores_are_lent_while_somebody_is_here() -> None:
    policy = Policy(Limits(cores=1.5), Limits(cores=3.0))
    here = Comfort(policy, 4.0)
    here.sampled(START, signals(presence=Presence(idle_s=3, desktop=True)))
    assert (here.verdict.rung, here.verdict.cores) == (Rung.REDUCED, 1.5)
    assert here.verdict.reason == "somebody is here: at most 1.5 of 4 cores are lent"
    assert here.limits is policy.in_use
    away = Comfort(policy, 4.0)
    away.sampled(START, signals())
    assert away.verdict.reason == "nobody is here: at most 3 of 4 cores are lent"
    assert (away.verdict.cores, away.limits) == (3.0, policy.away)


def test_no_cores_at_all_is_frozen() -> None:
    for limits in ({"cores": 0.0}, {"cores_kept": 4.0}, {"cores_kept": 9.0}):
        room = comfort(**limits)
        room.sampled(START, signals())
        assert (room.verdict.rung, room.verdict.cores) == (Rung.FROZEN, 0.0)
        assert room.verdict.reason == "nobody is here: at most 0 of 4 cores are lent"


def test_cores_that_are_kept_are_never_lent() -> None:
    room = comfort(cores_kept=1.0)
    room.sampled(START, signals())
    assert (room.verdict.rung, room.verdict.cores) == (Rung.FULL, 3.0)


def test_the_worst_reason_comes_first() -> None:
    room = comfort(cpu_others=Steps(Threshold(1, 0.5)), game=Rung.FROZEN, memory_kept_bytes=KEPT)
    room.sampled(START, signals())
    room.sampled(START + 1, signals(cpu_others=2.0, game=True, memory_available_bytes=0))
    signals_found = [one.signal for one in room.verdict.findings]
    assert signals_found == ["memory_kept_bytes", "game", "cpu_others"]
    assert room.verdict.findings[2].value == 2.0
    assert (room.verdict.findings[2].limit, room.verdict.findings[2].clears_at) == (1, 0.5)


@pytest.mark.parametrize(
    ("gpus", "told"),
    [
        ((), None),
        (((GIB, False), (8 * GIB, False)), None),
        (((0, False), (GIB, True)), None),
        (((GIB - MIB, True), (8 * GIB, True), (0, False)), "1023 MiB"),
        (((0, False), (GIB - MIB, False)), "1023 MiB"),
    ],
)
def test_gpu_memory_is_kept_on_the_gpus_that_carry_lent_work_else_on_the_best_one(
    gpus: tuple[tuple[int, bool], ...], told: str | None
) -> None:
    room = comfort(vram_kept_bytes=KEPT)
    read = tuple(GpuSignal("", free, carries_lent=lent) for free, lent in gpus)
    room.sampled(START, signals())
    room.sampled(START + 1, signals(gpus=read))
    verdict = room.verdict
    assert (verdict.rung, verdict.new_work, verdict.gpu_work) == (Rung.FULL, True, told is None)
    if told is not None:
        said = f"no GPU work: {told} of GPU memory free, under 1.0 GiB"
        assert verdict.reason == verdict.gpu_reason == said


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Steps(reduced=Threshold(1, 2)), "reduced: back 2"),
        (lambda: Steps(reduced=Threshold(5, 2), frozen=Threshold(4, 2)), "frozen: 4"),
        (lambda: Limits(memory_kept_bytes=Threshold(2, 1)), "memory_kept_bytes"),
        (lambda: Limits(vram_kept_bytes=Threshold(2, 1)), "vram_kept_bytes"),
        (lambda: Limits(vram_kept_bytes=Threshold(-1, 1)), "vram_kept_bytes"),
        (lambda: Limits(battery_enough=Threshold(0.5, 0.4)), "battery_enough"),
        (lambda: Limits(reduced_share=0.0), "reduced_share"),
        (lambda: Limits(cores=math.nan), "cores"),
        (lambda: Limits(stay_s=-1.0), "stay_s"),
        (lambda: PresenceRule(idle_after_s=9, away_after_s=8), "away_after_s"),
        (lambda: PresenceRule(touch_s=9, forgiven_s=8), "forgiven_s"),
    ],
)
def test_a_twin_on_the_wrong_side_is_refused_by_name(
    make: Callable[[], object], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        make()


@pytest.mark.parametrize("cores", [1.0, 2.0, 4.0, 64.0])
def test_the_usual_limits_lend_a_calm_machine_that_nobody_uses_whole(cores: float) -> None:
    policy = usual_policy(cores)
    room = Comfort(policy, cores)
    calm = signals(
        cpu_others=0.1, pressure_cpu=1.0, pressure_memory=0.0, pressure_io=1.0,
        temperature_c=55.0, temperature_limit_c=100.0, gpus=(GpuSignal("a", GIB, use_others=0.05),),
    )  # fmt: skip
    room.sampled(START, calm)
    assert (room.verdict.rung, room.verdict.cores) == (Rung.FULL, cores)
    here = Presence(idle_s=1.0, desktop=True)
    room.sampled(START + 1, replace(calm, presence=here))
    assert (room.verdict.rung, room.verdict.cores) == (Rung.REDUCED, max(0.5, cores / 4))
    for worse in (
        {"on_battery": True, "battery": 0.99},
        {"game": True},
        {"throttled": True},
        {"inhibited_by": "VLC"},
        {"temperature_c": 91.0},
        {"pressure_cpu": 50.0},
    ):
        room.sampled(START + 2, replace(calm, presence=here, **worse))
        assert room.verdict.rung <= Rung.FROZEN


def test_a_dedicated_machine_keeps_only_its_memory_and_its_health() -> None:
    room = Comfort(dedicated_policy(), 4.0)
    room.sampled(START, signals(cpu_others=4.0, pressure_cpu=90.0, game=True))
    assert room.verdict.rung == Rung.FULL
    room.sampled(START, signals(memory_available_bytes=GIB - 1))
    assert room.verdict.rung == Rung.EVICTED
