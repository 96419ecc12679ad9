"""Sleep, announced by a logind that the test plays on a real bus, and unannounced."""

import asyncio
import os
import select
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from message_bus import MessageBus, Service, needs_dbus, running_bus, services_of

from lender.sensors import sleep
from lender.sensors.sleep import SleepWatch
from lender.sensors.sleep_clocks import Clocks, read_clocks

NAME, PATH = "org.freedesktop.login1", "/org/freedesktop/login1"
MANAGER = f"{NAME}.Manager"


class Logind:
    """Plays logind as org.freedesktop.login1(5) says; inhibitors are pipes, as there."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.inhibitors: list[int] = []
        service.answers[PATH, f"{MANAGER}.Inhibit"] = self._inhibit
        service.answers[PATH, f"={MANAGER}.PreparingForSleep"] = ("b", (False,))

    def _inhibit(self, arguments: tuple[str, ...]) -> tuple[str, tuple[int]]:
        what, who, _why, mode = arguments
        assert (what, who, mode) == ("sleep", "lender", "delay")
        ours, theirs = os.pipe()
        self.inhibitors.append(ours)
        return "h", (theirs,)

    def prepare(self, *, begins: bool) -> None:
        self.service.emit(PATH, f"{MANAGER}.PrepareForSleep", "b", begins)

    def held(self, number: int = -1) -> bool:
        return not select.select([self.inhibitors[number]], [], [], 0)[0]

    def close(self) -> None:
        for fd in self.inhibitors:
            os.close(fd)


class Seen:
    def __init__(self) -> None:
        self.announced = 0
        self.woken: list[float] = []

    def announce(self) -> None:
        self.announced += 1


@asynccontextmanager
async def watching(
    address: str, seen: Seen, clocks: Callable[[], Clocks] = read_clocks
) -> AsyncIterator[SleepWatch]:
    watch = SleepWatch(seen.announce, seen.woken.append, lambda: address, clocks)
    running = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is awaited knows of no event
            await asyncio.sleep(0.01)


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MessageBus]:
    monkeypatch.setattr(sleep, "RECONNECT_S", 0.05)
    monkeypatch.setattr(sleep, "TICK_S", 0.05)
    with running_bus(tmp_path) as started:
        yield started


@pytest.fixture
def logind(bus: MessageBus) -> Iterator[Logind]:
    with services_of(bus) as offer:
        played = Logind(offer(NAME))
        yield played
        played.close()


@needs_dbus
async def test_the_machine_waits_until_the_work_is_handed_back(
    bus: MessageBus, logind: Logind
) -> None:
    seen = Seen()
    async with watching(bus.address, seen) as watch:
        await until(lambda: watch.holds)
        logind.prepare(begins=True)
        await until(lambda: seen.announced == 1)
        assert logind.held()
        watch.release()
        await until(lambda: not logind.held())
        watch.release()
        logind.prepare(begins=False)
        await until(lambda: watch.holds)
        assert seen.woken == [0.0]
        assert len(logind.inhibitors) == 2
        assert logind.held()
    assert not logind.held()


@needs_dbus
async def test_an_announcement_that_came_while_connecting_counts(
    bus: MessageBus, logind: Logind
) -> None:
    logind.service.answers[PATH, f"={MANAGER}.PreparingForSleep"] = ("b", (True,))
    seen = Seen()
    async with watching(bus.address, seen):
        await until(lambda: seen.announced == 1)


@needs_dbus
async def test_nobody_else_can_announce_sleep(bus: MessageBus, logind: Logind) -> None:
    seen = Seen()
    with services_of(bus) as offer:
        stranger = offer("org.example.Stranger")
        async with watching(bus.address, seen) as watch:
            await until(lambda: watch.holds)
            stranger.emit(PATH, f"{MANAGER}.PrepareForSleep", "b", True)
            for number in range(1, 20):  # the watch is one of the clients
                name = f":1.{number}"
                stranger.send_to(name, PATH, f"{MANAGER}.PrepareForSleep", "b", True)
            await asyncio.sleep(0.2)
            assert seen.announced == 0
            logind.prepare(begins=True)
            await until(lambda: seen.announced == 1)


@needs_dbus
async def test_a_logind_that_restarts_is_held_back_again(bus: MessageBus) -> None:
    seen = Seen()
    async with watching(bus.address, seen) as watch:
        for _ in range(2):
            with services_of(bus) as offer:
                logind = Logind(offer(NAME))
                await until(lambda: watch.holds)
                assert logind.held()
            await until(lambda: not watch.holds)
            logind.close()


@needs_dbus
async def test_a_bus_that_dies_and_comes_back(bus: MessageBus) -> None:
    seen = Seen()
    async with watching(bus.address, seen) as watch:
        with services_of(bus) as offer:
            logind = Logind(offer(NAME))
            await until(lambda: watch.holds)
            bus.stop()
            await until(lambda: not watch.holds)
            logind.close()
        bus.start()
        with services_of(bus) as offer:
            logind = Logind(offer(NAME))
            await until(lambda: watch.holds)
            logind.prepare(begins=True)
            await until(lambda: seen.announced == 1)
            logind.close()


@needs_dbus
async def test_without_the_right_to_inhibit_sleep_is_still_announced(
    bus: MessageBus, logind: Logind
) -> None:
    del logind.service.answers[PATH, f"{MANAGER}.Inhibit"]
    seen = Seen()
    async with watching(bus.address, seen) as watch:
        await until(lambda: f"{MANAGER}.Inhibit" in logind.service.calls)
        await until(lambda: "org.freedesktop.DBus.Properties.Get" in logind.service.calls)
        logind.prepare(begins=True)
        await until(lambda: seen.announced == 1)
        assert not watch.holds


async def test_an_unannounced_sleep_is_told_once_without_any_bus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sleep, "RECONNECT_S", 0.05)
    monkeypatch.setattr(sleep, "TICK_S", 0.01)
    asleep_s = [0.0]
    seen = Seen()
    async with watching("", seen, lambda: Clocks(100.0 + asleep_s[0], 100.0)):
        asleep_s[0] = 3600.0
        await until(lambda: bool(seen.woken))
        await asyncio.sleep(0.1)
    assert seen.woken == [3600.0]
    assert seen.announced == 0
