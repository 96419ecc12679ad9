"""The lender's own check of a lease: what it runs, and what it refuses with which words."""

from dataclasses import replace
from typing import Any

import pytest
from core_world import (
    ALICE,
    BOB,
    CATALOGUE,
    GIB,
    LENDER,
    MACHINE,
    PROGRAM,
    START,
    array_spec,
    class_of,
    make_grant,
    make_lease,
    make_spec,
)

from lender.core.admission import Plan, Refused, Rules, admit
from lender.core.consent import Consent
from lender.core.events import Capabilities
from lender.protocol.codec import encode
from lender.protocol.job import JobSpec
from lender.protocol.lease import Lease

GRANTS = (
    make_grant("G-1", cpu=2, memory_bytes=2 * GIB),
    make_grant("G-2", workload="pinned"),
    make_grant("G-3", workload="command"),
    make_grant("G-4", workload="unheard-of"),
)


def rules(**changes: object) -> Rules:
    fields: dict[str, Any] = {
        "consent": Consent(GRANTS),
        "capabilities": MACHINE,
        "workloads": CATALOGUE,
        "slots_total": 4,
        "memory_free_bytes": 4 * GIB,
    }
    return Rules(**(fields | changes))


def reason(lease: Lease, spec: JobSpec | None = None, **changes: object) -> str:
    answer = admit(START, lease, class_of(spec or make_spec()), rules(**changes))
    assert isinstance(answer, Refused)
    return answer.reason


def refuses(spec: JobSpec, **changes: object) -> str:
    return reason(make_lease(spec), spec, **changes)


def test_an_honest_lease_becomes_a_plan_under_its_grant() -> None:
    spec = array_spec(10)
    lease = make_lease(spec, ranges=((5, 5), (0, 5)))
    assert admit(START, lease, class_of(spec), rules()) == Plan(spec, GRANTS[0])


def test_a_json_specification_is_verified_over_its_own_bytes() -> None:
    payload = encode(make_spec(), "application/json")
    lease = make_lease(
        spec=make_spec(), content_type="application/json", signature=ALICE.sign(payload)
    ).model_copy(update={"spec": payload})
    assert isinstance(admit(START, lease, class_of(), rules()), Plan)


def test_a_specification_that_was_not_signed_by_its_submitter_never_runs() -> None:
    assert "signature: does not match" in reason(make_lease(signer=BOB))
    assert "signature: an Ed25519" in reason(make_lease(signature="AAAA"))
    tampered = make_lease().model_copy(update={"spec": encode(make_spec(argv=("--evil",)))})
    assert "signature: does not match" in reason(tampered)


def test_a_specification_that_does_not_decode_is_refused() -> None:
    junk = make_lease().model_copy(update={"spec": b"junk", "signature": ALICE.sign(b"junk")})
    assert "the specification does not hold" in reason(junk)


@pytest.mark.parametrize("changes", [{"job": "job-00002"}, {"submitter": BOB.public_key}])
def test_a_lease_must_name_what_was_signed(changes: dict[str, str]) -> None:
    spec = make_spec()
    payload = encode(spec)
    signer = BOB if "submitter" in changes else ALICE
    lease = make_lease(spec).model_copy(update={"signature": signer.sign(payload), **changes})
    assert "another job or submitter" in reason(lease)


@pytest.mark.parametrize(
    "ranges", [((0, 11),), ((10, 1),), ((0, 5), (4, 2)), ((3, 1), (3, 1)), ((0, 10**18),)]
)
def test_tasks_must_be_distinct_and_of_the_array(ranges: tuple[tuple[int, int], ...]) -> None:
    spec = array_spec(10)
    assert "not distinct tasks" in reason(make_lease(spec, ranges=ranges), spec)


@pytest.mark.parametrize(
    "ranges", [((0, 1),), ((2, 3),), ((4, 1),), ((2, 1), (5, 1)), ((8, 2),), ((3, 6),)]
)
def test_only_tasks_that_were_signed_for_are_run(ranges: tuple[tuple[int, int], ...]) -> None:
    spec = make_spec(array={"count": 10, "tasks": ((2, 2), (8, 1))})
    assert "not distinct tasks" in reason(make_lease(spec, ranges=ranges), spec)


def test_a_lease_of_another_class_is_refused() -> None:
    assert "does not belong in class" in reason(make_lease(), make_spec(workload="pinned"))


def test_a_lenders_own_queue_brings_any_class_of_its_pools() -> None:
    own = {"own_queue": "assign_me", "pools": ("default",)}
    assert isinstance(admit(START, make_lease(), "assign_me", rules(**own)), Plan)
    elsewhere = make_spec(requires={"pool": "lab"})
    refused = admit(START, make_lease(elsewhere), "assign_me", rules(**own))
    assert isinstance(refused, Refused)
    assert "pool lab" in refused.reason
    assert isinstance(admit(START, make_lease(), "assign_you", rules(**own)), Refused)


def test_an_expired_job_is_refused() -> None:
    assert refuses(make_spec(not_after=START)) == "the job has expired"


def test_what_the_machine_cannot_do_is_refused() -> None:
    assert "runtime wasm does not work" in refuses(
        make_spec(), capabilities=Capabilities("x86_64", "linux", frozenset())
    )
    assert "needs aarch64" in refuses(make_spec(requires={"arch": "aarch64"}))
    assert "needs a GPU" in refuses(make_spec(requires={"gpu": "nvidia"}))
    assert "asks for 2 cores, this machine lends 1" in refuses(
        make_spec(limits={"cpu": 2}), slots_total=1
    )
    assert "bytes of memory" in refuses(make_spec(), memory_free_bytes=GIB // 4)
    assert "bytes of disk" in refuses(make_spec(), disk_free_bytes=GIB // 8)


def test_another_system_and_a_missing_label_are_refused() -> None:
    told = "the job needs macos, this machine runs linux"
    assert refuses(make_spec(requires={"os": "macos"})) == told
    labelled = make_spec(requires={"labels": ("ssd", "site:lab"), "prefers": ("fast",)})
    told = "the job needs a machine that is called site:lab"
    assert refuses(labelled, labels=("ssd",)) == told
    allowed = rules(labels=("site:lab", "ssd"))
    assert isinstance(admit(START, make_lease(labelled), class_of(labelled), allowed), Plan)


def test_byte_code_of_another_python_is_refused() -> None:
    spec = make_spec(workload="python", runtime="python", requires={"python": "3.12"})
    machine = Capabilities("x86_64", "linux", frozenset({"python"}), python="3.11")
    told = "the job needs Python 3.12, this machine runs 3.11"
    assert refuses(spec, capabilities=machine) == told


def test_a_crowd_of_processes_is_more_than_an_owner_bears_unless_they_say_so() -> None:
    crowd = {"limits": {"processes": 257}, "argv": ("make",)}
    spec = make_spec(workload="command", runtime="process", program=None, **crowd)
    told = "a task asks for 257 processes, this machine allows 256"
    assert refuses(spec) == told
    allowed = rules(processes_max=257)
    assert isinstance(admit(START, make_lease(spec), class_of(spec), allowed), Plan)
    wasm = make_spec(limits={"processes": 4096})
    assert isinstance(admit(START, make_lease(wasm), class_of(wasm), rules()), Plan)


def test_its_own_architecture_and_gpu_are_fine() -> None:
    spec = make_spec(requires={"arch": "x86_64", "gpu": "nvidia"})
    machine = Capabilities("x86_64", "linux", frozenset({"wasm"}), "nvidia")
    answer = admit(START, make_lease(spec), class_of(spec), rules(capabilities=machine))
    assert isinstance(answer, Plan)


def networked(*reach: str) -> JobSpec:
    return make_spec(
        workload="command", runtime="process", program=None, argv=("x",), requires={"net": reach}
    )


def test_a_network_is_given_where_the_grant_and_the_machine_give_it() -> None:
    spec = networked("a.org", "b.org:22")
    machine = replace(MACHINE, net=frozenset({"process"}))
    web = "at ports 80 and 443"
    told = f"asks for the network (a.org {web}; b.org:22), grant G-5 allows "
    for allowed, answer in (
        ((), f"{told}no network"),
        (("a.org",), f"{told}the network (a.org {web})"),
        (("internet",), f"{told}the network (any public host {web})"),
    ):
        grant = make_grant("G-5", workload="command", net=allowed)
        assert refuses(spec, capabilities=machine, consent=Consent((grant,))) == answer
    grant = make_grant("G-5", workload="command", net=("internet", "*.org:22"))
    with_net: dict[str, Any] = {"consent": Consent((grant,)), "capabilities": machine}
    told = "the job needs a network, this machine gives process sandboxes none"
    assert refuses(spec, **with_net | {"capabilities": MACHINE}) == told
    answer = f"asks for the network (b.org:22), grant G-5 allows the network (a.org {web})"
    narrow = Consent((replace(grant, net=("a.org",)),))
    assert refuses(networked("b.org:22"), **with_net | {"consent": narrow}) == answer
    wide = Consent((replace(grant, net=("internet", "*.b.org:22", "b.org:22")),))
    plan = admit(START, make_lease(spec), class_of(spec), rules(capabilities=machine, consent=wide))
    assert isinstance(plan, Plan)


def test_a_gpu_must_have_the_memory_that_a_task_takes() -> None:
    spec = make_spec(requires={"gpu": "nvidia", "vram_bytes": 2 * GIB})
    machine = Capabilities("x86_64", "linux", frozenset({"wasm"}), "nvidia")
    full = {"capabilities": machine, "vram_free_bytes": GIB}
    answer = admit(START, make_lease(spec), class_of(spec), rules(**full))
    assert isinstance(answer, Refused)
    assert "bytes of GPU memory" in answer.reason


def test_the_catalogue_must_know_workload_runtime_and_program() -> None:
    assert "not in this machine's catalogue" in refuses(make_spec(workload="unheard-of"))
    assert "is run by process, not by wasm" in refuses(make_spec(workload="command"))
    other = {"sha256": "00" * 32, "size_bytes": 1}
    assert "not the one that the catalogue" in refuses(make_spec(workload="pinned", program=other))
    pinned = make_spec(workload="pinned")
    assert pinned.program is not None
    assert pinned.program.sha256 == PROGRAM
    assert isinstance(admit(START, make_lease(pinned), class_of(pinned), rules()), Plan)


def test_a_command_has_no_program() -> None:
    spec = make_spec(workload="command", runtime="process", program=None, argv=("true",))
    assert isinstance(admit(START, make_lease(spec), class_of(spec), rules()), Plan)


def test_what_the_owner_has_not_allowed_is_refused() -> None:
    assert refuses(make_spec(), consent=Consent()) == "no grant names this submitter"
    assert "asks for 3 cores" in refuses(make_spec(limits={"cpu": 3}))


def test_a_job_that_is_sealed_to_others_is_theirs() -> None:
    keys = {ALICE.public_key: "A" * 107, BOB.public_key: "B" * 107}
    spec = make_spec(sealing={"keys": keys})
    assert refuses(spec, lender=LENDER) == "the job is sealed to other machines"
    assert refuses(spec, lender=ALICE.public_key) == "the job is sealed to other machines"
    answer = admit(START, make_lease(spec), class_of(spec), rules(lender=BOB.public_key))
    assert isinstance(answer, Plan)
