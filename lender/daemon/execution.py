"""A sandbox from its plan to its end, and the leases that it works for: their tasks and results."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from lender.core.effects import OpenSandbox
from lender.core.events import (
    NOT_COUNTED,
    CheckpointSaved,
    Event,
    PreparationFailed,
    SandboxGone,
    SandboxPrepared,
    TasksEnded,
    TaskTerminated,
    UsageMetered,
)
from lender.core.kept_sandboxes import ANEW_FOR_EACH_TASK
from lender.daemon.cpu_counter import CpuCounter, total_s
from lender.daemon.machinery import Machinery
from lender.daemon.network_meter import NetworkMeter
from lender.daemon.provisions import ALONE, Provisions
from lender.daemon.recorder import Recorder, terms_of
from lender.daemon.rest import SOON_S, Rest
from lender.link.errors import LinkError
from lender.protocol.bounds import CHUNK_RESULTS_MAX
from lender.protocol.lease import TaskCheckpoint
from lender.protocol.result import TaskResult
from lender.protocol.result_run import joined
from lender.sandbox.files import scratch
from lender.sandbox.files.checkpoint import CheckpointRefusedError
from lender.sandbox.port import (
    KNOWN_MAX,
    PrepareFailedError,
    RefusedError,
    Sandbox,
    SandboxGoneError,
    TaskOutcome,
)
from lender.sandbox.processes import stopping, tree
from lender.sensors.metering import Metered
from lender.state.moved_bytes import MovedBytes, counters_path

log = logging.getLogger(__name__)

_NOT_PREPARED = (PrepareFailedError, RefusedError, SandboxGoneError, LinkError, OSError)

FLUSH_S = 0.02
"""Results of short tasks are told in batches this far apart: none waits for longer."""


class Execution:
    """One sandbox, and the lease that it works for. `freeze` and `close` are verified.

    Attributes:
        name: of the sandbox, its scratch folder and its cgroup: the first lease that it has.
        idle: it waits for a lease.
    """

    def __init__(self, machinery: Machinery, effect: OpenSandbox) -> None:
        self._machinery = machinery
        self.name = effect.lease.lease
        self._scratch = machinery.state.scratch / self.name
        self._provisions = Provisions(
            machinery.inputs.for_lease(effect.spec.submitter),
            machinery.seals,
            machinery.state.opened(effect.spec.submitter) / self.name,
            machinery.devices,
        )
        self._sandbox: Sandbox | None = None
        self._closed = self._abandoned = False
        self._rest = Rest(self)
        self._recorder = Recorder(machinery.state, machinery.records, machinery.receipts)
        self._ended: list[Sequence[TaskResult]] = []
        self._ended_count = 0
        self._teller: asyncio.TimerHandle | None = None
        self._saving: asyncio.Task[None] | None = None
        self._cpu: CpuCounter | None = None
        moved = counters_path(machinery.state, self.name)
        self._network = NetworkMeter(moved) if effect.spec.requires.net else None
        self._begin(effect)
        self._work = asyncio.create_task(self._prepare())

    @property
    def cgroup(self) -> Path | None:
        """The cgroup that holds them all, where there is one."""
        return self._sandbox.cgroup if self._sandbox else None

    @property
    def roots(self) -> tuple[tree.Root, ...]:
        """The processes to stop, as far as they were started."""
        return self._sandbox.root_pids if self._sandbox else ()

    @property
    def stands(self) -> bool:
        """Whether it could go on: its processes live."""
        return stopping.alive(self)

    def take_over(self, effect: OpenSandbox) -> None:
        """Work for another lease, of the same job or one that asks for the same, as it stands."""
        earlier, spec = self._lease, effect.spec
        is_another = spec.id != self._effect.spec.id
        remembers = spec.runtime not in ANEW_FOR_EACH_TASK
        self._rest.call_off()
        if self._sandbox is not None and is_another and not remembers:
            array = spec.array or ALONE
            self._sandbox.begin_job(
                spec.id, spec.task_end, separate=array.separate, each=array.each
            )
        self._begin(effect)
        self._machinery.logs.close(earlier)
        self._cpu = CpuCounter(self)
        self._work = asyncio.create_task(self._go_on(loads=is_another and remembers))

    def run(self, tasks: tuple[int, ...]) -> None:
        """Run tasks one after another and tell their results."""
        self._work = asyncio.create_task(self._run(tasks))

    def keep(self) -> None:
        """Stand still until `take_over`; the record of the last lease still names the processes.

        What a task left running is paid for by no lease: where it can't, that may wait a moment.
        """
        self.idle = True
        self._rest.begin(SOON_S if self._effect.spec.runtime in ANEW_FOR_EACH_TASK else 0)

    def freeze(self) -> tree.StopReport:
        """Stop every process, and keep what is about to start from starting."""
        self._machinery.logs.halt(self._lease)
        self._provisions.halt()
        return stopping.freeze((self,))

    def thaw(self) -> tree.StopReport:
        """Let it go on."""
        report = stopping.thaw((self,))
        self._provisions.go_on()
        self._machinery.logs.go_on(self._lease)
        return report

    def terminate(self) -> None:
        """Ask the task in work to end by itself, and begin none after it."""
        self._terminating = True
        for root in self.roots:
            if tree.alive(root):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(root.pid, signal.SIGTERM)

    def close(self, *, save: bool = False) -> tuple[tree.StopReport, asyncio.Task[None]]:
        """Kill everything now; the task that is returned wipes the scratch folder.

        With `save` it uploads the checkpoint of the task that was in work before, and tells it.
        """
        self._closed = True
        self._rest.call_off()
        self._machinery.logs.close(self._lease)
        self._provisions.close()
        self._work.cancel()
        report = stopping.kill((self,))
        if save:
            # What may still write there can't be read in one piece.
            self._saving = asyncio.create_task(self._save(self._task if report.verified else None))
        return report, asyncio.create_task(self._clean_up())

    def abandon(self) -> None:
        """Stop saving: nothing more is uploaded, and nothing is told."""
        self._abandoned = True
        if self._saving is not None:
            self._saving.cancel()

    def cpu_s(self) -> float:
        """Return the CPU time of its lease so far."""
        return total_s(self) if self._cpu is None else self._cpu.read(self)

    def allow_network(self, moved_bytes: int | None) -> None:
        """Let its lease move so much over the network in all; None: any amount."""
        if self._network is not None:
            self._network.allow(moved_bytes)

    def last_metered(self) -> UsageMetered | None:
        """Return what can be read in an instant, if anything can."""
        if self.cgroup is None and self._network is None:
            return None
        cpu_s = 0.0 if self.cgroup is None else self.cpu_s()
        return self._with_network(UsageMetered(self._lease, cpu_s, 0))

    def metered(self, used: Metered) -> UsageMetered:
        """Return what a reading of the sandbox, cumulative since it was opened, says of its lease.

        One that took it over counts by itself.
        """
        if self._cpu is not None:
            own = UsageMetered(self._lease, self._cpu.read(self), used.memory_bytes)
        else:
            own = UsageMetered(
                self._lease,
                used.cpu_s,
                used.memory_peak_bytes,
                gpu_s=used.gpu_s,
                vram_peak_bytes=used.vram_peak_bytes,
                gpu_joules=used.gpu_joules,
            )
        return self._with_network(own)

    def _with_network(self, usage: UsageMetered) -> UsageMetered:
        """The same with what its lease moved over the network."""
        if self._network is None:
            return usage
        in_bytes, out_bytes = self._network.read()
        return replace(usage, network_in_bytes=in_bytes, network_out_bytes=out_bytes)

    def _begin(self, effect: OpenSandbox) -> None:
        self._effect = effect
        self._lease = effect.lease.lease
        self._machinery.logs.open(effect.lease)
        self._started_at = time.time()
        self._memory_peak_bytes = 0
        self._network_attempts = 0
        if self._network is not None:
            self._network.begin()
        self._terminating = False
        self._task: int | None = None
        self.idle = False

    async def _prepare(self) -> None:
        machinery = self._machinery
        try:
            tombstone = machinery.state.tombstone(self._effect.grant)
            modules = machinery.state.modules(self._effect.spec.submitter)
            plan = await self._provisions.plan(self._effect, self._scratch, modules)
            if self._network is not None and plan.network is not None:
                plan = plan._replace(network=self._network.of(plan.network))
            self._scratch.mkdir(mode=0o700)
            self._sandbox = machinery.open_sandbox(plan, self._record, tombstone, self._on_log)
            await self._sandbox.prepare()
        except _NOT_PREPARED as error:
            self._not_prepared(error)
        else:
            self._post(SandboxPrepared(self._lease))

    async def _go_on(self, *, loads: bool) -> None:
        spec = self._effect.spec
        try:
            program = await self._provisions.another_program(spec) if loads else None
            await self._record(self.roots)
            self._recorder.forget_earlier()
            self._rest.end()
            if program is not None and self._sandbox is not None:
                await self._sandbox.load(spec.id, spec.task_end, program)
        except _NOT_PREPARED as error:
            self._not_prepared(error)
        else:
            self._post(SandboxPrepared(self._lease))

    async def _record(self, roots: tuple[tree.Root, ...]) -> None:
        cpu_before_s = 0.0 if self._cpu is None else self._cpu.before_s
        moved_before = MovedBytes() if self._network is None else self._network.before
        terms = terms_of(self._effect, self._started_at, cpu_before_s, moved_before)
        standing = stopping.Standing(roots, self.cgroup)
        self._recorder.write(standing, self._effect, self._scratch, terms)
        await self._provisions.until_thawed()

    async def _run(self, tasks: tuple[int, ...]) -> None:
        reason, done = "", 0
        try:
            while done < len(tasks):
                results = await self._run_some(tasks[done : done + 1 + KNOWN_MAX])
                if not results:
                    break
                if self._ended_count + len(results) > CHUNK_RESULTS_MAX:
                    self._tell()
                self._ended.append(results)
                self._ended_count += len(results)
                done += len(results)
                if self._teller is None and done < len(tasks):
                    loop = asyncio.get_running_loop()
                    self._teller = loop.call_later(FLUSH_S, self._tell)
        except ValidationError as error:
            log.warning("lease %s: %s", self._lease, error, extra=self._ids)
            reason = "the sandbox gave an answer that is none"
        except (SandboxGoneError, RefusedError, LinkError, OSError) as error:
            reason = self._told(error)
        self._tell()
        if reason:
            self._machinery.reread_consent()
            self._post(SandboxGone(self._lease, reason))
        elif self._terminating:
            self._post(TaskTerminated(self._lease))

    async def _run_some(self, tasks: tuple[int, ...]) -> Sequence[TaskResult]:
        """Run the first of these, and more of them as they come, to their results.

        Without any it was asked to end, or so were all before it began.
        """
        assert self._sandbox is not None
        await self._provisions.until_thawed()
        if self._terminating:
            return []
        self._task = tasks[0]
        spec = self._effect.spec
        # What is to be taken out of its working folder must still lie there; and what a task sends
        # out is not to be sent once more because another, begun behind it, hit a limit.
        if spec.outputs or spec.checkpoint or spec.requires.net:
            outcomes: Sequence[TaskOutcome] = [await self._sandbox.run(tasks[0])]
        else:
            outcomes = await self._sandbox.run_together(tasks)
        left: int | None = None
        for place, outcome in enumerate(outcomes):
            self._memory_peak_bytes = max(self._memory_peak_bytes, outcome.memory_peak_bytes)
            if outcome.network_attempts_blocked != 0:
                self._count(outcome.network_attempts_blocked)
            if outcome.terminated:
                # One that never began has left nothing: what lies there is another's.
                left = outcome.task if outcome.duration_s > 0 else None
                self._terminating = True
                outcomes = outcomes[:place]
                break
        make = self._machinery.results.make
        results = await make(spec, self._scratch, outcomes, self._provisions.seal)
        self._task = left
        return results

    def _on_log(self, task: int, piece: bytes) -> None:
        # A log is for whoever listens on the way, too: of a sealed job its results tell the end.
        if self._effect.spec.sealing is None:
            self._machinery.logs.write(self._lease, task, piece)

    def _count(self, blocked: int | None) -> None:
        if blocked is None or self._network_attempts < 0:
            self._network_attempts = NOT_COUNTED
        else:
            self._network_attempts += blocked

    def _tell(self) -> None:
        """Tell of what has ended, however long what runs now may take."""
        if self._teller is not None:
            self._teller.cancel()
            self._teller = None
        if self._ended:
            ended, self._ended, self._ended_count = joined(self._ended), [], 0
            used = UsageMetered(self._lease, 0.0, self._memory_peak_bytes, self._network_attempts)
            self._post(TasksEnded(self._lease, ended, self._with_network(used)))

    async def _save(self, task: int | None) -> None:
        """Upload what a task has left, and tell of it; no process of the sandbox is left."""
        await asyncio.gather(self._work, return_exceptions=True)
        self._machinery.reread_consent()
        saved: tuple[TaskCheckpoint, ...] = ()
        try:
            if task is not None and not self._abandoned:
                spec, seal = self._effect.spec, self._provisions.seal
                saved = await self._machinery.results.save(spec, self._scratch, task, seal)
        except (CheckpointRefusedError, LinkError, OSError) as error:
            log.warning("lease %s: its checkpoint is lost: %s", self._lease, error, extra=self._ids)
        finally:
            if not self._abandoned:
                self._machinery.post(CheckpointSaved(self._lease, saved))

    async def _clean_up(self) -> None:
        left = [self._work, self._saving] if self._saving is not None else [self._work]
        await asyncio.gather(*left, return_exceptions=True)
        try:
            if self._sandbox is not None:
                await self._sandbox.close()
        finally:
            await self._provisions.release()
        with contextlib.suppress(FileNotFoundError):  # never made
            await asyncio.to_thread(scratch.remove, self._scratch)
        await self._recorder.forget_all()
        if self._network is not None:
            self._network.close()
        if self._saving is not None and not self._saving.cancelled():
            self._saving.result()  # a fault of ours, which nobody else looks at

    @property
    def _ids(self) -> dict[str, object]:
        """What a line of the log is about."""
        lease = self._effect.lease
        return {"job": lease.job, "attempt": lease.attempt, "lease": lease.lease}

    def _told(self, error: Exception) -> str:
        """What others are told; the names of the owner's files are for the log alone."""
        if not isinstance(error, OSError):
            return str(error)
        log.warning("lease %s: %s", self._lease, error, extra=self._ids)
        return error.strerror or type(error).__name__

    def _not_prepared(self, error: Exception) -> None:
        self._machinery.reread_consent()
        if isinstance(error, PrepareFailedError):
            told = PreparationFailed(self._lease, error.invalid, error.field, error.reason)
        else:
            told = PreparationFailed(self._lease, False, "", self._told(error))
        self._post(told)

    def _post(self, event: Event) -> None:
        if not self._closed:
            self._machinery.post(event)
