"""Cores of a verdict become slots; available memory becomes what can be lent."""

from typing import Any

import pytest
from core_world import GIB, START

from lender.core.comfort import Comfort
from lender.core.headroom import Spare
from lender.core.policy import Limits, Policy, Rung, Steps, Threshold
from lender.core.signals import GpuSignal, Presence, Signals
from lender.protocol.bounds import MEMORY_BYTES_MIN

LIMITS = Limits(
    cores_kept=1.0,
    cpu_others=Steps(Threshold(1, 0.5), Threshold(3, 2)),
    memory_kept_bytes=Threshold(GIB, 2 * GIB),
    vram_kept_bytes=Threshold(GIB, 2 * GIB),
    metered=False,
)


class Machine:
    def __init__(self, slots: int = 8, policy: Policy | None = None, cores: float = 4.0) -> None:
        self.comfort = Comfort(policy or Policy(LIMITS, LIMITS), cores)
        self.spare = Spare(self.comfort, slots, memory_bytes=8 * GIB)

    def reads(self, **changes: object) -> Spare:
        fields: dict[str, Any] = {"cpu_others": 0.2, "memory_available_bytes": 4 * GIB}
        self.comfort.sampled(START, Signals(**(fields | changes)))
        return self.spare


def test_what_was_never_measured_is_not_spare() -> None:
    spare = Machine().spare
    assert spare.slots_total == 3, "the machine could lend so much"
    assert spare.slots_free(0, 0) == 0
    assert (spare.cpu_free(0), spare.memory_free_bytes(), spare.vram_free_bytes()) == (0, 0, 0)


def test_free_slots_are_the_verdicts_cores_less_commitments() -> None:
    spare = Machine().reads()
    assert spare.slots_free(0, 0) == 3
    assert spare.slots_free(1, GIB) == 2
    assert spare.slots_free(9, GIB) == 0
    assert Machine(slots=2).reads().slots_free(0, 0) == 2, "no more than was set"


def test_without_memory_there_is_no_slot() -> None:
    machine = Machine()
    most = GIB - MEMORY_BYTES_MIN
    assert machine.reads(memory_available_bytes=2 * GIB).slots_free(0, most) == 3
    assert machine.spare.slots_free(0, most + 1) == 0


def test_a_part_of_a_core_is_a_slot_that_runs_part_of_the_time() -> None:
    spare = Machine().reads(cpu_others=1.6)
    assert spare.slots_free(0, 0) == 3, "2.4 cores"
    assert Machine().reads(cpu_others=2.7).slots_free(0, 0) == 0, "frozen"


def test_nothing_new_where_the_verdict_takes_nothing_new() -> None:
    machine = Machine()
    assert machine.reads(metered=True).slots_free(0, 0) == 0
    assert machine.comfort.verdict.rung == Rung.FULL


def test_free_cores_are_what_neither_others_nor_leases_use() -> None:
    spare = Machine().reads(cpu_others=0.4)
    assert spare.cpu_free(0) == 3.0
    assert Machine().reads(cpu_others=0.9).cpu_free(1) == 2.0
    assert Machine(policy=Policy()).reads(cpu_others=1.5).cpu_free(0) == 2.5
    assert spare.cpu_free(8) == 0.0


def test_memory_less_what_the_owner_keeps_and_leases_may_grow_to() -> None:
    spare = Machine().reads()
    assert spare.memory_free_bytes(GIB) == 2 * GIB
    assert spare.memory_free_bytes(9 * GIB) == 0
    assert Machine().reads(memory_available_bytes=64 * GIB).memory_free_bytes(GIB) == 7 * GIB


def test_what_is_kept_follows_who_is_there() -> None:
    policy = Policy(in_use=LIMITS, away=Limits())
    here = Presence(idle_s=0.0, desktop=True)
    spare = Machine(policy=policy).reads(presence=here, gpus=(GpuSignal("a", 3 * GIB),))
    assert (spare.memory_free_bytes(), spare.vram_free_bytes()) == (3 * GIB, 2 * GIB)
    spare = Machine(policy=policy).reads(gpus=(GpuSignal("a", 3 * GIB), GpuSignal("b", GIB)))
    assert (spare.memory_free_bytes(), spare.vram_free_bytes()) == (4 * GIB, 3 * GIB)


@pytest.mark.parametrize(
    ("in_use", "away", "slots"),
    [
        (Limits(cores=1.0), Limits(), 4),
        (Limits(cores=1.0), Limits(cores=2.5), 3),
        (Limits(cores=0.0), Limits(cores_kept=4.0), 0),
        (Limits(cores=0.0), Limits(cores_kept=9.0), 0),
    ],
)
def test_the_most_that_is_ever_lent_is_of_the_kinder_limits(
    in_use: Limits, away: Limits, slots: int
) -> None:
    assert Machine(policy=Policy(in_use, away)).spare.slots_total == slots
