"""A device is offered where a grant names it, and goes to one lease at a time."""

import pytest
from core_world import (
    ALICE,
    BOB,
    CATALOGUE,
    Bench,
    class_of,
    every,
    lease_id,
    make_config,
    make_grant,
    make_lease,
    make_spec,
    the,
)

from lender.core.consent import Grant
from lender.core.effects import (
    CloseSandbox,
    Effect,
    KeepSandbox,
    OpenSandbox,
    ReturnLease,
    SendOffer,
    SendReport,
    WriteReceipt,
)
from lender.core.events import (
    BrokerGreeted,
    Capabilities,
    CapabilitiesFound,
    DevicesFound,
    LeasesCancelled,
    SandboxPrepared,
)
from lender.protocol import bounds
from lender.protocol.devices import check_device, devices_of, parse_devices
from lender.protocol.job import JobSpec

HAILO, CORAL = "accel-hailo8", "accel-coral-usb"
MACHINE = Capabilities("aarch64", "linux", frozenset({"wasm", "process"}))


def granted(*devices: str, **changes: object) -> Grant:
    return make_grant(**{"workload": "command", "devices": devices} | changes)


def bench_with(*grants: Grant, found: tuple[str, ...] = (HAILO, "nix")) -> Bench:
    bench = Bench(labels=("ssd",)).ready(*grants)
    bench.tell(CapabilitiesFound(MACHINE))
    bench.tell(DevicesFound(found))
    return bench


def spec_of(*labels: str, number: int = 1, **changes: object) -> JobSpec:
    job = f"job-{number:05d}"
    process = {"workload": "command", "runtime": "process", "argv": ("true",), "program": None}
    return make_spec(**{"id": job, "requires": {"labels": labels}, **process} | changes)


def deliver(bench: Bench, number: int, *labels: str) -> list[Effect]:
    spec = spec_of(*labels, number=number)
    return bench.deliver(make_lease(spec, number), class_of(spec))


def offered(bench: Bench) -> tuple[str, ...]:
    return the(SendOffer, bench.tell(BrokerGreeted())).offer.labels


def refusal(effects: list[Effect]) -> str:
    return the(SendReport, effects).report.reason


def test_a_device_is_told_to_nobody_before_a_grant_names_it() -> None:
    assert offered(bench_with(granted())) == ("ssd", "nix")
    assert offered(bench_with(granted(CORAL))) == ("ssd", "nix")
    assert offered(bench_with(granted(HAILO))) == ("ssd", "accel-hailo8", "nix")


def test_what_is_plugged_in_or_out_is_told_at_once() -> None:
    bench = bench_with(granted(HAILO), found=())
    assert offered(bench) == ("ssd",)
    bench.wait(1.0)
    assert the(SendOffer, bench.tell(DevicesFound((HAILO,)))).offer.labels == ("ssd", HAILO)
    bench.wait(1.0)
    assert the(SendOffer, bench.tell(DevicesFound(()))).offer.labels == ("ssd",)
    assert refusal(deliver(bench, 1, HAILO)) == (
        "the job needs a machine that is called accel-hailo8"
    )


def test_an_offer_has_no_more_labels_than_it_may() -> None:
    many = tuple(f"found-{n}" for n in range(2 * bounds.LABELS_MAX))
    assert len(offered(bench_with(granted(), found=many))) == bounds.LABELS_MAX


def test_a_job_that_asks_is_given_the_device_and_its_receipt_says_so() -> None:
    bench = bench_with(granted(HAILO))
    assert the(OpenSandbox, deliver(bench, 1, HAILO)).devices == (HAILO,)
    (attempt,) = bench.lender.status(bench.now).attempts
    assert attempt.devices == (HAILO,)
    ended = bench.tell(LeasesCancelled((lease_id(1),)))
    assert the(WriteReceipt, ended).devices == (HAILO,)


def test_a_job_that_does_not_ask_is_given_none() -> None:
    bench = bench_with(granted(HAILO))
    assert the(OpenSandbox, deliver(bench, 1, "ssd", "nix")).devices == ()


def test_no_device_without_a_grant_for_it() -> None:
    bob = granted(id_="G-2", signer=BOB)
    bench = bench_with(granted(HAILO), bob)
    spec = spec_of(HAILO, submitter=BOB.public_key)
    assert refusal(bench.deliver(make_lease(spec, signer=BOB), class_of(spec))) == (
        "asks for accel-hailo8, grant G-2 does not allow it"
    )
    assert the(OpenSandbox, deliver(bench, 2, HAILO)).grant == "G-1"


def test_a_device_is_one_leases_at_a_time() -> None:
    bench = bench_with(granted(HAILO, CORAL), found=(HAILO, CORAL))
    assert every(OpenSandbox, deliver(bench, 1, HAILO))
    assert every(ReturnLease, deliver(bench, 2, HAILO, CORAL)) == [ReturnLease(2, 1.0)]
    assert the(OpenSandbox, deliver(bench, 3, CORAL)).devices == (CORAL,)
    assert every(OpenSandbox, deliver(bench, 4)), "who needs none does not wait"
    bench.tell(LeasesCancelled((lease_id(1),)))
    assert every(OpenSandbox, deliver(bench, 5, HAILO))


def test_a_sandbox_with_a_device_is_not_kept_warm() -> None:
    bench = bench_with(granted(HAILO))
    deliver(bench, 1, HAILO)
    bench.tell(SandboxPrepared(lease_id(1)))
    effects = bench.end(0)
    assert every(CloseSandbox, effects)
    assert not every(KeepSandbox, effects)


@pytest.mark.parametrize("workload", ["render"])
def test_wasm_can_be_given_none(workload: str) -> None:
    assert CATALOGUE[workload].runtime == "wasm"
    bench = bench_with(granted(HAILO, workload=workload))
    spec = make_spec(ALICE, requires={"labels": (HAILO,)})
    assert refusal(bench.deliver(make_lease(spec), class_of(spec))) == (
        "the job needs a device, and wasm sandboxes can't be given one"
    )


def test_a_grant_without_the_device_any_more_ends_what_runs_by_it() -> None:
    bench = bench_with(granted(HAILO))
    deliver(bench, 1, HAILO)
    assert every(CloseSandbox, bench.consent(granted()))


def test_names_of_devices() -> None:
    assert devices_of(("ssd", CORAL, HAILO, CORAL)) == (CORAL, HAILO)
    assert parse_devices("accel-hailo8, accel-coral-usb") == (CORAL, HAILO)
    assert check_device("accel-later") == "accel-later"
    with pytest.raises(ValueError, match="'hailo8' is no device: accel-hailo8, "):
        parse_devices("accel-hailo8,hailo8")
    with pytest.raises(ValueError, match="'accel-' is no device"):
        check_device("accel-")
    assert make_config().labels == ()
