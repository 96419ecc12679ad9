"""One lease's sandbox, from its inputs to its results: carries out OpenSandbox and RunTasks."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from lender.core.effects import OpenSandbox
from lender.core.events import (
    NOT_COUNTED,
    Event,
    PreparationFailed,
    SandboxGone,
    SandboxPrepared,
    TasksEnded,
    UsageMetered,
)
from lender.daemon.inputs import InputCache, InputError
from lender.daemon.receipt_writer import ReceiptWriter
from lender.daemon.results import ResultMaker
from lender.link.errors import LinkError
from lender.protocol.job import BlobRef, Input
from lender.protocol.result import TaskResult
from lender.sandbox.files import scratch
from lender.sandbox.port import (
    Limits,
    PrepareFailedError,
    RecordRoots,
    RefusedError,
    Sandbox,
    SandboxGoneError,
    SandboxPlan,
    TaskOutcome,
)
from lender.sandbox.processes import stopping, tree
from lender.state.attempt_records import AttemptRecord, AttemptRecords, AttemptTerms
from lender.state.consent_files import read_consent, read_intent
from lender.state.folder import StateFolder

log = logging.getLogger(__name__)

FLUSH_S = 0.02
"""Results of short tasks are told in batches about this far apart."""

OpenPort = Callable[[SandboxPlan, RecordRoots, Path], Sandbox]
"""A plan, what writes down its processes, and what keeps them from starting if it exists."""


@dataclass(frozen=True, slots=True)
class Machinery:
    """What every execution works with.

    `post` takes the daemon's events. `reread_consent` has the core hear what the owner's files
    say now: a sandbox that is gone may have been killed by `lender revoke`, which tells the
    daemon last.
    """

    open_sandbox: OpenPort
    state: StateFolder
    records: AttemptRecords
    inputs: InputCache
    results: ResultMaker
    receipts: ReceiptWriter
    post: Callable[[Event], None]
    reread_consent: Callable[[], None]


class Execution:
    """The sandbox of one lease. `freeze` and `close` are verified before they return."""

    def __init__(self, machinery: Machinery, effect: OpenSandbox) -> None:
        self._machinery = machinery
        self._effect = effect
        self._lease = effect.lease.lease
        self._scratch = machinery.state.scratch / self._lease
        self._started_at = time.time()
        self._inputs = machinery.inputs.for_lease(effect.spec.submitter)
        self._sandbox: Sandbox | None = None
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._closed = False
        self._fetching: asyncio.Task[Path] | None = None
        self._memory_peak_bytes = 0
        self._network_attempts = 0
        self._work = asyncio.create_task(self._prepare())

    @property
    def cgroup(self) -> Path | None:
        """The cgroup that holds them all, where there is one."""
        return self._sandbox.cgroup if self._sandbox else None

    @property
    def roots(self) -> tuple[tree.Root, ...]:
        """The processes to stop, as far as they were started."""
        return self._sandbox.root_pids if self._sandbox else ()

    def run(self, tasks: tuple[int, ...]) -> None:
        """Run tasks one after another and tell their results."""
        self._work = asyncio.create_task(self._run(tasks))

    def freeze(self) -> tree.StopReport:
        """Stop every process, and keep what is about to start from starting."""
        self._thawed.clear()
        if self._fetching is not None:
            self._fetching.cancel()
        return stopping.freeze((self,))

    def thaw(self) -> tree.StopReport:
        """Let it go on."""
        report = stopping.thaw((self,))
        self._thawed.set()
        return report

    def close(self) -> tuple[tree.StopReport, asyncio.Task[None]]:
        """Kill everything now; the task that is returned wipes the scratch folder."""
        self._closed = True
        self._work.cancel()
        report = stopping.kill((self,))
        return report, asyncio.create_task(self._clean_up())

    async def _prepare(self) -> None:
        try:
            tombstone = self._machinery.state.tombstone(self._effect.grant)
            plan = await self._plan()
            self._sandbox = self._machinery.open_sandbox(plan, self._record, tombstone)
            await self._sandbox.prepare()
        except PrepareFailedError as error:
            self._failed(error.reason, invalid=error.invalid, field=error.field)
        except (RefusedError, SandboxGoneError, LinkError, OSError) as error:
            self._failed(self._told(error), invalid=False, field="")
        else:
            self._post(SandboxPrepared(self._lease))

    async def _plan(self) -> SandboxPlan:
        spec, limits, fetch = self._effect.spec, self._effect.spec.limits, self._fetch
        program = await fetch("program", spec.program) if spec.program else None
        inputs = {one.name: await fetch(f"inputs {one.name}", one) for one in spec.inputs}
        self._scratch.mkdir(mode=0o700)
        return SandboxPlan(
            lease=self._lease,
            runtime=spec.runtime,
            job=spec.id,
            task_count=spec.task_count,
            program=program,
            argv=spec.argv,
            env=spec.env,
            inputs=inputs,
            outputs=spec.outputs,
            limits=Limits(
                cpu=limits.cpu,
                memory_bytes=limits.memory_bytes,
                time_s=limits.time_s,
                output_bytes=limits.output_bytes,
                scratch_bytes=limits.scratch_bytes,
                processes=limits.processes,
            ),
            scratch=self._scratch,
            module_cache=self._machinery.state.modules(spec.submitter),
        )

    async def _fetch(self, field: str, blob: BlobRef | Input) -> Path:
        """What stands still fetches nothing either: a transfer begins anew after it."""
        while True:
            await self._thawed.wait()
            fetch = self._inputs.fetch(blob.sha256, blob.size_bytes)
            self._fetching = asyncio.create_task(fetch)
            try:
                return await self._fetching
            except InputError as error:
                raise PrepareFailedError(
                    error.reason, invalid=error.invalid, field=field
                ) from error
            except asyncio.CancelledError:
                if self._closed:
                    raise
            finally:
                self._fetching = None

    def _terms(self) -> AttemptTerms:
        """What a receipt can say of an attempt whose lenderd died."""
        spec = self._effect.spec
        program_bytes = spec.program.size_bytes if spec.program else 0
        return AttemptTerms(
            started_at=self._started_at,
            cpu=spec.limits.cpu,
            bytes_in=program_bytes + sum(one.size_bytes for one in spec.inputs),
            program_sha256=spec.program.sha256 if spec.program else None,
            inputs=tuple((one.name, one.sha256) for one in spec.inputs),
        )

    async def _record(self, roots: tuple[tree.Root, ...]) -> None:
        """Write down what is about to run, then make sure that it still may.

        `lender revoke` writes its tombstone before it reads the records: either it finds this
        record, or we find its tombstone.
        """
        spec = self._effect.spec
        record = AttemptRecord(
            lease=self._lease,
            job=spec.id,
            submitter=spec.submitter,
            workload=spec.workload,
            grant=self._effect.grant,
            roots=roots,
            scratch=self._scratch,
            cgroup=self.cgroup,
            terms=self._terms(),
        )
        self._machinery.records.write(record)
        if self._effect.grant in read_consent(self._machinery.state).revoked:
            raise SandboxGoneError(f"grant {self._effect.grant} was revoked")
        if read_intent(self._machinery.state).stops(time.time()):
            raise SandboxGoneError("the owner paused lending")
        await self._thawed.wait()

    async def _run(self, tasks: tuple[int, ...]) -> None:
        assert self._sandbox is not None
        make = self._machinery.results.make
        clock = asyncio.get_running_loop().time
        ended: list[TaskResult] = []
        flushed_at = clock()
        try:
            for task in tasks:
                await self._thawed.wait()
                outcome = await self._sandbox.run(task)
                self._meter(outcome)
                ended.append(await make(self._effect.spec, self._scratch, outcome))
                if clock() - flushed_at >= FLUSH_S:
                    self._tell(ended)
                    ended, flushed_at = [], clock()
        except ValidationError as error:
            log.warning("lease %s: %s", self._lease, error)
            reason = "the sandbox gave an answer that is none"
        except (SandboxGoneError, RefusedError, LinkError, OSError) as error:
            reason = self._told(error)
        else:
            reason = ""
        if ended:
            self._tell(ended)
        if reason:
            self._machinery.reread_consent()
            self._post(SandboxGone(self._lease, reason))

    def _meter(self, outcome: TaskOutcome) -> None:
        self._memory_peak_bytes = max(self._memory_peak_bytes, outcome.memory_peak_bytes)
        blocked = outcome.network_attempts_blocked
        if blocked is None or self._network_attempts < 0:
            self._network_attempts = NOT_COUNTED
        else:
            self._network_attempts += blocked

    def _tell(self, ended: list[TaskResult]) -> None:
        used = UsageMetered(self._lease, 0.0, self._memory_peak_bytes, self._network_attempts)
        self._post(used)
        self._post(TasksEnded(self._lease, tuple(ended)))

    async def _clean_up(self) -> None:
        await asyncio.gather(self._work, return_exceptions=True)
        try:
            if self._sandbox is not None:
                await self._sandbox.close()
        finally:
            self._inputs.release()
        with contextlib.suppress(FileNotFoundError):  # never made
            await asyncio.to_thread(scratch.remove, self._scratch)
        # Until its receipt is on disk the record is what tells that this ran.
        if await self._machinery.receipts.durable(self._lease):
            self._machinery.records.remove(self._lease)

    def _told(self, error: Exception) -> str:
        """What others are told; the names of the owner's files are for the log alone."""
        if not isinstance(error, OSError):
            return str(error)
        log.warning("lease %s: %s", self._lease, error)
        return error.strerror or type(error).__name__

    def _failed(self, reason: str, *, invalid: bool, field: str) -> None:
        self._machinery.reread_consent()
        self._post(PreparationFailed(self._lease, invalid, field, reason))

    def _post(self, event: Event) -> None:
        if not self._closed:
            self._machinery.post(event)
