"""What lenderd's status tells of the machine: verbs of the owner decide by it."""

from dataclasses import replace

import pytest
from core_world import CALM, GIB, LIMITS, Bench, lease_id, make_lease

from lender.core.events import MachineSampled, SandboxPrepared
from lender.core.policy import Policy, Threshold
from lender.core.signals import GpuSignal
from lender.daemon.status_view import lending


@pytest.mark.parametrize(
    ("joules", "method", "measured"),
    [(0.0, "not measurable", False), (6.0, "estimate: 6 W per core", True)],
)
def test_it_tells_whether_energy_is_measured_and_how(
    joules: float, method: str, *, measured: bool
) -> None:
    bench = Bench().ready()
    signals = replace(CALM.signals, joules_per_cpu_s=joules, energy_method=method)
    bench.tell(MachineSampled(signals))
    machine = lending(bench.lender.status(bench.now), bench.now, {"cores": 4})["machine"]
    assert (machine["energy_measured"], machine["energy_method"]) == (measured, method)


def test_it_tells_that_no_work_runs_on_a_gpu_whose_memory_the_owner_needs() -> None:
    limits = replace(LIMITS, vram_kept_bytes=Threshold(GIB, 2 * GIB))
    bench = Bench(policy=Policy(limits, limits)).ready()
    bench.tell(MachineSampled(replace(CALM.signals, gpus=(GpuSignal("GPU-0", GIB // 2),))))
    told = lending(bench.lender.status(bench.now), bench.now, {})
    assert told["phase"] == "lending"
    assert (told["comfort"]["rung"], told["comfort"]["gpu_work"]) == ("full", False)
    (finding,) = told["comfort"]["findings"]
    assert finding["text"] == "no GPU work: 512 MiB of GPU memory free, under 1.0 GiB"
    assert (finding["value"], finding["limit"], finding["clears_at"]) == (GIB // 2, GIB, 2 * GIB)


def test_it_tells_which_job_an_idle_sandbox_waits_for() -> None:
    bench = Bench().ready()
    for number in (1, 2):
        bench.deliver(make_lease(number=number))
    for number in (1, 2):
        bench.tell(SandboxPrepared(lease_id(number)))
        bench.end(0, number=number)
    told = lending(bench.lender.status(bench.now), bench.now, {})
    assert told["warm"] == [{"job": "job-00001", "sandboxes": 2}]
    assert told["running"] == []
