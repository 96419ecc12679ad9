"""A sandbox sees the devices that it was given, and nothing of the others: real sandboxes.

The nodes are called as Hailo's and Coral's are, and are those of /dev/zero.
"""

import os
import stat
from pathlib import Path

import pytest
from python_jobs import needs_python, plan_of, value
from sandboxes import Workshop, needs_bubblewrap, open_folder, workshop

from lender.sandbox.plan import DeviceView
from lender.sandbox.port import PrepareFailedError

__all__ = ["open_folder", "workshop"]  # fixtures
pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="only root can make device nodes"),
    needs_bubblewrap,
]
USB = "/dev/bus/usb/002/007"
LOOK = (
    "for node in /dev/hailo0 /dev/apex_0 /dev/bus/usb/002/007; do "
    "[ -e $node ] && echo $node $(head -c 3 $node | wc -c); done; "
    "cat /sys/class/hailo_chardev/hailo0/board_location 2>/dev/null; "
    "(echo 1 > /sys/class/hailo_chardev/hailo0/reset) 2>/dev/null && echo reset; "
    "ls /sys/class /dev/bus/usb 2>/dev/null; true"
)


def node(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    path.chmod(0o666)
    return str(path)


@pytest.fixture
def hailo(open_folder: Path) -> DeviceView:
    """A board whose folder of sysfs could be written by everybody."""
    folder = open_folder / "sys/hailo0"
    folder.mkdir(parents=True)
    (folder / "board_location").write_text("0000:01:00.0\n")
    (folder / "reset").touch()
    (folder / "reset").chmod(0o666)
    made = node(open_folder / "dev/hailo0")
    node(open_folder / "dev/apex_0")
    link = "/sys/class/hailo_chardev/hailo0"
    return DeviceView(((made, "/dev/hailo0"),), ((str(folder), link),))


async def look(workshop: Workshop, *devices: DeviceView) -> list[str]:
    """What a command finds."""
    plan = workshop.plan("process", LOOK)._replace(devices=devices)
    sandbox = workshop.sandbox(plan)
    await sandbox.prepare()
    outcome = await sandbox.run(0)
    assert outcome.state == "succeeded", (outcome.error, outcome.stderr_tail)
    return outcome.value.decode().split("\n")[:-1]


async def test_a_command_has_the_device_that_it_was_given(
    workshop: Workshop, hailo: DeviceView
) -> None:
    found = await look(workshop, hailo)
    assert found == ["/dev/hailo0 3", "0000:01:00.0", "/sys/class:", "hailo_chardev"]


async def test_a_command_that_was_given_none_has_none(workshop: Workshop) -> None:
    assert await look(workshop) == []


async def test_of_a_bus_only_the_one_device_shows(workshop: Workshop, open_folder: Path) -> None:
    made = node(open_folder / "dev/bus/usb/002/007")
    node(open_folder / "dev/bus/usb/002/008")
    found = await look(workshop, DeviceView(((made, USB),)))
    assert found == [f"{USB} 3", "/dev/bus/usb:", "002"]


@pytest.mark.parametrize("runtime", [pytest.param("python", marks=needs_python)])
async def test_a_function_has_it_too(workshop: Workshop, hailo: DeviceView, runtime: str) -> None:
    def read(_task: int) -> object:
        import os  # noqa: PLC0415 - it is pickled

        there = [name for name in ("hailo0", "apex_0") if os.path.exists(f"/dev/{name}")]  # noqa: PTH110
        with open("/dev/hailo0", "rb", buffering=0) as file:  # noqa: PTH123
            return there, file.read(3)

    plan = plan_of(workshop, read)._replace(devices=(hailo,))
    assert plan.runtime == runtime
    sandbox = workshop.sandbox(plan)
    await sandbox.prepare()
    there, content = value(await sandbox.run(0))  # type: ignore[misc] # what the function returns
    assert (list(there), content) == (["hailo0"], bytes(3))


async def test_one_that_was_unplugged_costs_the_job_nothing(
    workshop: Workshop, hailo: DeviceView
) -> None:
    os.unlink(hailo.nodes[0][0])  # noqa: PTH108
    plan = workshop.plan("process", "true")._replace(devices=(hailo,))
    with pytest.raises(PrepareFailedError, match="the device /dev/hailo0 is missing") as caught:
        await workshop.sandbox(plan).prepare()
    assert not caught.value.invalid


async def test_a_file_that_is_no_device_is_given_to_nobody(
    workshop: Workshop, open_folder: Path
) -> None:
    secret = open_folder / "secret"
    secret.write_text("mine")
    secret.chmod(0o666)
    view = DeviceView(((str(secret), "/dev/hailo0"),))
    plan = workshop.plan("process", "true")._replace(devices=(view,))
    with pytest.raises(PrepareFailedError, match="is missing"):
        await workshop.sandbox(plan).prepare()
