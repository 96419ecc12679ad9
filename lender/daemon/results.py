"""Turns a task's outcome into the result that travels: large values and outputs become blobs."""

import asyncio
import os
import tarfile  # noqa: F401 - packs checkpoints; as root it can be read, afterwards perhaps not
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from pydantic import TypeAdapter

from lender.daemon.seals import Seal
from lender.daemon.uploads import Store
from lender.link.blobs import BucketFullError
from lender.protocol.bounds import (
    CHECKPOINT_BYTES_MAX,
    INLINE_VALUE_BYTES_MAX,
    MEASURED_S_MAX,
)
from lender.protocol.job import JobSpec
from lender.protocol.lease import TaskCheckpoint
from lender.protocol.result import Output, TaskResult, ValueBlob
from lender.protocol.result_run import VALUE_BYTES_MAX, ResultRun, run_of
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
        self, spec: JobSpec, scratch: Path, outcomes: Sequence[TaskOutcome], seal: Seal | None
    ) -> Sequence[TaskResult]:
        """Return the results of tasks, in their order.

        Args:
            spec: of their job.
            scratch: the working folder; where the job has outputs, those of the one task.
            outcomes: how they ended.
            seal: of a sealed job; None where nothing of it is sealed.

        Raises:
            LinkError: the blob store can't be reached, also not after a while.
            OSError: there is no room to seal its outputs in.
            ValidationError: an outcome is none that a sandbox of ours gives.
        """
        if seal is not None:
            outcomes = [await self._sealed(one, seal) for one in outcomes]
        if not spec.outputs and (run := _run_of(outcomes)) is not None:
            return run
        results = _RESULTS.validate_python([_fields(one) for one in outcomes])
        for place, outcome in enumerate(outcomes):
            if spec.outputs or len(outcome.value) > INLINE_VALUE_BYTES_MAX:
                told = await self._told_by_blobs(spec, scratch, outcome, seal)
                results[place] = results[place].model_copy(update=told)
        return results

    async def _sealed(self, outcome: TaskOutcome, seal: Seal) -> TaskOutcome:
        if len(outcome.value) <= INLINE_VALUE_BYTES_MAX:
            return seal.outcome(outcome)
        return await asyncio.to_thread(seal.outcome, outcome)

    async def _told_by_blobs(
        self, spec: JobSpec, scratch: Path, outcome: TaskOutcome, seal: Seal | None
    ) -> dict[str, object]:
        """What of a result is in blobs, once they are stored."""
        changes: dict[str, object] = {}
        try:
            if len(outcome.value) > INLINE_VALUE_BYTES_MAX:
                stored = await self._blobs.put_bytes(spec.submitter, outcome.value)
                changes["value_blob"] = ValueBlob(**stored.model_dump())
            if spec.outputs and outcome.state == "succeeded":
                changes["outputs"] = await self._upload(spec, scratch, outcome.task, seal)
        except (OutputRefusedError, BucketFullError) as error:
            # No other machine would find more room, either.
            changes |= {"state": "failed", "error": str(error)}
        return changes

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


_RESULTS = TypeAdapter(list[TaskResult])
"""All of a batch are made in one call: it costs a third less."""


def _run_of(outcomes: Sequence[TaskOutcome]) -> ResultRun | None:
    """The results of consecutive tasks as columns, where they are alike: nothing is made of each.

    What a sandbox said is checked by then, but for the model's own bounds.
    """
    if not outcomes:
        return None
    tasks, *said, cpu_s, _, _, _, durations_s, _ = zip(*outcomes, strict=True)
    states, exit_codes, values, tails, limits, errors = said
    is_run = (
        set(zip(states, exit_codes, tails, limits, errors, strict=True)) == _ALIKE
        and tasks == tuple(range(tasks[0], tasks[0] + len(tasks)))
        and max(map(len, values)) <= VALUE_BYTES_MAX
        and max(*cpu_s, *durations_s) <= MEASURED_S_MAX
    )
    if not is_run:
        return None
    return run_of(tasks[0], values, list(map(float, cpu_s)), list(map(float, durations_s)))


_ALIKE = {("succeeded", 0, b"", None, None)}


def _fields(outcome: TaskOutcome) -> dict[str, object]:
    """What its result says, but for what is in blobs, and for what nearly all leave empty."""
    fields: dict[str, object] = {
        "task": outcome.task,
        "state": outcome.state,
        "exit_code": outcome.exit_code,
        "cpu_s": outcome.cpu_s,
        "duration_s": outcome.duration_s,
    }
    if 0 < len(outcome.value) <= INLINE_VALUE_BYTES_MAX:
        fields["value"] = outcome.value
    if outcome.stderr_tail:
        fields["stderr_tail"] = outcome.stderr_tail
    if outcome.limit is not None:
        fields["limit"] = outcome.limit
    if outcome.error is not None:
        fields["error"] = outcome.error
    return fields
