"""Readings of the machine become verdicts in words."""

import math

import pytest
from core_world import GIB, START

from lender.core.headroom import Headroom, Reserve
from lender.core.signals import Signals

RESERVE = Reserve(cores=1.0, memory_bytes=GIB, yield_cpu_others=2.0, stay_s=5.0)


def headroom(reserve: Reserve = RESERVE) -> Headroom:
    return Headroom(reserve, cores=4.0, memory_bytes=8 * GIB)


def sample(cpu_others: float = 0.0, memory_bytes: int = 4 * GIB) -> Signals:
    return Signals(cpu_others, memory_bytes)


def test_what_was_never_measured_is_not_spare() -> None:
    room = headroom()
    assert room.verdict.yields
    assert "not been measured" in room.verdict.reason
    assert room.slots_free(4, 0, 0) == 0
    assert room.sample.memory_available_bytes == 0


def test_the_first_calm_reading_lends_with_its_numbers() -> None:
    room = headroom()
    room.sampled(START, sample(0.5))
    assert not room.verdict.yields
    assert room.verdict.reason == "others use 0.5 cores, 4096 MiB of memory available"


def test_others_at_work_make_it_yield_at_once_and_say_why() -> None:
    room = headroom()
    room.sampled(START, sample())
    room.sampled(START + 0.1, sample(2.1))
    assert room.verdict.yields
    assert room.verdict.reason == "others use 2.1 cores, over 2"


def test_it_lends_again_below_the_twin_after_unbroken_calm() -> None:
    room = headroom()
    room.sampled(START, sample(3.0))
    room.sampled(START + 1, sample(1.9))
    assert room.verdict.reason == "others use 1.9 cores, lends again at 1.5"
    room.sampled(START + 2, sample(1.5))
    assert "less than 5 s" in room.verdict.reason
    room.sampled(START + 4, sample(1.6))
    room.sampled(START + 5, sample(1.5))
    room.sampled(START + 9.9, sample(1.5))
    assert room.verdict.yields
    room.sampled(START + 10, sample(1.5))
    assert not room.verdict.yields


def test_little_memory_makes_it_yield_with_its_own_twin() -> None:
    room = headroom()
    room.sampled(START, sample(memory_bytes=GIB - 1))
    assert room.verdict.reason == "1024 MiB of memory available, under 1024 MiB"
    room.sampled(START + 1, sample(memory_bytes=GIB + 1))
    assert room.verdict.reason == "1024 MiB of memory available, lends again at 1280 MiB"
    room.sampled(START + 2, sample(memory_bytes=2 * GIB))
    room.sampled(START + 7, sample(memory_bytes=2 * GIB))
    assert not room.verdict.yields


def test_without_a_threshold_others_may_use_every_core() -> None:
    room = headroom(Reserve(stay_s=0.0))
    room.sampled(START, sample(memory_bytes=0))
    room.sampled(START + 1, sample(64.0))
    assert not room.verdict.yields
    assert Reserve().cpu_back == math.inf


def test_own_twins_are_used_and_checked() -> None:
    own = Reserve(
        memory_bytes=GIB, return_memory_bytes=3 * GIB, yield_cpu_others=2.0, return_cpu_others=0.5
    )
    assert (own.memory_back, own.cpu_back) == (3 * GIB, 0.5)
    with pytest.raises(ValueError, match="return_memory_bytes"):
        Reserve(memory_bytes=GIB, return_memory_bytes=GIB - 1)
    with pytest.raises(ValueError, match="return_cpu_others"):
        Reserve(yield_cpu_others=1.0, return_cpu_others=1.1)
    with pytest.raises(ValueError, match="return_cpu_others"):
        Reserve(return_cpu_others=1.0)


def test_free_slots_are_cores_less_reserve_and_commitments() -> None:
    room = headroom()
    room.sampled(START, sample(1.0))
    assert room.slots_total(8) == 3
    assert room.slots_free(8, 1, GIB) == 2
    assert room.slots_free(8, 9, GIB) == 0
    assert room.slots_free(8, 0, 4 * GIB) == 0, "no memory, no slot"
    assert room.cpu_free(1) == 1.0
    assert room.cpu_free(8) == 0.0
    assert room.memory_free_bytes(GIB) == 2 * GIB
    assert room.memory_free_bytes(9 * GIB) == 0


def test_no_more_memory_is_lent_than_was_set() -> None:
    room = headroom()
    room.sampled(START, sample(memory_bytes=64 * GIB))
    assert room.memory_free_bytes(GIB) == 7 * GIB
