"""A lease from outside becomes a plan, or is refused with a reason: the lender's own check.

The broker has checked the same before. A fault here means that it lies or knows less than we
do, so the answer is a refusal that costs the job nothing, never a verdict on the job.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from lender.core.consent import Ask, Consent, Grant, Refusal
from lender.core.events import Capabilities
from lender.protocol.classes import WorkClass
from lender.protocol.codec import decode
from lender.protocol.devices import devices_of
from lender.protocol.errors import ProtocolError
from lender.protocol.job import DEVICED, JobSpec, Requires, Runtime, TaskRange
from lender.protocol.lease import Lease
from lender.protocol.signature import verify

PROCESSES_MAX: Final = 256
"""Unless the owner says otherwise: hundreds that fork hold up whatever the owner starts next
(docs/decisions/0007-stopping.md)."""


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A workload that this machine knows; `sha256` pins its program, None pins none."""

    runtime: Runtime
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What a lease is held against: the owner's consent and what the machine can do."""

    consent: Consent
    """What is allowed right now."""
    capabilities: Capabilities
    workloads: Mapping[str, CatalogueEntry]
    slots_total: int
    memory_free_bytes: int
    """What could be lent if no lease were held."""
    disk_free_bytes: int | None = None
    """The same for working folders; None: not known."""
    vram_free_bytes: int = 0
    """Of the GPU that has the most."""
    processes_max: int = PROCESSES_MAX
    """Processes and threads that one task may have."""
    labels: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    lender: str = ""
    own_queue: str = ""
    """Brings leases of any class."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The lease may run: this job, under this grant."""

    spec: JobSpec
    grant: Grant


@dataclass(frozen=True, slots=True)
class Refused:
    """The lease may not run here."""

    reason: str


def admit(now: float, lease: Lease, work_class: str, rules: Rules) -> Plan | Refused:
    """Decide on a lease that the queue of `work_class` delivered."""
    try:
        verify(lease.submitter, lease.spec, lease.signature)
        spec = decode(JobSpec, lease.spec, lease.content_type)
    except ProtocolError as error:
        return Refused(f"the specification does not hold: {error}")
    fault = (
        _lease_fault(now, lease, spec)
        or _queue_fault(work_class, spec, rules)
        or _sealing_fault(spec, rules.lender)
        or _machine_fault(spec, rules)
        or _catalogue_fault(spec, rules.workloads)
    )
    if fault is not None:
        return Refused(fault)
    grant = rules.consent.covers(ask_of(spec), now)
    if isinstance(grant, Refusal):
        return Refused(grant.reason)
    return Plan(spec, grant)


def ask_of(spec: JobSpec) -> Ask:
    """Return what a job wants to run, in the terms of a grant."""
    return Ask(
        submitter=spec.submitter,
        workload=spec.workload,
        digest=spec.program.sha256 if spec.program else None,
        cpu=spec.limits.cpu,
        memory_bytes=spec.limits.memory_bytes,
        gpu=spec.requires.gpu != "none",
        vram_bytes=spec.requires.vram_bytes,
        net=spec.requires.net,
        devices=devices_of(spec.requires.labels),
    )


def _lease_fault(now: float, lease: Lease, spec: JobSpec) -> str | None:
    if (spec.id, spec.submitter) != (lease.job, lease.submitter):
        return "the lease names another job or submitter than the signed specification"
    if not _disjoint_within(lease.ranges, spec.task_ranges):
        return f"the lease's tasks are not distinct tasks of an array of {spec.task_count}"
    if now >= spec.not_after:
        return "the job has expired"
    return None


def _queue_fault(queue: str, spec: JobSpec, rules: Rules) -> str | None:
    # What else a class says is asked of the machine and of the consent.
    if queue == rules.own_queue:
        pool = spec.requires.pool
        return None if pool in rules.pools else f"this machine does not serve pool {pool}"
    if WorkClass.of(spec).token != queue:
        return f"the job does not belong in class {queue}"
    return None


def _sealing_fault(spec: JobSpec, lender: str) -> str | None:
    if spec.sealing is not None and lender not in spec.sealed_to:
        return "the job is sealed to other machines"
    return None


def _machine_fault(spec: JobSpec, rules: Rules) -> str | None:
    capabilities = rules.capabilities
    if spec.runtime not in capabilities.runtimes:
        return f"runtime {spec.runtime} does not work on this machine"
    if spec.requires.python not in (None, capabilities.python):
        version = spec.requires.python
        return f"the job needs Python {version}, this machine runs {capabilities.python}"
    if spec.requires.gpu not in ("none", capabilities.gpu):
        return f"the job needs a GPU ({spec.requires.gpu}), this machine lends none"
    if spec.requires.net and spec.runtime not in capabilities.net:
        return f"the job needs a network, this machine gives {spec.runtime} sandboxes none"
    if spec.runtime not in DEVICED and devices_of(spec.requires.labels):
        return f"the job needs a device, and {spec.runtime} sandboxes can't be given one"
    return _kind_fault(spec.requires, rules) or _room_fault(spec, rules)


def _kind_fault(requires: Requires, rules: Rules) -> str | None:
    capabilities = rules.capabilities
    if requires.arch not in ("any", capabilities.arch):
        return f"the job needs {requires.arch}, this machine is {capabilities.arch}"
    if requires.os not in ("any", capabilities.os):
        return f"the job needs {requires.os}, this machine runs {capabilities.os}"
    missing = [label for label in requires.labels if label not in rules.labels]
    if missing:
        return f"the job needs a machine that is called {', '.join(missing)}"
    return None


def _room_fault(spec: JobSpec, rules: Rules) -> str | None:
    limits = spec.limits
    if limits.cpu > rules.slots_total:
        return f"a task asks for {limits.cpu} cores, this machine lends {rules.slots_total}"
    if limits.memory_bytes > rules.memory_free_bytes:
        return (
            f"a task asks for {limits.memory_bytes} bytes of memory, "
            f"{rules.memory_free_bytes} are spare"
        )
    if rules.disk_free_bytes is not None and limits.scratch_bytes > rules.disk_free_bytes:
        return (
            f"a task asks for {limits.scratch_bytes} bytes of disk, "
            f"{rules.disk_free_bytes} are spare"
        )
    if spec.runtime != "wasm" and limits.processes > rules.processes_max:
        return (
            f"a task asks for {limits.processes} processes, "
            f"this machine allows {rules.processes_max}"
        )
    if spec.requires.vram_bytes > rules.vram_free_bytes:
        return (
            f"a task asks for {spec.requires.vram_bytes} bytes of GPU memory, "
            f"{rules.vram_free_bytes} are free"
        )
    return None


def _catalogue_fault(spec: JobSpec, workloads: Mapping[str, CatalogueEntry]) -> str | None:
    entry = workloads.get(spec.workload)
    if entry is None:
        return f"workload {spec.workload} is not in this machine's catalogue"
    if entry.runtime != spec.runtime:
        return f"workload {spec.workload} is run by {entry.runtime}, not by {spec.runtime}"
    digest = ask_of(spec).digest
    if entry.sha256 is not None and entry.sha256 != digest:
        return f"the program is not the one that the catalogue knows as {spec.workload}"
    return None


def _disjoint_within(ranges: Iterable[TaskRange], all_tasks: Sequence[TaskRange]) -> bool:
    """Tell whether ranges have no task in common, and each lies in one of the ascending others."""
    end = 0
    for first, count in sorted(ranges):
        if first < end:
            return False
        end = first + count
        at = bisect_right(all_tasks, (first, inf)) - 1
        if at < 0 or end > sum(all_tasks[at]):
            return False
    return True
