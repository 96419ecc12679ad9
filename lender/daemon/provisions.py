"""What a sandbox is given: its plan, with inputs and checkpoints fetched, verified and pinned."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from lender.core.effects import OpenSandbox
from lender.daemon.inputs import InputError, LeaseInputs
from lender.daemon.seals import Seal, Seals
from lender.protocol.job import Array, BlobRef, Input, JobSpec
from lender.protocol.sealing import SealBrokenError, purpose
from lender.protocol.trace import TRACEPARENT_VARIABLE
from lender.sandbox.files.scratch import remove
from lender.sandbox.plan import DeviceView, Network
from lender.sandbox.port import Limits, PrepareFailedError, SandboxPlan

log = logging.getLogger(__name__)

ALONE = Array(count=1)
"""What a job without an array is to its sandbox."""

Views = Callable[[Iterable[str]], tuple[DeviceView, ...]]
"""What a sandbox sees of the devices of these labels."""


def no_devices(labels: Iterable[str]) -> tuple[DeviceView, ...]:
    """Be the `Views` of a machine without any.

    Raises:
        PrepareFailedError: one is asked for.
    """
    if wanted := ", ".join(labels):
        raise PrepareFailedError(f"there is no {wanted} here")
    return ()


class Provisions:
    """The provisions of one sandbox. What stands still fetches nothing either.

    Attributes:
        seal: of a sealed job, from `plan` on.
    """

    def __init__(
        self, inputs: LeaseInputs, seals: Seals, opened: Path, devices: Views = no_devices
    ) -> None:
        """Prepare.

        Args:
            inputs: fetches the lease's blobs.
            seals: opens what is sealed.
            opened: folder for what was opened; made where it is needed, and taken away.
            devices: knows what was found.
        """
        self._devices = devices
        self._inputs = inputs
        self._seals = seals
        self._opened = opened
        self.seal: Seal | None = None
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._closed = False
        self._fetching: asyncio.Task[Path] | None = None

    def halt(self) -> None:
        """Break off a transfer, and begin none until `go_on`."""
        self._thawed.clear()
        if self._fetching is not None:
            self._fetching.cancel()

    def go_on(self) -> None:
        """Fetch what is still missing; what was broken off begins anew."""
        self._thawed.set()

    def close(self) -> None:
        """Begin nothing again. What is pinned stays so until `release`."""
        self._closed = True

    async def release(self) -> None:
        """Say that nothing reads any of it any more."""
        with contextlib.suppress(FileNotFoundError):  # nothing was sealed
            await asyncio.to_thread(remove, self._opened)
        self._inputs.release()

    async def until_thawed(self) -> None:
        """Wait while it stands still."""
        while not self._thawed.is_set():  # it may be halted again before we hear of it
            await self._thawed.wait()

    async def plan(self, effect: OpenSandbox, scratch: Path, modules: Path) -> SandboxPlan:
        """Fetch all that a lease needs; returns what its sandbox is asked to do.

        Args:
            effect: names the lease.
            scratch: its working folder.
            modules: folder of the submitter's compiled modules.

        Raises:
            PrepareFailedError: an input can't be had.
            LinkError: the store can't be reached now.
            OSError: something can't be kept.
        """
        spec, limits, array = effect.spec, effect.spec.limits, effect.spec.array or ALONE
        seal = self.seal = self._seal(spec)
        program = None
        if spec.program is not None:
            # Of code alone the owner's pins and receipts name what runs: it is not sealed.
            of_program = seal if spec.runtime == "python" else None
            program = await self._plain("program", spec.program, of_program, purpose("program"))
        inputs = {
            one.name: await self._plain(f"inputs {one.name}", one, seal, purpose("input", one.name))
            for one in spec.inputs
        }
        checkpoints = await self._checkpoints(effect, seal) if spec.checkpoint else {}
        return SandboxPlan(
            lease=effect.lease.lease,
            runtime=spec.runtime,
            job=spec.id,
            task_count=spec.task_end,
            program=program,
            argv=spec.argv,
            env=_environment(spec),
            inputs=inputs,
            outputs=spec.outputs,
            limits=Limits(
                cpu=limits.cpu,
                memory_bytes=limits.memory_bytes,
                time_s=limits.time_s,
                output_bytes=limits.output_bytes,
                scratch_bytes=limits.scratch_bytes,
                processes=limits.processes,
                prepare_s=limits.prepare_s,
            ),
            scratch=scratch,
            module_cache=modules,
            gpus=effect.gpus,
            devices=self._devices(effect.devices),
            checkpoint=spec.checkpoint,
            checkpoints=checkpoints,
            network=Network(spec.requires.net) if spec.requires.net else None,
            separate=array.separate,
            each=array.each,
        )

    async def another_program(self, spec: JobSpec) -> Path:
        """Fetch the program of a job that asks for the same but for it; let go of the one before.

        Nothing of such jobs is sealed. Raises as `plan`.
        """
        assert spec.program is not None, "a job of the runtime python names one"
        program = await self._fetch("program", spec.program)
        self._inputs.release_all_but({spec.program.sha256, *(one.sha256 for one in spec.inputs)})
        return program

    def _seal(self, spec: JobSpec) -> Seal | None:
        try:
            return self._seals.of(spec)
        except SealBrokenError as error:
            raise PrepareFailedError(str(error), invalid=True, field="sealing.keys") from error

    async def _plain(
        self, field: str, blob: BlobRef | Input, seal: Seal | None, bound_to: bytes
    ) -> Path:
        """Fetch a blob and return a file of its plain text."""
        path = await self._fetch(field, blob)
        if seal is None:
            return path
        for folder in (self._opened.parent, self._opened):
            folder.mkdir(mode=0o700, exist_ok=True)
        plain = self._opened / sha256(bound_to).hexdigest()
        try:
            await self._inputs.make_room(f"{self._opened.name} {plain.name}", blob.size_bytes)
            await seal.open_file(path, bound_to, plain, self.until_thawed)
        except InputError as error:
            raise PrepareFailedError(error.reason, invalid=False, field=field) from error
        except SealBrokenError as error:
            raise PrepareFailedError(str(error), invalid=True, field=field) from error
        return plain

    async def _checkpoints(self, effect: OpenSandbox, seal: Seal | None) -> dict[int, Path]:
        """Those of the lease's tasks; one that can't be had costs time, not the job."""
        tasks, found = set(effect.lease.tasks()), {}
        for task, blob in effect.lease.checkpoints:
            if task not in tasks:
                continue
            try:
                bound_to = purpose("checkpoint", task)
                found[task] = await self._plain("checkpoints", blob, seal, bound_to)
            except PrepareFailedError as error:
                lease = effect.lease
                ids = {"job": lease.job, "attempt": lease.attempt, "lease": lease.lease}
                about = {**ids, "task": task}
                log.warning("task %d of %s begins anew: %s", task, lease.job, error, extra=about)
        return found

    async def _fetch(self, field: str, blob: BlobRef | Input) -> Path:
        while True:
            await self.until_thawed()
            fetch = self._inputs.fetch(blob)
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


def _environment(spec: JobSpec) -> Mapping[str, str]:
    """Return what the job says of its tasks' environment; its own word on the trace goes first."""
    if spec.traceparent is None:
        return spec.env
    return {TRACEPARENT_VARIABLE: spec.traceparent, **spec.env}
