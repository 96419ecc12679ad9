"""Turns a task's outcome into the result that travels: large values and outputs become blobs."""

import asyncio
import os
import tarfile  # noqa: F401 - packs checkpoints; as root it can be read, afterwards perhaps not
from contextlib import ExitStack
from pathlib import Path

from lender.daemon.seals import Seal
from lender.daemon.uploads import Store
from lender.link.blobs import BucketFullError
from lender.protocol.bounds import CHECKPOINT_BYTES_MAX, INLINE_VALUE_BYTES_MAX
from lender.protocol.job import JobSpec
from lender.protocol.lease import TaskCheckpoint
from lender.protocol.result import Output, TaskResult, ValueBlob
from lender.protocol.sealing import purpose, sealed_size
from lender.sandbox.files import checkpoint
from lender.sandbox.files.outputs import OutputRefusedError, collect
from lender.sandbox.plan import TaskOutcome

_SEALED_CHECKPOINT_BYTES_MAX = 2 * CHECKPOINT_BYTES_MAX - sealed_size(CHECKPOINT_BYTES_MAX)


class ResultMaker:
    """Uploads what is too large to travel inline, and what a task left for its next attempt.

    All of it goes into the bucket of the submitter who has signed the job.
    """

    def __init__(self, blobs: Store) -> None:
        self._blobs = blobs

    async def make(
        self, spec: JobSpec, scratch: Path, outcome: TaskOutcome, seal: Seal | None
    ) -> TaskResult:
        """Return the result of one task; its outputs still lie in `scratch`.

        Args:
            spec: of its job.
            scratch: the working folder.
            outcome: how it ended.
            seal: of a sealed job; None where nothing of it is sealed.

        Raises:
            LinkError: the blob store can't be reached, also not after a while.
            OSError: there is no room to seal its outputs in.
        """
        if seal is not None and len(outcome.value) <= INLINE_VALUE_BYTES_MAX:
            outcome = seal.outcome(outcome)
        elif seal is not None:
            outcome = await asyncio.to_thread(seal.outcome, outcome)
        is_inline = len(outcome.value) <= INLINE_VALUE_BYTES_MAX
        result = TaskResult(
            task=outcome.task,
            state=outcome.state,
            exit_code=outcome.exit_code,
            value=outcome.value if is_inline else b"",
            stderr_tail=outcome.stderr_tail,
            limit=outcome.limit,
            error=outcome.error,
            cpu_s=outcome.cpu_s,
            duration_s=outcome.duration_s,
        )
        if is_inline and not spec.outputs:
            return result
        changes: dict[str, object] = {}
        try:
            if not is_inline:
                stored = await self._blobs.put_bytes(spec.submitter, outcome.value)
                changes["value_blob"] = ValueBlob(**stored.model_dump())
            if spec.outputs and outcome.state == "succeeded":
                changes["outputs"] = await self._upload(spec, scratch, outcome.task, seal)
        except (OutputRefusedError, BucketFullError) as error:
            # No other machine would find more room, either.
            changes |= {"state": "failed", "error": str(error)}
        return result.model_copy(update=changes)

    async def save(
        self, spec: JobSpec, scratch: Path, task: int, seal: Seal | None
    ) -> tuple[TaskCheckpoint, ...]:
        """Upload the checkpoint that a task has left in `scratch`, if it left one.

        Raises:
            CheckpointRefusedError: it is not what may leave the sandbox.
            LinkError: the blob store can't be reached, also not after a while.
        """
        most_bytes = CHECKPOINT_BYTES_MAX if seal is None else _SEALED_CHECKPOINT_BYTES_MAX
        archive = await asyncio.to_thread(checkpoint.pack, scratch, most_bytes)
        if archive is None:
            return ()
        if seal is not None:
            archive = await asyncio.to_thread(seal.content, purpose("checkpoint", task), archive)
        return ((task, await self._blobs.put_bytes(spec.submitter, archive)),)

    async def _upload(
        self, spec: JobSpec, scratch: Path, task: int, seal: Seal | None
    ) -> tuple[Output, ...]:
        collected = collect(scratch, spec.outputs, spec.limits.scratch_bytes)
        uploaded = []
        with ExitStack() as open_files:
            files = [
                (one.name, open_files.enter_context(os.fdopen(one.fd, "rb"))) for one in collected
            ]
            for name, file in files:
                if seal is None:
                    stored = await self._blobs.put_stream(spec.submitter, file)
                else:
                    bound_to = purpose("output", task, name)
                    with await asyncio.to_thread(seal.file, bound_to, file) as sealed:
                        stored = await self._blobs.put_stream(spec.submitter, sealed)
                uploaded.append(Output(name=name, **stored.model_dump()))
        return tuple(uploaded)
