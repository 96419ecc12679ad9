"""The watch for devices: it waits for no adapter, and tells what changed."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lender.core.events import DevicesFound
from lender.daemon.devices import DeviceWatch, adapters
from lender.daemon.settings import DaemonSettings
from lender.sandbox.plan import DeviceView
from lender.sandbox.port import PrepareFailedError
from lender.sensors.devices.adapter import Device

NODES = (("/dev/hailo0", "/dev/hailo0"),)
HAILO = Device("accel-hailo8", "Hailo-8", {"temperature_c": 40.0}, NODES)
NIX = Device("nix", "nix")


class Shelf:
    """An adapter that finds what a test puts there; it stands still while `held`."""

    def __init__(self, *devices: Device) -> None:
        self.devices: Sequence[Device] = devices
        self.held = threading.Event()
        self.held.set()
        self.looks = 0

    def find(self) -> Sequence[Device]:
        self.looks += 1
        assert self.held.wait(60)
        return self.devices


class Broken:
    def find(self) -> Sequence[Device]:
        raise ZeroDivisionError


@asynccontextmanager
async def watching(*shelves: Shelf | Broken) -> AsyncIterator[tuple[DeviceWatch, list[object]]]:
    told: list[object] = []
    watch = DeviceWatch(shelves, told.append, 0.01)
    task = asyncio.create_task(watch.run(look_s=0.2))
    try:
        yield watch, told
    finally:
        for one in shelves:
            if isinstance(one, Shelf):
                one.held.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a thread tells of no event
            await asyncio.sleep(0.005)


async def test_what_changes_is_told_once() -> None:
    shelf = Shelf(HAILO)
    async with watching(shelf, Shelf(NIX)) as (watch, told):
        await until(lambda: len(told) == 1)
        seen = shelf.looks
        await until(lambda: shelf.looks > seen + 3)
        shelf.devices = ()
        await until(lambda: len(told) == 2)
        assert told == [DevicesFound(("accel-hailo8", "nix")), DevicesFound(("nix",))]
        assert [one["name"] for one in watch.facts()] == ["nix"]


async def test_an_adapter_that_hangs_holds_up_nobody_and_is_not_believed() -> None:
    shelf = Shelf(HAILO)
    async with watching(shelf) as (watch, told):
        await until(lambda: len(told) == 1)
        shelf.held.clear()
        await until(lambda: len(told) == 2)
        assert told[1] == DevicesFound(())
        assert watch.facts() == []
        looks = shelf.looks
        await asyncio.sleep(0.05)
        assert shelf.looks == looks, "no second look beside one that hangs"
        shelf.held.set()
        await until(lambda: len(told) == 3)
        assert told[2] == DevicesFound(("accel-hailo8",))


async def test_an_adapter_that_fails_hides_no_other() -> None:
    async with watching(Broken(), Shelf(NIX)) as (_, told):
        await until(lambda: len(told) == 1)
        assert told == [DevicesFound(("nix",))]


async def test_a_sandbox_is_given_what_is_there_now() -> None:
    broken = Device("accel-coral-usb", "Coral", nodes=NODES, fault="no firmware")
    async with watching(Shelf(HAILO, broken)) as (watch, told):
        await until(lambda: len(told) == 1)
        assert watch.views(()) == ()
        assert watch.views(("accel-hailo8",)) == (DeviceView(NODES),)
        with pytest.raises(PrepareFailedError, match="accel-coral-usb is not there any more"):
            watch.views(("accel-coral-usb",))
        hailo, coral = watch.facts()
        assert hailo == {
            "label": "accel-hailo8",
            "name": "Hailo-8",
            "attributes": {"temperature_c": 40.0},
            "fault": "",
            "mend": "",
            "given": True,
        }
        assert coral["fault"] == "no firmware"


def test_only_what_is_asked_for_is_looked_for(tmp_path: Path) -> None:
    plain = DaemonSettings()
    farm = {"announce": ["nix", "docker"], "phones": {"command": ["/opt/phones"]}}
    both = DaemonSettings.model_validate(farm)
    assert len(adapters(both, tmp_path)) == len(adapters(plain, tmp_path)) + 2
    assert [one.find() for one in adapters(plain, tmp_path)] == [[], [], []]
