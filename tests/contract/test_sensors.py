"""Sensors against the real machine; NVML against a stub library that the test builds."""

import ctypes
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lender.sensors import memory
from lender.sensors.cpu import CpuMeter
from lender.sensors.gpu import GpuMeter

STUB = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory_t;
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
static int devices[2];
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **h) { *h = &devices[i]; return 0; }
int nvmlDeviceGetMemoryInfo(void *h, memory_t *m) {
    if (h == &devices[1]) return 15; /* NVML_ERROR_GPU_IS_LOST */
    m->total = 8ULL << 30; m->free = 3ULL << 30; m->used = 5ULL << 30;
    return 0;
}
const char *nvmlErrorString(int error) { return "stub"; }
"""
READ = """
import sys
import pynvml
load = pynvml.CDLL
pynvml.CDLL = lambda _: load(sys.argv[1])
from pathlib import Path
from lender.sensors.gpu import GpuMeter
print(GpuMeter.open([Path("/dev/null")]).vram_free_bytes())
"""


def test_memory_is_a_part_of_the_machine() -> None:
    assert 0 < memory.available_bytes() <= memory.total_bytes()


def test_our_own_work_does_not_count_as_others() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            meter = CpuMeter()
            meter.read([busy.pid])
            before = psutil.Process(busy.pid).cpu_times().user
            deadline = time.monotonic() + 30
            while psutil.Process(busy.pid).cpu_times().user < before + 1:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            machine = psutil.cpu_count() or 1
            with_ours = meter.read([busy.pid])
            assert 0 <= with_ours <= machine
            meter.read([])
            time.sleep(0.5)
            assert meter.read([]) > 0.2
        finally:
            busy.kill()


def test_a_machine_without_a_driver_has_no_gpu(tmp_path: Path) -> None:
    assert GpuMeter.open([tmp_path / "nvidiactl"]) is None


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (Debian package: gcc)")
def test_free_memory_is_summed_and_a_lost_gpu_counts_as_full(tmp_path: Path) -> None:
    source, library = tmp_path / "stub.c", tmp_path / "libnvidia-ml.so.1"
    source.write_text(STUB)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    ctypes.CDLL(str(library))
    read = subprocess.run(
        [sys.executable, "-c", READ, str(library)], capture_output=True, text=True, check=False
    )
    assert read.stdout.strip() == str(3 << 30), read.stderr
