"""How much work with a network may move, and where it may not run: budgets, lines that cost."""

from dataclasses import replace
from typing import Any

from core_world import (
    ALICE,
    BOB,
    CALM,
    Bench,
    class_of,
    every,
    lease_id,
    make_grant,
    make_lease,
    make_spec,
    the,
)

from lender.core.budget import parse_budget
from lender.core.consent import Consent, Grant
from lender.core.effects import (
    AllowNetwork,
    CloseSandbox,
    Effect,
    KeepSandbox,
    OpenSandbox,
    SendOffer,
    SendReport,
    WriteReceipt,
)
from lender.core.events import (
    BrokerGreeted,
    Capabilities,
    CapabilitiesFound,
    ConsentLoaded,
    MachineSampled,
    SandboxPrepared,
    UsageMetered,
)
from lender.core.hold import NEEDED_HERE
from lender.core.restraint import METERED
from lender.protocol.job import JobSpec
from lender.protocol.signature import Signer

RUNS = frozenset({"wasm", "process"})
NETWORKED = Capabilities("x86_64", "linux", RUNS, net=frozenset({"process"}))  # type: ignore[arg-type]  # of runtimes


def on_line(*, metered: bool) -> MachineSampled:
    return MachineSampled(replace(CALM.signals, metered=metered))


def granted(id_: str = "G-1", signer: Signer = ALICE, **more: Any) -> Grant:  # noqa: ANN401
    return make_grant(id_, signer, workload="command", net=("internet",), **more)


def spec_of(signer: Signer = ALICE, job: str = "job-00001", **more: Any) -> JobSpec:  # noqa: ANN401
    return make_spec(
        signer, id=job, workload="command", runtime="process", program=None, argv=("x",), inputs=(),
        requires={"net": ("a.org",)}, **more,
    )  # fmt: skip


def bench_with(*grants: Grant, **config: object) -> Bench:
    bench = Bench(**config).ready(*grants)
    bench.tell(CapabilitiesFound(NETWORKED))
    return bench


def deliver(bench: Bench, number: int = 1, spec: JobSpec | None = None) -> list[Effect]:
    spec = spec or spec_of()
    signer = {one.public_key: one for one in (ALICE, BOB)}[spec.submitter]
    return bench.deliver(make_lease(spec, number, signer=signer), class_of(spec))


def moved(number: int, in_bytes: int, out_bytes: int = 0) -> UsageMetered:
    return UsageMetered(
        lease_id(number), 0.0, 0, network_in_bytes=in_bytes, network_out_bytes=out_bytes
    )


def allowed(effects: list[Effect]) -> dict[str, int | None]:
    return {one.lease: one.moved_bytes for one in every(AllowNetwork, effects)}


def test_without_a_bound_any_amount_is_allowed_at_once_and_nothing_more_is_said() -> None:
    bench = bench_with(granted())
    assert allowed(deliver(bench)) == {lease_id(1): None}
    assert allowed(bench.tell(on_line(metered=False), 1.0)) == {}


def test_work_without_a_network_is_told_nothing() -> None:
    bench = bench_with(make_grant())
    assert allowed(bench.deliver()) == {}


def test_who_is_alone_gets_all_that_is_left_and_the_grant_closes_once_it_is_used() -> None:
    bench = bench_with(granted(budget=parse_budget(["5GB/week", "1MB/day"])))
    assert allowed(deliver(bench)) == {lease_id(1): 1_000_000}
    bench.tell(SandboxPrepared(lease_id(1)))
    assert allowed(bench.tell(moved(1, 600_000, 100_000))) == {}
    effects = bench.tell(moved(1, 900_000, 100_000))
    assert the(CloseSandbox, effects).lease == lease_id(1)
    assert "has used" in the(WriteReceipt, effects).ended


def test_those_that_share_a_budget_get_equal_parts_with_each_reading_of_all() -> None:
    bench = bench_with(granted(budget=parse_budget(["1MB/day"])), granted("G-2", BOB))
    deliver(bench)
    assert allowed(deliver(bench, 2, spec_of(job="job-00002"))) == {}, "read before more is said"
    assert allowed(deliver(bench, 3, spec_of(BOB, "job-00003"))) == {lease_id(3): None}
    halves = allowed(bench.tell(on_line(metered=False), 1.0))
    assert halves == {lease_id(1): 500_000, lease_id(2): 500_000}
    bench.tell(moved(1, 500_000))
    assert allowed(bench.tell(moved(2, 100_001))) == {}
    again = allowed(bench.tell(on_line(metered=False), 1.0))
    assert again == {lease_id(1): 500_000 + 200_000, lease_id(2): 100_001 + 200_000}


def test_the_machines_own_bound_is_shared_by_all() -> None:
    bench = bench_with(
        granted(budget=parse_budget(["1MB/day"])),
        granted("G-2", BOB),
        budget=parse_budget(["600GB/day", "0.5GB/week", "1cpuh/day"]),
    )
    assert allowed(deliver(bench)) == {lease_id(1): 1_000_000}
    deliver(bench, 2, spec_of(BOB, "job-00002"))
    halves = allowed(bench.tell(on_line(metered=False), 1.0))
    assert halves == {lease_id(2): 250_000_000}, "the first has less by its grant"


def test_a_line_that_gets_to_cost_ends_work_with_a_network_at_once() -> None:
    bench = bench_with(granted())
    deliver(bench)
    bench.tell(SandboxPrepared(lease_id(1)))
    effects = bench.tell(on_line(metered=True), 1.0)
    assert the(CloseSandbox, effects).lease == lease_id(1)
    assert the(WriteReceipt, effects).ended == METERED
    report = the(SendReport, effects).report
    assert (report.outcome, report.reason) == ("evicted", NEEDED_HERE), "the line is the owner's"


def test_other_work_of_the_grant_goes_on_there_and_more_of_it_is_taken() -> None:
    bench = bench_with(granted())
    quiet = make_spec(
        workload="command", runtime="process", program=None, argv=("x",), inputs=()
    )  # fmt: skip
    bench.deliver(make_lease(quiet), class_of(quiet))
    bench.tell(SandboxPrepared(lease_id(1)))
    assert not every(CloseSandbox, bench.tell(on_line(metered=True), 1.0))
    assert every(OpenSandbox, bench.deliver(make_lease(quiet, 2), class_of(quiet)))
    refused = the(SendReport, deliver(bench, 3)).report
    assert (refused.outcome, refused.reason) == ("evicted", NEEDED_HERE), "it is not refused"
    assert the(SendOffer, bench.tell(BrokerGreeted())).offer.net == ()
    bench.tell(on_line(metered=False), 1.0)
    assert the(SendOffer, bench.tell(BrokerGreeted())).offer.net
    assert every(OpenSandbox, deliver(bench, 4, spec_of(job="job-00004")))


def test_a_grant_that_says_so_gives_its_network_there_too() -> None:
    bench = bench_with(granted(net_metered=True))
    bench.tell(on_line(metered=True))
    assert the(SendOffer, bench.tell(BrokerGreeted())).offer.net
    assert every(OpenSandbox, deliver(bench))
    assert not every(CloseSandbox, bench.tell(on_line(metered=True), 1.0))


def test_no_sandbox_with_a_network_is_kept_warm_on_a_line_that_costs() -> None:
    for metered in (False, True):
        bench = bench_with(granted())
        spec = spec_of(array={"count": 2})
        bench.deliver(make_lease(spec, ranges=((0, 1),)), class_of(spec))
        bench.tell(SandboxPrepared(lease_id(1)))
        assert every(KeepSandbox, bench.end(0)), "as others"
        effects = bench.tell(on_line(metered=metered), 0.1)
        assert bool(every(CloseSandbox, effects)) == metered


def test_a_revoked_grant_has_no_network_either() -> None:
    bench = bench_with(granted())
    deliver(bench)
    effects = bench.tell(ConsentLoaded(Consent((granted(),), frozenset({"G-1"}))))
    assert the(CloseSandbox, effects).lease == lease_id(1)
