"""Only granted GPUs show in a sandbox: real device nodes, the real NVML binding on a stub library.

The nodes are called as NVIDIA's are, and are those of /dev/null and /dev/zero.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sandboxes import LIMITS, USER, Workshop, needs_bubblewrap, open_folder, workshop

from lender.sandbox.port import PrepareFailedError
from lender.sandbox.walls import bubblewrap, enter, gpu_devices
from lender.sandbox.walls.gpu_devices import Gpu

__all__ = ["open_folder", "workshop"]  # fixtures
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can make device nodes")
needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None, reason="no C compiler (Debian package: gcc)"
)
NULL, ZERO = os.makedev(1, 3), os.makedev(1, 5)
# The GPU of index 0 has the node of another's index; the last one isn't there any more.
STUB = """
#include <stdio.h>
#include <string.h>
typedef struct {
    char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32];
} pci_t;
static int devices[3];
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **h) {
    if (i > 2) return 2;
    *h = &devices[i]; return 0;
}
int nvmlDeviceGetMinorNumber(void *h, unsigned *minor) {
    *minor = 2 - (int)((int *)h - devices); return 0;
}
int nvmlDeviceGetPciInfo_v3(void *h, pci_t *pci) {
    memset(pci, 0, sizeof *pci);
    snprintf(pci->bus_id, sizeof pci->bus_id, "0000FFFF:A%d:00.0", (int)((int *)h - devices));
    return 0;
}
const char *nvmlErrorString(int error) { return "stub"; }
"""
FIND = """
import json, sys
from pathlib import Path
import pynvml
load = pynvml.CDLL
pynvml.CDLL = lambda _: load(sys.argv[1])
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.walls import gpu_devices
try:
    found = gpu_devices.find(json.loads(sys.argv[3]), Path(sys.argv[2]))
    print(json.dumps([gpu.minor for gpu in found]))
except PrepareFailedError as error:
    print(json.dumps(error.reason))
"""


@pytest.fixture
def dev(open_folder: Path) -> Path:
    """A /dev with three GPUs of which the last one's node is missing."""
    made = open_folder / "dev"
    made.mkdir()
    (made / "nvidia-caps").mkdir()
    for name in ("nvidiactl", "nvidia-uvm", "nvidia0", "nvidia1", "nvidia-caps/nvidia-cap1"):
        os.mknod(made / name, stat.S_IFCHR | 0o666, ZERO if name == "nvidia1" else NULL)
        (made / name).chmod(0o666)
    return made


def shell(script: str, gpus: list[Gpu], dev: Path, scratch: Path) -> str:
    """What a script says behind bubblewrap with these GPUs."""
    bwrap = bubblewrap.find()
    assert bwrap is not None
    extra = [*enter.options(), *gpu_devices.options(gpus, dev)]
    words = bubblewrap.options(str(scratch), {}, {}, LIMITS, {}, extra).decode().split("\0")[:-1]
    limits = bubblewrap.resource_limits(LIMITS, gpus=bool(gpus))
    command = enter.command(["sh", "-c", script], limits, [*enter.RULES, *gpu_devices.rules(gpus)])
    user = {} if USER is None else {"user": USER[0], "group": USER[1], "extra_groups": []}
    done = subprocess.run(
        [bwrap, *words, "--", *command], capture_output=True, text=True, check=False, env={}, **user
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_root
@needs_bubblewrap
@pytest.mark.parametrize(
    ("gpus", "shown"),
    [
        ([], []),
        ([Gpu(1)], ["nvidia-uvm", "nvidia1", "nvidiactl"]),
        ([Gpu(1), Gpu(0)], ["nvidia-uvm", "nvidia0", "nvidia1", "nvidiactl"]),
    ],
)
def test_a_sandbox_sees_the_granted_nodes_only(
    dev: Path, workshop: Workshop, gpus: list[Gpu], shown: list[str]
) -> None:
    listed = shell("ls /dev | grep nvidia || :", gpus, dev, workshop.scratch)
    assert listed.split() == shown


@needs_root
@needs_bubblewrap
def test_a_granted_node_can_be_used(dev: Path, workshop: Workshop) -> None:
    """Number 1 is a /dev/zero, and tells."""
    script = "head -c 3 /dev/nvidia1 | wc -c; echo > /dev/nvidiactl && echo written; ulimit -v"
    said = shell(script, [Gpu(1)], dev, workshop.scratch)
    assert said.split() == ["3", "written", "unlimited"]
    assert shell("ulimit -v", [], dev, workshop.scratch).split() != ["unlimited"]


@needs_root
@needs_bubblewrap
def test_what_is_shown_of_the_machine_cannot_be_written(
    dev: Path, workshop: Workshop, open_folder: Path
) -> None:
    folder = open_folder / "0000:65:00.0"
    folder.mkdir()
    (folder / "numa_node").write_text("1\n")
    (folder / "reset").write_text("")
    (folder / "reset").chmod(0o666)
    script = (
        "cat /sys/bus/pci/devices/0000:65:00.0/numa_node\n"
        f"(echo > {folder}/reset) 2>/dev/null && echo reset\n"
        "ls /sys/bus/pci/devices; ls /sys/class/net 2>/dev/null; true"
    )
    said = shell(script, [Gpu(0, folder)], dev, workshop.scratch)
    assert said.split() == ["1", "0000:65:00.0"]


@needs_root
@needs_compiler
@pytest.mark.parametrize(
    ("indices", "told"),
    [
        ([2], [0]),
        ([1, 2], [1, 0]),
        ([0], "{dev}/nvidia2 is missing"),
        ([1, 7], "the driver doesn't know GPUs [1, 7]: Invalid Argument"),
    ],
)
def test_the_driver_says_which_node_an_index_is(
    dev: Path, tmp_path: Path, indices: list[int], told: object
) -> None:
    source, built = tmp_path / "stub.c", tmp_path / "libnvidia-ml.so.1"
    source.write_text(STUB)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, source], check=True)
    done = subprocess.run(
        [sys.executable, "-c", FIND, built, dev, json.dumps(indices)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == (told.format(dev=dev) if isinstance(told, str) else told)


def test_without_a_grant_nothing_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_devices.find(()) == []
    assert gpu_devices.options([]) == []
    assert gpu_devices.rules([]) == []


@needs_bubblewrap
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has an NVIDIA driver")
async def test_a_gpu_that_nobody_knows_is_refused(workshop: Workshop) -> None:
    plan = workshop.plan("process", "hello")._replace(gpus=(0,))
    with pytest.raises(PrepareFailedError, match=r"driver|nvidia-ml-py") as caught:
        await workshop.sandbox(plan).prepare()
    assert not caught.value.invalid
