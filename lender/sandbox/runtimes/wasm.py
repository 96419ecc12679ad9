"""The wasm runtime: WASI preview 1 in a process of its own, a fresh instance for each task.

The guest sees its scratch folder as /work and as the current folder, its arguments, its
environment, a clock and random numbers; WASI preview 1 gives it no way to name anything else. Who
breaks out of the engine, or takes the compiler over, meets Landlock (`_keep_to`) and a filter of
system calls.
What runs too long, or is asked to end, is ended by the engine's epoch, and where it sleeps inside a
host call, which epochs don't interrupt, by ending this process.
"""

import os
import select
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from lender.sandbox.files import checkpoint, scratch
from lender.sandbox.meters.capture import Capture
from lender.sandbox.meters.disk import DiskWatch
from lender.sandbox.plan import FILE_MARGIN_BYTES, WORK_FOLDER, LimitName, SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes import wasm_tables
from lender.sandbox.runtimes.runner import (
    ASKED_TO_END,
    HELD_BYTES_MAX,
    HELD_MAX,
    HELD_S,
    Ahead,
    Reporter,
    RunsTogether,
)
from lender.sandbox.runtimes.wasm_watch import Run, Watch
from lender.sandbox.walls import confine, landlock, sealed

_ERROR_CHARS_MAX = 500
_LARGE_BYTES = 1 << 20
# What the instances of such a module and their tables take at most is little beside a memory.
_SMALL_BYTES, _SMALL_ELEMENTS = 1 << 18, 4096
# A failed guest whose memory came this close to its limit failed because of it.
_PAGE_BYTES = 1 << 16
_NEAR_LIMIT = 15 / 16
# Shared memories escape the store's limits; the others widen the engine for nothing that we run.
_CPU, _STARTED_AT, _DURATION = map(TaskOutcome._fields.index, ("cpu_s", "started_at", "duration_s"))
_FEATURES_OFF = ("wasm_threads", "shared_memory", "wasm_gc", "wasm_component_model")


def preload() -> None:
    """Import what the forks need, while its files can still be read.

    Raises:
        ImportError: wasmtime is not installed (there is no wheel for 32-bit ARM).
    """
    import wasmtime  # noqa: F401, PLC0415 - 6 MiB that a lender without wasm work never pays

    # They import wasmtime.
    from lender.sandbox.runtimes import module_cache, wasm_binding  # noqa: F401, PLC0415

    landlock.abi()  # the forks know these then
    sealed.program()


def start(plan: SandboxPlan, reporter: Reporter) -> RunsTogether:
    """Be the sandbox of one plan; see `runner.serve`."""
    confine.yield_to_owner()
    return _WasmRunner(plan, reporter)


class _WasmRunner:
    def __init__(self, plan: SandboxPlan, reporter: Reporter) -> None:
        import wasmtime  # noqa: PLC0415 - see preload

        from lender.sandbox.runtimes import wasm_binding  # noqa: PLC0415 - see preload

        if plan.program is None:
            raise PrepareFailedError("a wasm job names its module", invalid=True, field="program")
        self._wasmtime = wasmtime
        self._plan = plan
        self._reporter = reporter
        self._open_fds = os.open(confine.OPEN_FDS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _keep_to(plan, compiles=True)
        try:
            engine, module, shares = _load(plan, pooled=True)
        except PrepareFailedError:
            # What has no room in the pool is judged by its limits, once it runs.
            engine, module, shares = _load(plan, pooled=False)
        _keep_to(plan, compiles=False)
        command = wasm_binding.Command(engine, module)
        self._uses_streams = command.uses_streams
        self._has_folder = command.uses_files or plan.checkpoint or bool(plan.checkpoints)
        # C libraries resolve a relative path against a preopened folder of that name.
        folders = [(str(plan.scratch), one) for one in (WORK_FOLDER, ".") if self._has_folder]
        self._stores = wasm_binding.Stores(engine, command, plan, folders, shares=shares)
        self._inputs = scratch.Inputs(plan.scratch, plan.inputs)
        self._inputs.restore()
        sizes = [path.stat().st_size for path in plan.inputs.values()]
        confine.limit_file_size(max([plan.limits.scratch_bytes + FILE_MARGIN_BYTES, *sizes]))
        self._stdout, self._stderr = _pipe_for(1), _pipe_for(2)
        self._output = select.poll()
        for fd in (self._stdout, self._stderr):
            self._output.register(fd, select.POLLIN)
        self._capture = Capture(plan.limits.output_bytes, reporter.add_log)
        # What has a folder or a log of its own is told by itself.
        is_watched = reporter.watched and self._uses_streams
        self._together_max = 1 if self._has_folder or is_watched else HELD_MAX
        self._ended: list[list[Any]] = []
        self._ended_bytes = 0
        self._due_at = 0.0
        self._metered_s = time.process_time()
        self._watch = Watch(
            plan.limits,
            reporter.soft_stop,
            drain=self._drain_and_tell,
            watch_disk=self._watch_disk,
            interrupt=engine.increment_epoch,
            give_up=self._give_up,
        )
        reporter.when_idle = self._while_idle

    def begin_job(self, job: str, task_count: int, *, separate: bool) -> None:
        """See `RunsTogether`."""
        self._plan = self._plan._replace(job=job, task_count=task_count, separate=separate)
        self._stores.begin_job(self._plan)

    def run_together(self, tasks: Sequence[Ahead]) -> int:
        """See `RunsTogether`."""
        first, soft_stop, ended = tasks[0][0], self._reporter.soft_stop, 0
        self._reporter.task = first
        run = Run(first, self._capture)
        if self._has_folder and (fault := self._place_files(first)) is not None:
            self._end(run, None, None, f"not started: {fault}", 0)
            return self._tell(1, tasks)
        self._watch.begin(run)
        for task, words in islice(tasks, self._together_max):
            run.index = task
            self._run(run, words)
            ended += 1
            if run.over_at_s is not None or soft_stop.asked or run.started_at >= self._due_at:
                break
        self._watch.end()
        if run.over_at_s is not None:
            self._stores.renew()  # what an epoch has ended would end the next one, too
        return self._tell(ended, tasks)

    def _run(self, run: Run, words: Sequence[str]) -> None:
        """Run one task under watch, to its end."""
        wasmtime, stores = self._wasmtime, self._stores
        exit_code: int | None = 0
        error: str | None = None
        try:
            memory_bytes = stores.next(run.index, words)()
        except wasmtime.ExitTrap as trap:
            exit_code, memory_bytes = trap.code, stores.memory_bytes()
        except (wasmtime.WasmtimeError, wasmtime.Trap) as trap:
            exit_code, memory_bytes, error = None, stores.memory_bytes(), str(trap)
        stores.used(memory_bytes)
        with self._watch.lock:
            if self._uses_streams:
                self._drain(run, is_still=True)
            # Mostly there is nothing to judge.
            is_plain = exit_code == 0 and run.limit is None and not run.capture.over
            limit = run.limit
            if not is_plain or self._has_folder:
                limit = limit or self._limit_hit(run, exit_code, error, memory_bytes)
            self._end(run, exit_code, limit, error, memory_bytes)

    def _place_files(self, task: int) -> Exception | None:
        """Have its folder as a task is to find it; why that can't be."""
        try:
            self._inputs.restore()
            checkpoint.place(self._plan, task)
        except (OSError, PrepareFailedError) as fault:
            return fault
        return None

    def _tell(self, ended: int, tasks: Sequence[Ahead]) -> int:
        """Hand over how they ended; what is alone may wait for those behind it."""
        if self._together_max == 1:
            self._reporter.send(self._take_ended()[0], more=len(tasks) > 1)
        else:
            self._hold()
            self._reporter.hand_over()
        return ended

    def _while_idle(self, wanted: Ahead | None) -> None:
        """While the daemon looks at an outcome: nothing of a task stands while none follows."""
        if wanted is None:
            self._stores.renew_if_used()

    def _limit_hit(
        self, run: Run, exit_code: int | None, error: str | None, memory_bytes: int
    ) -> LimitName | None:
        if run.capture.over:
            return "output"
        try:
            if self._has_folder and self._inputs.settle() > self._plan.limits.scratch_bytes:
                return "disk"
        except scratch.TooMuchError:
            return "disk"
        if exit_code == 0:
            return None
        # The engine doesn't say that it refused to grow a memory; the guest just fails then.
        limit_bytes = self._plan.limits.memory_bytes
        near_bytes = min(limit_bytes - _PAGE_BYTES, limit_bytes * _NEAR_LIMIT)
        refused = error is not None and "exceeds memory limits" in error
        return "memory" if refused or memory_bytes > near_bytes else None

    def _drain(self, run: Run, *, is_still: bool = False) -> None:
        # Most write to one of them, or to none: asked for both at once.
        for fd, _event in self._output.poll(0):
            if fd == self._stdout:
                run.capture.take_stdout(fd, is_still=is_still)
            else:
                run.capture.take_stderr(fd, is_still=is_still)

    def _drain_and_tell(self, run: Run) -> None:
        """Of one that runs for some time, and of those before it."""
        self._drain(run)
        if self._together_max > 1:
            self._hold()
        self._reporter.tell()

    def _watch_disk(self) -> DiskWatch:
        return DiskWatch(self._plan.scratch, self._plan.limits.scratch_bytes, self._disk_bytes)

    def _disk_bytes(self) -> int:
        used_bytes = scratch.used_bytes(self._plan.scratch, self._inputs.names)
        return used_bytes + scratch.unnamed_bytes(self._plan.scratch, self._open_fds)

    def _give_up(self, run: Run) -> None:
        """The guest sits in a host call: report for it and end the process under it."""
        self._end(run, None, run.limit, None, 0)
        self._reporter.send(self._take_ended()[0], last=True)
        os._exit(0)

    def _end(
        self,
        run: Run,
        exit_code: int | None,
        limit: LimitName | None,
        error: str | None,
        memory_bytes: int,
    ) -> None:
        """One has ended, and the next may begin: held so that nobody looks at it just now."""
        # One that ended by itself just then was not ended by anybody.
        terminated = run.terminated and exit_code is None and limit is None
        value = stderr_tail = b""
        started_at = run.started_at
        run.started_at = now = time.monotonic()
        if not self._ended:
            self._due_at = now + HELD_S
        if self._uses_streams:
            value, stderr_tail = run.capture.take()
            size_bytes = len(value) + len(stderr_tail)
            if self._ended_bytes + size_bytes > HELD_BYTES_MAX and self._ended_bytes:
                self._hold()
            self._ended_bytes += size_bytes
            if self._ended_bytes > HELD_BYTES_MAX:
                self._due_at = now
        is_success = exit_code == 0 and limit is None
        self._ended.append(
            [
                run.index,
                "succeeded" if is_success else "failed",
                exit_code,
                value,
                stderr_tail,
                limit,
                None if is_success else _words(limit, error, terminated=terminated),
                0.0,  # see _take_ended
                memory_bytes,
                0,  # a guest has no way to try a network
                started_at,
                now - started_at,
                terminated,
            ]
        )

    def _take_ended(self) -> list[TaskOutcome]:
        """How those ended of which nobody was told yet.

        Their processor time is shared out by their duration; what runs now has its share later.
        """
        ended, self._ended, self._ended_bytes = self._ended, [], 0
        # What was done ahead for a task is on its account.
        spent_s = max(0.0, time.process_time() - self._metered_s)
        share = spent_s / (time.monotonic() - ended[0][_STARTED_AT])
        for one in ended:
            one[_CPU] = share * one[_DURATION]
            self._metered_s += one[_CPU]
        return [*map(TaskOutcome._make, ended)]

    def _hold(self) -> None:
        if ended := self._ended:
            first_ended_at = ended[0][_STARTED_AT] + ended[0][_DURATION]
            size_bytes = self._ended_bytes
            self._reporter.hold(self._take_ended(), size_bytes, first_ended_at)


def _keep_to(plan: SandboxPlan, *, compiles: bool) -> None:
    """Give up what else this process could reach, where the kernel has such a wall.

    To be called before the first byte of the module is read, and, once it is compiled, for less:
    who could write to the cache would run in the next sandbox, too. No thread may be there yet.

    Raises:
        PrepareFailedError: there is a wall and it does not hold.
    """
    read, write = [*plan.inputs.values(), *plan.checkpoints.values()], [plan.scratch]
    if compiles:
        from lender.sandbox.runtimes import module_cache  # noqa: PLC0415 - see preload

        assert plan.program is not None
        read += [plan.program, module_cache.CPU]
        if plan.module_cache is not None and module_cache.is_private(plan.module_cache):
            write.append(plan.module_cache)
        if plan.checkpoints:
            checkpoint.preload()
    try:
        landlock.keep_to(read, write)
        if compiles:
            sealed.seal()
    except OSError as error:
        raise PrepareFailedError(f"its process can't be confined: {error}") from error


def _load(plan: SandboxPlan, *, pooled: bool) -> tuple[Any, Any, bool]:
    """An engine, the plan's module compiled for it, and whether instances may share a store.

    Raises:
        PrepareFailedError: the module can't be read, or is none that the engine takes.
    """
    import wasmtime  # noqa: PLC0415 - see preload

    from lender.sandbox.runtimes import module_cache, wasm_binding  # noqa: PLC0415 - see preload

    assert plan.program is not None
    config = wasmtime.Config()
    config.epoch_interruption = True
    # One lease compiles on one core: the others are the owner's.
    config.parallel_compilation = False
    for feature in _FEATURES_OFF:
        if hasattr(wasmtime.Config, feature):
            setattr(config, feature, False)
    # A memory that begins as a mapping of the module faults page by page: good for a large one.
    if hasattr(wasmtime.Config, "memory_init_cow"):
        config.memory_init_cow = _is_large(plan.program)
    is_pooled = pooled and wasm_binding.pool(config, plan.limits.memory_bytes)
    engine = wasmtime.Engine(config)
    module = module_cache.load(engine, plan.program, plan.module_cache)
    return engine, module, is_pooled and _is_small(plan.program)


def _is_small(program: Path) -> bool:
    """Whether an instance takes little beside its memory."""
    is_small = program.stat().st_size <= _SMALL_BYTES
    return is_small and wasm_tables.are_fixed(program.read_bytes(), _SMALL_ELEMENTS)


def _is_large(program: Path) -> bool:
    return program.is_file() and program.stat().st_size > _LARGE_BYTES


def _pipe_for(fd: int) -> int:
    """Have one of our standard streams, which the guest inherits, end in a pipe; its other end.

    A pipe and no file: its size is bounded, and the guest's files have a size limit of their own.
    """
    reader, writer = os.pipe()
    os.dup2(writer, fd)
    os.close(writer)
    os.set_blocking(reader, False)
    return reader


def _words(limit: LimitName | None, error: str | None, *, terminated: bool) -> str | None:
    """Why it failed, for a person; None where its exit code says all."""
    if limit is not None:
        return f"hit its {limit} limit"
    if terminated:
        return ASKED_TO_END
    if error is None:
        return None
    # The line of the engine's report that says why; the backtrace before it says where.
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    causes = [line for line in lines if "wasm trap" in line] or lines
    return causes[0][:_ERROR_CHARS_MAX]
