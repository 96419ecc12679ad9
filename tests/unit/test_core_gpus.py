"""A lease that uses a GPU gets one that has the memory, beside what other leases may grow to."""

from core_world import (
    GIB,
    LIMITS,
    Bench,
    class_of,
    every,
    lease_id,
    make_grant,
    make_lease,
    make_spec,
    the,
)

from lender.core.effects import Effect, OpenSandbox, PullWork, ReturnLease, SendOffer, SendReport
from lender.core.events import (
    BrokerGreeted,
    Capabilities,
    CapabilitiesFound,
    LeasesCancelled,
    MachineSampled,
    PullEnded,
)
from lender.core.policy import Policy
from lender.core.pulling import EMPTY_REST_S
from lender.core.signals import GpuSignal, Signals
from lender.protocol.job import JobSpec

GPU_MACHINE = Capabilities("x86_64", "linux", frozenset({"wasm"}), "nvidia")


def reading(*free_bytes: int) -> MachineSampled:
    gpus = tuple(GpuSignal(f"GPU-{index}", free) for index, free in enumerate(free_bytes))
    return MachineSampled(Signals(0.5, 12 * GIB, gpus=gpus))


def bench_with(*free_bytes: int) -> Bench:
    bench = Bench(policy=Policy(in_use=LIMITS, away=LIMITS)).ready(make_grant(vram_bytes=8 * GIB))
    bench.tell(CapabilitiesFound(GPU_MACHINE))
    bench.tell(reading(*free_bytes))
    return bench


def spec_of(vram_bytes: int) -> JobSpec:
    return make_spec(requires={"gpu": "nvidia", "vram_bytes": vram_bytes})


def deliver(bench: Bench, number: int, vram_bytes: int) -> list[Effect]:
    spec = spec_of(vram_bytes)
    return bench.deliver(make_lease(spec, number), class_of(spec))


def test_a_lease_sees_the_one_gpu_that_has_the_most_memory() -> None:
    bench = bench_with(2 * GIB, 6 * GIB, 4 * GIB)
    assert the(OpenSandbox, deliver(bench, 1, GIB)).gpus == (1,)


def test_a_lease_that_uses_no_gpu_sees_none() -> None:
    assert the(OpenSandbox, bench_with(6 * GIB).deliver()).gpus == ()


def test_memory_that_a_lease_may_grow_to_is_not_lent_again() -> None:
    bench = bench_with(6 * GIB, 5 * GIB)
    assert the(OpenSandbox, deliver(bench, 1, 4 * GIB)).gpus == (0,)
    assert the(OpenSandbox, deliver(bench, 2, 4 * GIB)).gpus == (1,)
    assert the(SendOffer, bench.tell(BrokerGreeted())).offer.vram_free_bytes == 2 * GIB
    assert every(ReturnLease, deliver(bench, 3, 3 * GIB)) == [ReturnLease(3, 1.0)]
    bench.tell(LeasesCancelled((lease_id(1),)))
    assert the(OpenSandbox, deliver(bench, 3, 3 * GIB)).gpus == (0,)


def test_work_without_gpu_does_not_wait_for_one() -> None:
    bench = bench_with(6 * GIB)
    plain, on_gpu = class_of(), class_of(spec_of(1))
    deliver(bench, 1, 4 * GIB)
    pulled = {one.work_class for one in every(PullWork, bench.open(plain, on_gpu))}
    assert pulled == {plain, on_gpu}
    assert every(ReturnLease, deliver(bench, 2, 4 * GIB))
    assert the(OpenSandbox, bench.deliver(make_lease(number=3)))
    ended = bench.tell(PullEnded(on_gpu, refused=False))
    assert on_gpu not in {one.work_class for one in every(PullWork, ended)}, "it rests"
    later = bench.wait(EMPTY_REST_S)
    assert on_gpu in {one.work_class for one in every(PullWork, later)}


def test_more_than_any_gpu_has_is_refused() -> None:
    bench = bench_with(2 * GIB)
    report = the(SendReport, deliver(bench, 1, 3 * GIB)).report
    assert "bytes of GPU memory" in report.reason
