"""A sandbox stays warm for more of the same job, under the same consent, and for nothing else."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from core_world import (
    ALICE,
    BLOB,
    BOB,
    BUSY,
    CALM,
    GIB,
    LENDER,
    LIMITS,
    Bench,
    array_spec,
    class_of,
    every,
    lease_id,
    make_grant,
    make_lease,
    make_spec,
    the,
)

from lender.core.admission import Plan
from lender.core.consent import Intent
from lender.core.effects import (
    CloseSandbox,
    Effect,
    KeepSandbox,
    LetSleep,
    OpenSandbox,
    PullWork,
    PurgeSubmitter,
    ReturnLease,
    WriteReceipt,
)
from lender.core.events import (
    BrokerDisconnected,
    Capabilities,
    CapabilitiesFound,
    DrainRequested,
    IntentLoaded,
    MachineSampled,
    SandboxGone,
    SandboxPrepared,
    SleepAnnounced,
    StandstillSeen,
)
from lender.core.kept_sandboxes import ANEW_FOR_EACH_TASK, KEEP_S, MADE_OF, KeptSandboxes
from lender.core.policy import Policy
from lender.core.schedule import parse_when
from lender.core.signals import GpuSignal, Presence, Signals
from lender.protocol.interpreter import INTERPRETER_VARIABLE
from lender.protocol.job import JobSpec

CLOSED = [CloseSandbox(lease_id(1))]


def warm(**spec: object) -> Bench:
    """A lender that has finished lease 1 and keeps its sandbox."""
    bench = Bench().ready()
    bench.run(make_lease(make_spec(**spec)))
    assert every(KeepSandbox, bench.end(0)) == [KeepSandbox(lease_id(1))]
    return bench


def opened(effects: list[Effect]) -> str | None:
    return the(OpenSandbox, effects).reuse


def test_a_lease_that_finished_well_keeps_its_sandbox_for_the_next_of_its_job() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(9), ranges=((0, 1),)))
    effects = bench.end(0)
    assert not every(CloseSandbox, effects)
    assert the(WriteReceipt, effects).outcome == "succeeded"
    assert bench.lender.status(bench.now).warm == ("job-00001",)
    again = bench.deliver(make_lease(array_spec(9), 2, ranges=((1, 1),)))
    assert opened(again) == lease_id(1)
    assert bench.lender.status(bench.now).warm == ()
    bench.tell(SandboxPrepared(lease_id(2)))
    assert every(KeepSandbox, bench.end(1, number=2)) == [KeepSandbox(lease_id(2))]
    assert every(CloseSandbox, bench.wait(KEEP_S)) == [CloseSandbox(lease_id(2))]


def test_a_warm_sandbox_takes_no_slot() -> None:
    bench = Bench(slots=1).ready()
    bench.run()
    bench.end(0)
    assert the(PullWork, bench.open()).batch == 1
    assert bench.lender.status(bench.now).slots_free == 1


def test_idle_for_too_long_it_is_closed() -> None:
    bench = warm()
    assert not every(CloseSandbox, bench.wait(KEEP_S - 0.01))
    effects = bench.wait(0.02)
    assert every(CloseSandbox, effects) == CLOSED
    assert not every(WriteReceipt, effects), "its receipt was written"
    assert opened(bench.deliver(make_lease(number=2))) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"argv": ("other",)},
        {"env": {"SEED": "2"}},
        {"limits": {"cpu": 2}},
    ],
)
def test_what_was_asked_for_otherwise_gets_a_sandbox_of_its_own(changes: dict[str, object]) -> None:
    bench = warm()
    assert opened(bench.deliver(make_lease(make_spec(**changes), 2))) is None


ALIKE: tuple[dict[str, object], ...] = (
    {},
    {"name": "another", "priority": 5, "retries": 2, "expected_s": 1.0, "queue_s": 60.0},
    {"array": {"count": 5}},
    {"array": {"count": 2, "each": (("a",), ("b",))}},
    {"array": {"count": 2, "each": (("a",), ("b",)), "separate": True}},
)


@pytest.mark.parametrize("changes", ALIKE)
def test_another_job_that_asks_for_the_same_goes_on_in_it(changes: dict[str, object]) -> None:
    bench = warm()
    spec = make_spec(id="job-00002", **changes)
    assert opened(bench.deliver(make_lease(spec, 2))) == lease_id(1)
    assert bench.lender.status(bench.now).warm == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"argv": ("other",)},
        {"env": {"SEED": "2"}},
        {"inputs": ()},
        {"outputs": ("left",)},
        {"limits": {"memory_bytes": GIB}},
        {"checkpoint": True},
        {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    ],
)
def test_another_job_that_asks_for_something_else_does_not(changes: dict[str, object]) -> None:
    bench = warm()
    spec = make_spec(id="job-00002", **changes)
    assert opened(bench.deliver(make_lease(spec, 2))) is None


def test_what_two_jobs_must_not_share_is_not_handed_on() -> None:
    sealing = {"keys": {LENDER: "A" * 107, ALICE.public_key: "B" * 107}}
    both: tuple[dict[str, object], ...] = ({"checkpoint": True}, {"sealing": sealing})
    for changes in both:
        bench = warm(**changes)
        assert opened(bench.deliver(make_lease(make_spec(id="job-00002", **changes), 2))) is None
    assert "python" not in ANEW_FOR_EACH_TASK, "an interpreter remembers what ran in it"
    kept = KeptSandboxes()
    python: dict[str, object] = {"runtime": "python", "requires": {"python": "3.11"}}
    one, another = (Plan(make_spec(id=f"job-0000{n}", **python), make_grant()) for n in "12")
    kept.keep(0.0, lease_id(1), one)
    assert kept.take(another) is None
    assert kept.take(one) == lease_id(1)


ANOTHER = {"sha256": "cd" * 32, "size_bytes": 5}
NAMED: dict[str, object] = {
    "runtime": "python",
    "requires": {"python": "3.11"},
    "env": {INTERPRETER_VARIABLE: "of one executor"},
}


def python_plan(number: int, grant: str = "G-1", **spec: object) -> Plan:
    return Plan(make_spec(id=f"job-0000{number}", **NAMED | spec), make_grant(grant))


@pytest.mark.parametrize(
    "changes", [{"program": ANOTHER}, {"name": "another"}, {"array": {"count": 3}}]
)
def test_another_job_that_names_the_same_interpreter_goes_on_in_it(
    changes: dict[str, object],
) -> None:
    kept = KeptSandboxes()
    kept.keep(0.0, lease_id(1), python_plan(1))
    assert kept.take(python_plan(2, **changes)) == lease_id(1)
    assert kept.take(python_plan(3)) is None, "one at a time"


@pytest.mark.parametrize(
    "changes",
    [
        {"env": {}},
        {"env": {INTERPRETER_VARIABLE: "of another"}},
        {"env": {INTERPRETER_VARIABLE: "of one executor", "SEED": "1"}},
        {"limits": {"memory_bytes": GIB}},
        {"requires": {"python": "3.12"}},
        {"requires": {"python": "3.11", "pool": "other"}},
        {"requires": {"python": "3.11", "net": ("internet",)}},
        {"inputs": ()},
        {"outputs": ("left",)},
        {"workload": "other"},
        {"checkpoint": True},
        {"sealing": {"keys": {LENDER: "A" * 107, ALICE.public_key: "B" * 107}}},
        {"submitter": BOB.public_key},
        {"grant": "G-2"},
    ],
)
def test_who_names_an_interpreter_gets_no_other_than_the_same_job_would(
    changes: dict[str, object],
) -> None:
    kept = KeptSandboxes()
    kept.keep(0.0, lease_id(1), python_plan(1))
    kept.keep(0.0, lease_id(2), python_plan(2, **changes))  # type: ignore[arg-type] # a grant's id is a text
    assert kept.take(python_plan(3)) == lease_id(1)
    assert kept.take(python_plan(4)) is None
    for given in (
        {"env": {}},
        {"checkpoint": True},
        {"requires": {"python": "3.11", "net": ("internet",)}},
    ):
        kept = KeptSandboxes()
        kept.keep(0.0, lease_id(1), python_plan(1, **given))
        assert kept.take(python_plan(2, **given)) is None, "none of these is ever shared"


def test_a_new_field_of_jobs_is_either_a_part_of_sandboxes_or_known_to_be_none() -> None:
    told_anew, own = {"id", "array"}, {"sealing", "checkpoint"}
    of_the_broker = {"v", "name", "gang", "retries", "priority", "verify", "expected_s"}
    of_time = {"not_before", "after", "queue_s", "created_at", "not_after"}
    known = {*MADE_OF, *told_anew, *own, *of_the_broker, *of_time}
    assert set(JobSpec.model_fields) == known


def test_another_submitter_gets_a_sandbox_of_their_own() -> None:
    bench = Bench().ready(make_grant(), make_grant("G-2", BOB))
    bench.run()
    bench.end(0)
    spec = make_spec(BOB)
    effects = bench.deliver(make_lease(spec, 2, signer=BOB), class_of(spec))
    assert opened(effects) is None


def test_under_another_grant_nothing_is_reused() -> None:
    bench = Bench().ready(make_grant(), make_grant("G-2"))
    bench.run()
    bench.end(0)
    assert every(CloseSandbox, bench.consent(make_grant("G-2"))) == CLOSED
    effects = bench.deliver(make_lease(number=2))
    assert (the(OpenSandbox, effects).grant, opened(effects)) == ("G-2", None)


def test_a_sandbox_in_which_a_task_failed_is_closed() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(2)))
    bench.end(0, state="failed")
    assert every(CloseSandbox, bench.end(1)) == CLOSED


def test_a_sandbox_that_was_given_a_checkpoint_is_not_reused_and_reuses_none() -> None:
    spec = make_spec(checkpoint=True)
    bench = Bench().ready()
    bench.run(make_lease(spec))
    assert every(KeepSandbox, bench.end(0))
    effects = bench.deliver(make_lease(spec, 2, checkpoints=((0, BLOB),)))
    assert opened(effects) is None
    bench.tell(SandboxPrepared(lease_id(2)))
    assert every(CloseSandbox, bench.end(0, number=2)) == [CloseSandbox(lease_id(2))]


def test_gpu_memory_is_not_kept_warm() -> None:
    bench = Bench().ready()
    bench.tell(CapabilitiesFound(Capabilities("x86_64", "linux", frozenset({"wasm"}), "nvidia")))
    bench.tell(MachineSampled(Signals(0.5, 12 * GIB, gpus=(GpuSignal("a", 7 * GIB),))))
    spec = make_spec(requires={"gpu": "nvidia"})
    bench.deliver(make_lease(spec), class_of(spec))
    bench.tell(SandboxPrepared(lease_id(1)))
    assert every(CloseSandbox, bench.end(0)) == CLOSED


def test_what_somebody_stopped_is_not_kept() -> None:
    bench = Bench().ready()
    bench.run()
    bench.tell(StandstillSeen(frozenset({lease_id(1)})))
    assert every(CloseSandbox, bench.end(0)) == CLOSED


STOPS: list[Callable[[Bench], list[Effect]]] = [
    lambda bench: bench.pause(),
    lambda bench: bench.tell(IntentLoaded(Intent(True, bench.now, None, bench.now + 60.0))),
    lambda bench: bench.consent(make_grant(), revoked=["G-1"]),
    lambda bench: bench.consent(),
    lambda bench: bench.consent(make_grant(cpu=1, memory_bytes=1)),
    lambda bench: bench.tell(BUSY),
    lambda bench: bench.tell(MachineSampled(Signals(0.5, GIB // 2))),
    lambda bench: bench.tell(BrokerDisconnected()),
    lambda bench: bench.tell(DrainRequested(bench.now + 60.0)),
    lambda bench: bench.tell(MachineSampled(Signals(0.5, 12 * GIB, metered=True))),
]


@pytest.mark.parametrize("stop", STOPS)
def test_it_is_closed_at_once_when_anything_but_plain_lending_holds(
    stop: Callable[[Bench], list[Effect]],
) -> None:
    limits = replace(LIMITS, metered=False)
    bench = Bench(policy=Policy(in_use=limits, away=limits)).ready()
    bench.run()
    bench.end(0)
    effects = stop(bench)
    assert every(CloseSandbox, effects) == CLOSED
    assert not every(WriteReceipt, effects)
    assert bench.lender.status(bench.now).warm == ()


def test_none_is_kept_by_a_lender_that_does_not_lend_plainly() -> None:
    bench = Bench().ready()
    bench.run()
    bench.tell(BrokerDisconnected())
    assert every(CloseSandbox, bench.end(0)) == CLOSED


def test_an_expired_or_closed_grant_leaves_nothing_warm() -> None:
    bench = Bench().ready()
    bench.consent(make_grant(not_after=bench.now + 2.0))
    bench.run()
    bench.end(0)
    assert every(CloseSandbox, bench.wait(1.99)) == []
    assert every(CloseSandbox, bench.wait(0.02)) == CLOSED
    away = parse_when("away")
    bench = Bench().ready(make_grant(when=away), make_grant("G-2", workload="pinned"))
    bench.run()
    bench.end(0)
    here = Presence(idle_s=0.0, desktop=True, sources=("mutter",))
    effects = bench.tell(MachineSampled(Signals(0.5, 12 * GIB, presence=here)))
    assert bench.lender.status(bench.now).phase == "lending"
    assert every(CloseSandbox, effects) == CLOSED


def test_the_machine_sleeps_without_waiting_for_a_warm_sandbox() -> None:
    bench = warm()
    bench.answer(1)
    effects = bench.tell(SleepAnnounced())
    assert every(CloseSandbox, effects) == CLOSED
    assert effects.index(CLOSED[0]) < effects.index(LetSleep())


def test_it_is_closed_before_what_is_kept_of_its_submitter_is_deleted() -> None:
    bench = warm()
    effects = bench.consent()
    assert effects.index(CLOSED[0]) < effects.index(PurgeSubmitter(ALICE.public_key))


def test_idle_sandboxes_make_room_for_work_before_it_begins() -> None:
    large = {"memory_bytes": 6 * GIB}
    bench = warm(limits=large)
    assert bench.lender.status(bench.now).memory_free_bytes == 11 * GIB
    effects = bench.deliver(make_lease(make_spec(id="job-00002", argv=("other",), limits=large), 2))
    assert effects.index(CLOSED[0]) < effects.index(the(OpenSandbox, effects))


def test_what_is_warm_and_what_runs_never_hold_more_than_is_spare() -> None:
    bench = warm(limits={"memory_bytes": 6 * GIB})
    assert not every(CloseSandbox, bench.tell(MachineSampled(Signals(0.5, 7 * GIB))))
    assert every(CloseSandbox, bench.tell(MachineSampled(Signals(0.5, 7 * GIB - 1)))) == CLOSED


def test_no_more_are_kept_than_there_are_slots_and_the_coldest_goes() -> None:
    bench = Bench(slots=2).ready()
    specs = [make_spec(id=f"job-0000{number}", argv=(f"{number}",)) for number in range(3)]
    for number, spec in enumerate(specs):
        bench.run(make_lease(spec, number))
        effects = bench.end(0, number=number)
    assert every(CloseSandbox, effects) == [CloseSandbox(lease_id(0))]
    assert bench.lender.status(bench.now).warm == ("job-00001", "job-00002")


def test_the_warmest_is_reused() -> None:
    bench = Bench().ready()
    for number in (1, 2):
        bench.deliver(make_lease(number=number))
    for number in (1, 2):
        bench.tell(SandboxPrepared(lease_id(number)))
        bench.end(0, number=number)
    assert opened(bench.deliver(make_lease(number=3))) == lease_id(2)


def test_what_is_reused_is_closed_once_under_its_new_lease() -> None:
    bench = warm()
    bench.run(make_lease(number=2))
    assert not every(CloseSandbox, bench.tell(SandboxGone(lease_id(1), "late")))
    effects = bench.tell(SandboxGone(lease_id(2), "killed"))
    assert every(CloseSandbox, effects) == [CloseSandbox(lease_id(2))]
    assert not every(CloseSandbox, bench.wait(60.0))


def test_a_lease_that_finds_no_slot_leaves_the_warm_ones_alone() -> None:
    bench = Bench(slots=1).ready()
    bench.run()
    bench.end(0)
    bench.run(make_lease(make_spec(id="job-00002", argv=("other",)), 2))
    effects = bench.deliver(make_lease(number=3))
    assert every(ReturnLease, effects)
    assert not every(CloseSandbox, effects)
    assert bench.lender.status(bench.now).warm == ("job-00001",)
    assert bench.tell(CALM) == []
