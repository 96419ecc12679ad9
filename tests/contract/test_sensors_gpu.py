"""GPUs: the real NVML binding against a stub library that the test builds."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lender.sensors.gpu import GpuMeter

STUB = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef unsigned long long u64;
typedef struct { u64 total, free, used; } memory_t;
typedef struct { unsigned pid; u64 used; unsigned gi, ci; } process_t;
typedef struct { unsigned pid; u64 time; unsigned sm, mem, enc, dec; } sample_t;
typedef struct { unsigned gpu, memory; } use_t;
enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, LOST = 15 };
static int devices[2];
static int is(const char *mode) { const char *m = getenv("STUB"); return m && !strcmp(m, mode); }
int nvmlInit_v2(void) { return OK; }
int nvmlInitWithFlags(unsigned flags) { return OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **h) { *h = &devices[i]; return OK; }
int nvmlDeviceGetUUID(void *h, char *uuid, unsigned length) {
    snprintf(uuid, length, "GPU-%d", (int)((int *)h - devices)); return OK;
}
int nvmlDeviceGetMemoryInfo(void *h, memory_t *m) {
    if (h == &devices[1]) return LOST;
    m->total = 8ULL << 30; m->free = 3ULL << 30; m->used = 5ULL << 30;
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *h, unsigned *count, process_t *p) {
    if (h == &devices[1]) return LOST;
    if (is("hidden")) return NOT_SUPPORTED;
    if (*count < 2) { *count = 2; return TOO_SMALL; }
    *count = is("alone") ? 1 : 2;
    p[0] = (process_t){100, 1ULL << 30, ~0u, ~0u};
    p[1] = (process_t){200, is("untold") ? ~0ULL : 2ULL << 30, ~0u, ~0u};
    return OK;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *h, unsigned *count, process_t *p) {
    if (is("alone")) { *count = 0; return OK; }
    if (*count < 1) { *count = 1; return TOO_SMALL; }
    *count = 1;
    p[0] = (process_t){300, 256ULL << 20, ~0u, ~0u};
    return OK;
}
int nvmlDeviceGetProcessUtilization(void *h, sample_t *s, unsigned *count, u64 since) {
    if (is("untold") || is("alone")) return NOT_SUPPORTED;
    if (since >= 3000000) return NOT_FOUND;
    if (!s) { *count = 4; return TOO_SMALL; }
    memset(s, 0, 4 * sizeof *s);
    s[0] = (sample_t){100, 2000000, 40, 1, 0, 0};
    s[1] = (sample_t){100, 3000000, 80, 1, 0, 0};
    s[2] = (sample_t){200, 3000000, 10, 1, 0, 20};
    s[3] = (sample_t){200, 1000000, 100, 1, 0, 0}; /* seen before */
    return OK;
}
int nvmlDeviceGetUtilizationRates(void *h, use_t *use) {
    if (is("untold")) return NOT_SUPPORTED;
    use->gpu = 70; return OK;
}
int nvmlDeviceGetTotalEnergyConsumption(void *h, u64 *mj) {
    static u64 total; *mj = total += 80000; return OK;
}
const char *nvmlErrorString(int error) { return "stub"; }
"""
READ = """
import json, sys
from pathlib import Path
import pynvml
load = pynvml.CDLL
pynvml.CDLL = lambda _: load(sys.argv[1])
from lender.sensors.gpu import GpuMeter
meter = GpuMeter.open([Path("/dev/null")])
ours = {int(pid) for pid in sys.argv[2].split(",")}
if sys.argv[3] == "twice":
    meter.read(0, ours)
    for gpu in meter._gpus:
        gpu._sampled_at_us = 1_500_000
reading = meter.read(2.0, ours)
print(json.dumps({
    "gpus": [[g.id, g.vram_free_bytes, g.vram_others_bytes, g.use_others] for g in reading.gpus],
    "ours": {p: [s.vram_bytes, s.busy_s, s.joules] for p, s in reading.ours.items()},
    "lent": [g.carries_lent for g in reading.gpus],
    "again": [g.use_others for g in meter.read(3.0, ours).gpus],
    "fault": meter.fault,
}))
"""
GIB = 1 << 30

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None, reason="no C compiler (Debian package: gcc)"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    source, built = folder / "stub.c", folder / "libnvidia-ml.so.1"
    source.write_text(STUB)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(built), str(source)], check=True)
    return built


def read(library: Path, mode: str, ours: str = "100", times: str = "twice") -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", READ, str(library), ours, times],
        env={"STUB": mode},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told


def test_a_machine_without_a_driver_has_no_gpu(tmp_path: Path) -> None:
    assert GpuMeter.open([tmp_path / "nvidiactl"]) is None


def test_ours_and_others_are_told_apart(library: Path) -> None:
    told = read(library, "")
    # Others: 2 GiB of computing and 256 MiB of a desktop; a film's decoder counts as use.
    assert told["gpus"] == [
        ["GPU-0", 3 * GIB, 2 * GIB + (256 << 20), 0.2],
        ["GPU-1", 0, 0, 1.0],
    ]
    # 60 % of 2 s, and three quarters of the energy since the reading before.
    assert told["ours"] == {"100": [GIB, 1.2, pytest.approx(60)]}
    assert "GPU-1" in str(told["fault"])


@pytest.mark.parametrize(
    ("mode", "ours", "lent"),
    [
        ("", "100", [True, True]),
        ("", "1", [False, True]),
        ("hidden", "1", [True, True]),
    ],
)
def test_a_gpu_carries_lent_work_where_ours_use_it_or_nobody_can_tell(
    library: Path, mode: str, ours: str, lent: list[bool]
) -> None:
    assert read(library, mode, ours, "once")["lent"] == lent


def test_where_nobody_used_it_lately_the_whole_use_is_theirs(library: Path) -> None:
    assert read(library, "")["again"] == [0.7, 1.0]


def test_memory_and_use_that_are_not_told_are_theirs(library: Path) -> None:
    told = read(library, "untold")
    assert told["gpus"] == [["GPU-0", 3 * GIB, 4 * GIB, 1.0], ["GPU-1", 0, 0, 1.0]]


def test_a_gpu_that_we_alone_hold_is_not_used_by_others(library: Path) -> None:
    told = read(library, "alone")
    assert told["gpus"] == [["GPU-0", 3 * GIB, 0, 0.0], ["GPU-1", 0, 0, 1.0]]
    assert read(library, "alone", ours="1")["gpus"] == [
        ["GPU-0", 3 * GIB, GIB, 0.7],
        ["GPU-1", 0, 0, 1.0],
    ]
