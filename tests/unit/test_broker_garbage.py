"""What refers to itself goes in the end, however old it was let become."""

import gc
from collections.abc import Iterator

import pytest

from broker.service.garbage import GROWTH, LOOK_S, YOUNG, Garbage

FIRST_BYTES = 1000


class Circle:
    """Only a collector finds that nobody knows it any more."""

    alive = 0

    def __init__(self) -> None:
        Circle.alive += 1
        self.itself = self

    def __del__(self) -> None:
        Circle.alive -= 1


class World:
    """A process whose memory and time are said."""

    def __init__(self) -> None:
        self.memory_bytes, self.now = FIRST_BYTES, 0.0
        self.garbage = Garbage(lambda: self.memory_bytes, lambda: self.now)

    def look(self, memory_bytes: int, after_s: float = LOOK_S) -> None:
        self.memory_bytes = memory_bytes
        self.now += after_s
        self.garbage.look()


@pytest.fixture
def world() -> Iterator[World]:
    thresholds = gc.get_threshold()
    world = World()
    Circle.alive = 0  # what another test has dropped is gone by now
    yield world
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def replayed(world: World) -> Circle:
    """What a replay leaves, and no search finds by itself."""
    with world.garbage.held_off():
        assert not gc.isenabled()
        return Circle()


def test_what_is_old_is_looked_through_when_memory_has_grown(world: World) -> None:
    assert gc.isenabled()
    kept = replayed(world)
    del kept
    gc.collect()
    world.look(int(GROWTH * FIRST_BYTES) - 1)
    assert Circle.alive == 1
    world.look(int(GROWTH * FIRST_BYTES), after_s=LOOK_S / 2)
    assert Circle.alive == 1, "it looks once a second at most"
    world.look(int(GROWTH * FIRST_BYTES), after_s=LOOK_S / 2)
    assert Circle.alive == 0


def test_the_next_look_is_when_memory_has_grown_as_much_again(world: World) -> None:
    world.look(int(GROWTH * FIRST_BYTES))
    kept = replayed(world)
    del kept
    world.look(int(GROWTH * GROWTH * FIRST_BYTES) - 1)
    assert Circle.alive == 1
    world.look(int(GROWTH * GROWTH * FIRST_BYTES))
    assert Circle.alive == 0


def test_a_new_term_of_the_same_process_leaves_nothing_of_the_one_before(world: World) -> None:
    kept = replayed(world)
    del kept
    World()
    assert Circle.alive == 0


def test_what_is_young_goes_by_itself(world: World) -> None:
    most = 0
    for _ in range(4 * YOUNG):
        Circle()
        most = max(most, Circle.alive)
    assert world.memory_bytes == FIRST_BYTES
    assert most <= 2 * YOUNG
