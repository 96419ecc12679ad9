"""The wasm runtime: WASI preview 1 in a process of its own, a fresh instance for each task.

The guest sees its scratch folder as /work and as the current folder, its arguments, its
environment, a clock and random numbers; WASI preview 1 gives it no way to name anything else. Who
breaks out of the engine, or takes the compiler over, meets Landlock (`_keep_to`) and a filter of
system calls.
What runs too long, or is asked to end, is ended by the engine's epoch, and where it sleeps inside a
host call, which epochs don't interrupt, by ending this process.
"""

import contextlib
import os
import select
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lender.sandbox.files import checkpoint, scratch
from lender.sandbox.meters.capture import Capture
from lender.sandbox.meters.disk import DiskWatch
from lender.sandbox.plan import FILE_MARGIN_BYTES, WORK_FOLDER, LimitName, SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes.runner import ASKED_TO_END, Ahead, Reporter, Runner
from lender.sandbox.runtimes.wasm_watch import Run, Watch
from lender.sandbox.walls import confine, landlock, sealed

_ERROR_CHARS_MAX = 500
_LARGE_BYTES = 1 << 20
# A failed guest whose memory came this close to its limit failed because of it.
_PAGE_BYTES = 1 << 16
_NEAR_LIMIT = 15 / 16
# Shared memories escape the store's limits; the others widen the engine for nothing that we run.
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


def start(plan: SandboxPlan, reporter: Reporter) -> Runner:
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
        self._binding = wasm_binding
        self._open_fds = os.open(confine.OPEN_FDS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _keep_to(plan, compiles=True)
        try:
            self._engine, module = _load(plan, pooled=True)
        except PrepareFailedError:
            # What has no room in the pool is judged by its limits, once it runs.
            self._engine, module = _load(plan, pooled=False)
        _keep_to(plan, compiles=False)
        self._command = wasm_binding.Command(self._engine, module)
        self._limits = plan.limits
        # Nothing was written to it: it is as good as new.
        self._clean: Capture | None = None
        self._guess: Ahead | None = None
        self._next: tuple[Ahead, Any] | None = None
        self._used_store: Any = None
        self._has_folder = self._command.uses_files or plan.checkpoint or bool(plan.checkpoints)
        # C libraries resolve a relative path against a preopened folder of that name.
        folders = [(str(plan.scratch), one) for one in (WORK_FOLDER, ".") if self._has_folder]
        self._stores = wasm_binding.Stores(self._engine, self._command, plan, folders)
        self._inputs = scratch.Inputs(plan.scratch, plan.inputs)
        self._inputs.restore()
        sizes = [path.stat().st_size for path in plan.inputs.values()]
        confine.limit_file_size(max([plan.limits.scratch_bytes + FILE_MARGIN_BYTES, *sizes]))
        self._stdout, self._stderr = _pipe_for(1), _pipe_for(2)
        self._output = select.poll()
        for fd in (self._stdout, self._stderr):
            self._output.register(fd, select.POLLIN)
        self._watch = Watch(
            plan.limits,
            reporter.soft_stop,
            drain=self._drain_and_tell,
            watch_disk=self._watch_disk,
            interrupt=self._engine.increment_epoch,
            give_up=self._give_up,
        )
        self._metered_s = time.process_time()
        reporter.when_idle = self._work_ahead

    def begin_job(self, job: str, task_count: int, *, separate: bool) -> None:
        """See `Runner`; what was made ahead was for a task of the one before."""
        self._plan = self._plan._replace(job=job, task_count=task_count, separate=separate)
        self._stores.begin_job(self._plan)
        made, self._next = self._next, None
        if made is not None:
            made[1].close()

    def run(self, task: int, words: Sequence[str] = ()) -> TaskOutcome:
        run = Run(task, self._clean or Capture(self._limits.output_bytes, self._reporter.add_log))
        self._clean = None
        exit_code, error = None, None
        try:
            if self._has_folder:
                self._inputs.restore()
                checkpoint.place(self._plan, task)
            store = self._take_store((task, words))
        except (OSError, PrepareFailedError, self._wasmtime.WasmtimeError) as fault:
            return self._outcome(run, None, None, f"not started: {fault}", 0)
        instance = 0
        self._watch.begin(run)
        try:
            instance = self._command.instantiate(store)
            self._binding.start(store, instance)
            exit_code = 0
        except self._wasmtime.ExitTrap as trap:
            exit_code = trap.code
        except (self._wasmtime.WasmtimeError, self._wasmtime.Trap) as trap:
            error = str(trap)
        finally:
            self._watch.end()
        memory_bytes = self._binding.memory_bytes(store, instance) if instance else 0
        self._used_store = store
        if self._command.uses_streams:
            self._drain(run)
        limit = run.limit or self._limit_hit(run, exit_code, error, memory_bytes)
        return self._outcome(run, exit_code, limit, error, memory_bytes)

    def _work_ahead(self, wanted: Ahead | None) -> None:
        """While the daemon looks at an outcome: a lease's tasks mostly come one after the other."""
        ahead = wanted or self._guess
        if self._used_store is not None:
            self._used_store.close()
            self._used_store = None
        if self._next is None and ahead is not None:
            # What can't be made now is told to the task that needs it.
            with contextlib.suppress(self._wasmtime.WasmtimeError):
                self._next = (ahead, self._stores.make(*ahead))

    def _take_store(self, wanted: Ahead) -> Any:  # noqa: ANN401 - wasmtime is imported late
        task, words = wanted
        # The words of one that nobody has asked for yet are not known.
        is_known = not words and task + 1 < self._plan.task_count
        self._guess = (task + 1, words) if is_known else None
        made, self._next = self._next, None
        if made is not None and made[0] == wanted:
            return made[1]
        if made is not None:
            made[1].close()
        return self._stores.make(*wanted)

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

    def _drain(self, run: Run) -> None:
        # Most write to one of them, or to none: asked for both at once.
        for fd, _event in self._output.poll(0):
            if fd == self._stdout:
                run.capture.take_stdout(fd)
            else:
                run.capture.take_stderr(fd)

    def _drain_and_tell(self, run: Run) -> None:
        self._drain(run)
        self._reporter.tell()

    def _watch_disk(self) -> DiskWatch:
        return DiskWatch(self._plan.scratch, self._plan.limits.scratch_bytes, self._disk_bytes)

    def _disk_bytes(self) -> int:
        used_bytes = scratch.used_bytes(self._plan.scratch, self._inputs.names)
        return used_bytes + scratch.unnamed_bytes(self._plan.scratch, self._open_fds)

    def _give_up(self, run: Run) -> None:
        """The guest sits in a host call: report for it and end the process under it."""
        self._reporter.send(self._outcome(run, None, run.limit, None, 0), last=True)
        os._exit(0)

    def _outcome(
        self,
        run: Run,
        exit_code: int | None,
        limit: LimitName | None,
        error: str | None,
        memory_bytes: int,
    ) -> TaskOutcome:
        # One that ended by itself just then was not ended by anybody.
        terminated = run.terminated and exit_code is None and limit is None
        # What was done ahead for a task is on its account.
        before_s, self._metered_s = self._metered_s, time.process_time()
        capture = run.capture
        value, stderr_tail = capture.value, capture.stderr_tail
        if not (value or stderr_tail or capture.over):
            self._clean = capture
        return TaskOutcome(
            run.index,
            "succeeded" if exit_code == 0 and limit is None else "failed",
            exit_code,
            value,
            stderr_tail,
            limit,
            _words(limit, error, terminated=terminated),
            self._metered_s - before_s,
            memory_bytes,
            0,  # a guest has no way to try a network
            run.started_at,
            time.monotonic() - run.started_at,
            terminated,
        )


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


def _load(plan: SandboxPlan, *, pooled: bool) -> tuple[Any, Any]:
    """An engine, and the plan's module compiled for it.

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
    if pooled:
        wasm_binding.pool(config, plan.limits.memory_bytes)
    engine = wasmtime.Engine(config)
    return engine, module_cache.load(engine, plan.program, plan.module_cache)


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
