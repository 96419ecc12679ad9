"""Handing a job's results over: values to standard output or files, outputs into a folder."""

import base64
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lender.cli.exits import CommandError, Exit
from lender.cli.progress import Progress
from lender.cli.strangers_words import Output
from lender.client import ClientError, Job, TaskRecord, TaskResult, Terminal, error_of
from lender.protocol.strangers_text import visible

_FAILURES_SHOWN_MAX = 5
_WORDS_SHOWN_MAX = 60


async def deliver_task(
    job: Job,
    terminal: Terminal,
    folder: Path,
    *,
    as_json: bool,
    raw: bool,
    with_stderr: bool = True,
) -> int:
    """Hand over the result of a job without array; returns the exit code of its task.

    The value goes to standard output, with `with_stderr` the tail of standard error to standard
    error, the outputs into `folder`. What a terminal gets is escaped unless `raw`. A task that
    failed without an exit code makes it 1.
    """
    result = terminal.result
    value = await job.value(result) if result else b""
    paths = await job.download(result, folder) if result else []
    error = error_of(terminal)
    if as_json:
        fields = _task_fields(result, value) if result else {}
        reason = {"field": terminal.field, "reason": terminal.reason, "lender": terminal.lender}
        _print_json(
            "lender.result/1",
            {"job": job.id, "state": terminal.state, **reason, **fields},
            outputs=[str(path) for path in paths],
        )
    else:
        Output(sys.stdout, raw=raw).write(value)
    if result and with_stderr:
        _write_stderr(result.stderr_tail, raw=raw)
    if error is None:
        return Exit.DONE
    print(visible(f"lender: {error}"), file=sys.stderr)
    code = (result.exit_code if result else None) or Exit.FAILED
    return code if 0 < code < 256 else Exit.FAILED  # of any other the shell sees a part


class ArrayDelivery:
    """Hands over an array's results: into a folder as they come, or to stdout in task order."""

    def __init__(
        self, job: Job, folder: Path | None, progress: Progress, *, as_json: bool, raw: bool
    ) -> None:
        """Prepare; without a folder, values go to standard output and outputs are left alone."""
        self._raw = raw
        self._job = job
        self._folder = folder
        self._progress = progress
        self._as_json = as_json
        self._waiting: dict[int, TaskRecord | bytes] = {}
        """Whose turn has not come; of most the value is all that will be asked for."""
        self._order = (
            task for first, count in job.spec.task_ranges for task in range(first, first + count)
        )
        self._next = next(self._order)
        self._failed = 0

    async def run(self) -> int:
        """Follow the job to its end; returns the exit code.

        Raises:
            ClientError: results can't be fetched.
            CommandError: they can't be written.
        """
        if self._folder is not None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise CommandError(
                    Exit.FAILED, f"can't make {self._folder}: {error.strerror}"
                ) from error
        try:
            async for record in self._job.results():
                await self._take(record)
            for task in sorted(self._waiting):
                await self._print(self._waiting.pop(task))
        finally:
            self._progress.close()
        return self._verdict(error_of(await self._job.ended()))

    async def _take(self, record: TaskRecord) -> None:
        self._progress.count(record)
        if record.result.state == "failed":
            self._note_failure(record)
        if self._folder is not None:
            await self._to_folder(record, self._folder)
        else:
            whole = self._as_json or record.result.value_blob is not None
            self._waiting[record.result.task] = record if whole else record.result.value
            await self._to_stdout()

    def _verdict(self, error: ClientError | None) -> int:
        if error is None:
            return Exit.DONE
        print(visible(f"lender: {error}"), file=sys.stderr)
        return Exit.FAILED

    def _note_failure(self, record: TaskRecord) -> None:
        self._failed += 1
        if self._failed > _FAILURES_SHOWN_MAX:
            return
        result = record.result
        cause = result.error or (
            f"{result.limit} limit" if result.limit else f"exit code {result.exit_code}"
        )
        words = self._words(result.task)
        which = f"{result.task} ({' '.join(words)[:_WORDS_SHOWN_MAX]})" if words else result.task
        how = "was" if result.cancelled else f"failed on {record.lender[:8]}:"
        self._progress.say(visible(f"task {which} {how} {cause}"))
        _write_stderr(result.stderr_tail, raw=self._raw)

    async def _to_folder(self, record: TaskRecord, folder: Path) -> None:
        """Write `TASK` with the value, and outputs into `TASK.out/`; JSON lines beside them."""
        value = await self._job.value(record.result)
        target = folder / str(record.result.task)
        try:
            target.write_bytes(value)
        except OSError as error:
            raise CommandError(Exit.FAILED, f"can't write {target}: {error.strerror}") from error
        if record.result.outputs:
            outputs = folder / f"{record.result.task}.out"
            await self._job.download(record.result, outputs)
        if self._as_json:
            self._print_record(record, value)

    async def _to_stdout(self) -> None:
        while self._next in self._waiting:
            await self._print(self._waiting.pop(self._next))
            self._next = next(self._order, -1)

    async def _print(self, record: TaskRecord | bytes) -> None:
        value = record if isinstance(record, bytes) else await self._job.value(record.result)
        if sys.stdout.isatty():
            self._progress.give_way()
        if self._as_json and not isinstance(record, bytes):
            self._print_record(record, value)
        else:
            Output(sys.stdout, raw=self._raw).write(value)

    def _words(self, task: int) -> Sequence[str]:
        """What is this task's own in its command line."""
        array = self._job.spec.array
        return array.each[task] if array is not None and array.each else ()

    def _print_record(self, record: TaskRecord, value: bytes) -> None:
        _print_json(
            "lender.task/1",
            {
                "job": self._job.id,
                "state": record.result.state,
                "lender": record.lender,
                "attempt": record.attempt,
                **({"each": [*words]} if (words := self._words(record.result.task)) else {}),
                **_task_fields(record.result, value),
            },
        )


def _task_fields(result: TaskResult, value: bytes) -> dict[str, Any]:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = None
    return {
        "task": result.task,
        "exit_code": result.exit_code,
        "value": text,
        "value_base64": base64.b64encode(value).decode(),
        "limit": result.limit,
        "error": result.error,
        "stderr": result.stderr_tail.decode(errors="replace"),
        "cpu_s": result.cpu_s,
        "duration_s": result.duration_s,
    }


def _print_json(schema: str, fields: dict[str, Any], **more: object) -> None:
    print(json.dumps({"schema": schema, **fields, **more}), flush=True)


def _write_stderr(tail: bytes, *, raw: bool) -> None:
    if tail:
        Output(sys.stderr, raw=raw).write(tail if tail.endswith(b"\n") else tail + b"\n")
