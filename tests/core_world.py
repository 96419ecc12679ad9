"""A lender's core with keys, grants and leases to try it on."""

from collections.abc import Iterable
from typing import Any, TypeVar

from lender.core.admission import CatalogueEntry
from lender.core.config import Config
from lender.core.consent import Consent, Grant, Intent
from lender.core.effects import Effect
from lender.core.events import (
    BrokerConnected,
    Capabilities,
    CapabilitiesFound,
    ClassesOpened,
    ConsentLoaded,
    Event,
    IntentLoaded,
    LeaseDelivered,
    MachineSampled,
    ReportAnswered,
    SandboxPrepared,
    TasksEnded,
    TimeAdvanced,
)
from lender.core.lender import Lender
from lender.core.policy import Limits, Policy, Steps, Threshold
from lender.core.signals import GpuSignal, Signals
from lender.protocol.classes import WorkClass
from lender.protocol.codec import encode
from lender.protocol.job import BlobRef, JobSpec, TaskRange
from lender.protocol.lease import Lease
from lender.protocol.result import TaskResult
from lender.protocol.signature import Signer, seed_from_entropy

MIB = 1 << 20
GIB = 1 << 30
START = 1_000_000.0
DAY_S = 86_400.0

LENDER = Signer(seed_from_entropy(bytes(32))).public_key
ALICE = Signer(seed_from_entropy(bytes([1]) * 32))
BOB = Signer(seed_from_entropy(bytes([2]) * 32))

PROGRAM = "ab" * 32
CATALOGUE = {
    "render": CatalogueEntry("wasm"),
    "pinned": CatalogueEntry("wasm", PROGRAM),
    "command": CatalogueEntry("process"),
}

BLOB = BlobRef(sha256="ef" * 32, size_bytes=700)

LIMITS = Limits(
    memory_kept_bytes=Threshold(GIB, GIB + GIB // 4),
    cpu_others=Steps(frozen=Threshold(2.0, 1.5)),
    stay_s=5.0,
)
"""The same with somebody there and without."""

E = TypeVar("E", bound=Effect)


def make_config(**changes: object) -> Config:
    fields: dict[str, Any] = {
        "lender": LENDER,
        "name": "desk-7",
        "pools": ("default",),
        "workloads": CATALOGUE,
        "cores": 4.0,
        "slots": 4,
        "memory_bytes": 16 * GIB,
        "policy": Policy(in_use=LIMITS, away=LIMITS),
    }
    return Config(**(fields | changes))


def make_grant(id_: str = "G-1", signer: Signer = ALICE, **changes: object) -> Grant:
    fields: dict[str, Any] = {
        "id": id_,
        "submitter": signer.public_key,
        "workload": "render",
        "digest": None,
        "cpu": 4,
        "memory_bytes": 8 * GIB,
        "not_after": START + 30 * DAY_S,
        "granted_at": START - DAY_S,
        "vram_bytes": 8 * GIB,
    }
    return Grant(**(fields | changes))


def make_spec(signer: Signer = ALICE, **changes: object) -> JobSpec:
    fields: dict[str, Any] = {
        "v": 1,
        "id": "job-00001",
        "submitter": signer.public_key,
        "name": "fold-42",
        "workload": "render",
        "runtime": "wasm",
        "program": {"sha256": PROGRAM, "size_bytes": 1000},
        "inputs": ({"name": "scene.bin", "sha256": "cd" * 32, "size_bytes": 500},),
        "created_at": START - 10.0,
        "not_after": START + DAY_S,
    }
    return JobSpec.model_validate(fields | changes)


def array_spec(count: int, **changes: object) -> JobSpec:
    return make_spec(ALICE, array={"count": count}, **changes)


def lease_id(number: int) -> str:
    return f"lease-{number:016d}"


def make_lease(
    spec: JobSpec | None = None,
    number: int = 1,
    ranges: tuple[TaskRange, ...] | None = None,
    signer: Signer = ALICE,
    **changes: object,
) -> Lease:
    spec = spec or make_spec()
    payload = encode(spec)
    fields: dict[str, Any] = {
        "lease": lease_id(number),
        "job": spec.id,
        "submitter": spec.submitter,
        "attempt": 1,
        "ranges": ranges or ((0, spec.task_count),),
        "spec": payload,
        "content_type": "application/msgpack",
        "signature": signer.sign(payload),
    }
    return Lease(**(fields | changes))


def class_of(spec: JobSpec | None = None) -> str:
    return WorkClass.of(spec or make_spec()).token


def results(*tasks: int, **changes: object) -> tuple[TaskResult, ...]:
    fields: dict[str, Any] = {"state": "succeeded", "exit_code": 0, "value": b"v", "cpu_s": 0.5}
    return tuple(TaskResult(task=task, **(fields | changes)) for task in tasks)


def the(kind: type[E], effects: Iterable[Effect]) -> E:
    """The only effect of its kind."""
    (found,) = every(kind, effects)
    return found


def every(kind: type[E], effects: Iterable[Effect]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


CALM = MachineSampled(Signals(0.5, 12 * GIB, gpus=(GpuSignal("GPU-0", 7 * GIB),)))
BUSY = MachineSampled(Signals(3.0, 12 * GIB))
MACHINE = Capabilities("x86_64", "linux", frozenset({"wasm", "process"}))


class Bench:
    """A lender under test and its clock."""

    def __init__(self, **config: object) -> None:
        self.lender = Lender(make_config(**config))
        self.now = START
        self._deliveries = 0

    def tell(self, event: Event, after_s: float = 0.0) -> list[Effect]:
        self.now += after_s
        return self.lender.handle(self.now, event)

    def wait(self, duration_s: float) -> list[Effect]:
        """Let time pass as the shell does: from deadline to deadline."""
        effects: list[Effect] = []
        end = self.now + duration_s
        while (at := self.lender.next_deadline()) is not None and at <= end:
            self.now = at
            effects += self.lender.handle(at, TimeAdvanced())
        self.now = end
        return effects

    def consent(self, *grants: Grant, revoked: Iterable[str] = ()) -> list[Effect]:
        return self.tell(ConsentLoaded(Consent(grants, frozenset(revoked))))

    def pause(self, *, paused: bool = True) -> list[Effect]:
        return self.tell(IntentLoaded(Intent(paused, self.now)))

    def ready(self, *grants: Grant) -> "Bench":
        """Lending, to Alice unless told otherwise."""
        self.consent(*(grants or (make_grant(),)))
        self.pause(paused=False)
        self.tell(CapabilitiesFound(MACHINE))
        self.tell(CALM)
        self.tell(BrokerConnected())
        return self

    def open(self, *classes: str) -> list[Effect]:
        return self.tell(ClassesOpened(classes or (class_of(),)))

    def deliver(self, lease: Lease | None = None, work_class: str | None = None) -> list[Effect]:
        """Deliver a lease; the delivery handles count from 1."""
        self._deliveries += 1
        lease = lease or make_lease()
        return self.tell(LeaseDelivered(work_class or class_of(), self._deliveries, lease))

    def run(self, lease: Lease | None = None) -> list[Effect]:
        """Deliver a lease and prepare its sandbox."""
        lease = lease or make_lease()
        return self.deliver(lease) + self.tell(SandboxPrepared(lease.lease))

    def end(self, *tasks: int, number: int = 1, **changes: object) -> list[Effect]:
        return self.tell(TasksEnded(lease_id(number), results(*tasks, **changes)))

    def answer(self, report: int, *, lease: int = 1, accepted: bool = True) -> list[Effect]:
        reason = "" if accepted else "stale"
        return self.tell(ReportAnswered(lease_id(lease), report, accepted, reason))
