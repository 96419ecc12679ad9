"""What a sandbox is given: its plan, with inputs and checkpoints fetched, verified and pinned."""

import asyncio
import logging
from pathlib import Path

from lender.core.effects import OpenSandbox
from lender.daemon.inputs import InputError, LeaseInputs
from lender.protocol.job import BlobRef, Input
from lender.sandbox.plan import Network
from lender.sandbox.port import Limits, PrepareFailedError, SandboxPlan

log = logging.getLogger(__name__)


class Provisions:
    """The provisions of one sandbox. What stands still fetches nothing either."""

    def __init__(self, inputs: LeaseInputs) -> None:
        self._inputs = inputs
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

    def release(self) -> None:
        """Say that nothing reads any of it any more."""
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
        spec, limits, fetch = effect.spec, effect.spec.limits, self._fetch
        program = await fetch("program", spec.program) if spec.program else None
        inputs = {one.name: await fetch(f"inputs {one.name}", one) for one in spec.inputs}
        checkpoints = await self._checkpoints(effect) if spec.checkpoint else {}
        return SandboxPlan(
            lease=effect.lease.lease,
            runtime=spec.runtime,
            job=spec.id,
            task_count=spec.task_end,
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
                prepare_s=limits.prepare_s,
            ),
            scratch=scratch,
            module_cache=modules,
            gpus=effect.gpus,
            checkpoint=spec.checkpoint,
            checkpoints=checkpoints,
            network=Network(spec.requires.net) if spec.requires.net else None,
        )

    async def _checkpoints(self, effect: OpenSandbox) -> dict[int, Path]:
        """Those of the lease's tasks; one that can't be had costs time, not the job."""
        tasks, found = set(effect.lease.tasks()), {}
        for task, blob in effect.lease.checkpoints:
            if task not in tasks:
                continue
            try:
                found[task] = await self._fetch("checkpoints", blob)
            except PrepareFailedError as error:
                log.warning("task %d of %s begins anew: %s", task, effect.spec.id, error)
        return found

    async def _fetch(self, field: str, blob: BlobRef | Input) -> Path:
        while True:
            await self.until_thawed()
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
