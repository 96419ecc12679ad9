"""What wasmtime's C API can do and its Python binding leaves out, or does slowly.

Measured on a task that writes five bytes: the binding looks up every export with its type again for
each instance, and without a pool each instance's memory is mapped and unmapped; together that is
half of the task's time. This goes by the lower layer of the binding, whose names and signatures are
those of the C API (wasmtime/instance.h, func.h, memory.h, config.h). Runs in the sandbox process
only: it imports wasmtime.
"""

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any

import wasmtime
from wasmtime import _ffi as capi

from lender.sandbox.plan import JOB_NAME, TASK_NAME, TASK_WORD, SandboxPlan
from lender.sandbox.port import PrepareFailedError

TABLES_MAX = 16
_ELEMENTS_MAX, _ELEMENT_BYTES = 1_000_000, 8
_START, _MEMORY = b"_start", b"memory"
# What asks for nothing but arguments, time, chance and the standard streams: no other descriptor is
# of use to it (WASI preview 1, witx).
_WITHOUT_FILES = frozenset(
    {
        *("args_get", "args_sizes_get", "environ_get", "environ_sizes_get"),
        *("clock_res_get", "clock_time_get", "poll_oneoff", "random_get", "sched_yield"),
        *("fd_close", "fd_fdstat_get", "fd_read", "fd_seek", "fd_tell", "fd_write", "proc_exit"),
    }
)
_WORDS = frozenset({"args_get", "args_sizes_get", "environ_get", "environ_sizes_get"})
# By none of these are the standard streams to be reached.
_WITHOUT_STREAMS = _WORDS | {
    *("clock_res_get", "clock_time_get", "random_get", "sched_yield", "proc_exit"),
}
# The guest that runs, and the one before, whose store is closed once its outcome is told.
_SLOTS = 2
_KEPT_RESIDENT_BYTES = 1 << 20
# What the engine itself keeps of an instance: some bytes for each function.
_INSTANCE_BYTES_MAX = 64 << 20


# Keeps the interpreter's lock: for what is done before another thread could have had it.
_at_once = ctypes.PyDLL(str(capi.filename))


def _function(
    name: str,
    *takes: Any,  # noqa: ANN401 - ctypes names no type for its types
    gives: Any = ctypes.c_void_p,  # noqa: ANN401
    of: ctypes.CDLL = _at_once,
) -> Any:  # noqa: ANN401
    """A function of the C API that takes addresses as numbers.

    The binding's own checks each pointer's type, and makes an object of each that it returns.
    """
    found = of[name]
    found.argtypes, found.restype = takes, gives
    return found


_AT, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64
_store_new = _function("wasmtime_store_new", _AT, _AT, _AT)
_store_context = _function("wasmtime_store_context", _AT)
_store_limiter = _function("wasmtime_store_limiter", _AT, *[_INT] * 5, gives=None)
_store_delete = _function("wasmtime_store_delete", _AT, gives=None, of=capi.dll)
_wasi_new = _function("wasi_config_new")
_wasi_delete = _function("wasi_config_delete", _AT, gives=None)
_inherit_stdout = _function("wasi_config_inherit_stdout", _AT, gives=None)
_inherit_stderr = _function("wasi_config_inherit_stderr", _AT, gives=None)
_set_wasi = _function("wasmtime_context_set_wasi", _AT, _AT)
_set_epoch_deadline = _function(
    "wasmtime_context_set_epoch_deadline", _AT, ctypes.c_uint64, gives=None
)
_set_argv = _function("wasi_config_set_argv", _AT, _SIZE, _AT, gives=ctypes.c_bool)
_set_env = _function("wasi_config_set_env", _AT, _SIZE, _AT, _AT, gives=ctypes.c_bool)
_pre_instantiate = _function("wasmtime_instance_pre_instantiate", *[_AT] * 4, of=capi.dll)
_linker_instantiate = _function("wasmtime_linker_instantiate", *[_AT] * 5, of=capi.dll)
_export_get = _function(
    "wasmtime_instance_export_get", _AT, _AT, ctypes.c_char_p, _SIZE, _AT, gives=ctypes.c_bool
)
_func_call = _function("wasmtime_func_call", _AT, _AT, _AT, _SIZE, _AT, _SIZE, _AT, of=capi.dll)
_memory_data_size = _function("wasmtime_memory_data_size", _AT, _AT, gives=_SIZE)


def pool(config: wasmtime.Config, memory_bytes: int) -> None:
    """Have an engine's instances take turns in the same memory, which is cleared in between.

    An older wasmtime has no pool; its instances map their own.
    """
    if not hasattr(capi, "wasmtime_pooling_allocation_config_new"):
        return
    pool = capi.wasmtime_pooling_allocation_config_new()
    wanted = {
        "total_memories": _SLOTS,
        "total_tables": _SLOTS * TABLES_MAX,
        "total_core_instances": _SLOTS,
        "max_tables_per_module": TABLES_MAX,
        "table_elements": table_elements(memory_bytes),
        "max_core_instance_size": _INSTANCE_BYTES_MAX,
        "max_memory_size": memory_bytes,
        "linear_memory_keep_resident": min(memory_bytes, _KEPT_RESIDENT_BYTES),
    }
    for name, value in wanted.items():
        getattr(capi, f"wasmtime_pooling_allocation_config_{name}_set")(pool, value)
    capi.wasmtime_pooling_allocation_strategy_set(config.ptr(), pool)
    capi.wasmtime_pooling_allocation_config_delete(pool)


def table_elements(memory_bytes: int) -> int:
    """What one table may hold, so that all of them take no more than the memory may."""
    return min(_ELEMENTS_MAX, memory_bytes // (TABLES_MAX * _ELEMENT_BYTES))


def check_command(module: wasmtime.Module) -> None:
    """See that it is a command for WASI preview 1, of which the functions below can be sure.

    Raises:
        PrepareFailedError: it is none.
    """
    strange = {one.module for one in module.imports} - {"wasi_snapshot_preview1"}
    exports = {one.name: one.type for one in module.exports}
    start, memory = exports.get(_START.decode()), exports.get(_MEMORY.decode())
    what = f"imports {', '.join(sorted(strange))}" if strange else ""
    if not isinstance(start, wasmtime.FuncType) or start.params or start.results:
        what = what or f"exports no function {_START.decode()} without parameters and results"
    if not isinstance(memory, wasmtime.MemoryType):
        what = what or f"exports no {_MEMORY.decode()}"
    if what:
        reason = f"the module {what}: not a WASI preview 1 command"
        raise PrepareFailedError(reason, invalid=True, field="program")


class Store:
    """What one instance lives in.

    Attributes:
        context: where its instance is made and called.
    """

    __slots__ = ("_pointer", "context")

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer
        self.context: int = _store_context(pointer)

    def close(self) -> None:
        """Give back its instance's memory, once."""
        _store_delete(self._pointer)


class Stores:
    """Makes what each instance of a plan's module lives in.

    Of WASI it gets what its module could make use of: of what imports no more than arithmetic needs
    nothing is to be told, and nobody sees the difference.

    Args:
        engine: of the module.
        command: that is run in them.
        plan: whose words a task is told.
        folders: what the guest sees of files: folder here, name inside.

    Raises:
        UnicodeEncodeError: the plan's words are not UTF-8.
    """

    def __init__(
        self,
        engine: wasmtime.Engine,
        command: "Command",
        plan: SandboxPlan,
        folders: Sequence[tuple[str, str]],
    ) -> None:
        self._engine = engine  # lives as long as its address is used
        self._engine_at = ctypes.cast(engine.ptr(), ctypes.c_void_p).value
        self._command = command
        self._folders = folders
        memory_bytes = plan.limits.memory_bytes
        self._limits = memory_bytes, table_elements(memory_bytes), 1, TABLES_MAX, 1
        self.begin_job(plan)

    def begin_job(self, plan: SandboxPlan) -> None:
        """Tell the tasks that follow the words of this plan."""
        self._words = _Words(plan)

    def make(self, task: int, words: Sequence[str]) -> Store:
        """The store of one task: bounded in what its instance may grow to, ended by the next epoch.

        Raises:
            wasmtime.WasmtimeError: its words are not UTF-8, or its folder is not there.
        """
        wasi = self._wasi(task, words) if self._command.uses_wasi else None
        pointer = _store_new(self._engine_at, None, None)
        store = Store(pointer)
        if wasi is not None:
            _raise(_set_wasi(store.context, wasi))  # it is the store's now
        _store_limiter(pointer, *self._limits)
        _set_epoch_deadline(store.context, 1)
        return store

    def _wasi(self, task: int, words: Sequence[str]) -> int:
        command = self._command
        wasi: int = self._wasi_with_folders() if self._folders else _wasi_new()
        if command.uses_words and not self._words.give(wasi, task, words):
            _wasi_delete(wasi)
            raise wasmtime.WasmtimeError("arguments or environment can't be set")
        if command.uses_streams:
            _inherit_stdout(wasi)
            _inherit_stderr(wasi)
        return wasi

    def _wasi_with_folders(self) -> int:
        config = wasmtime.WasiConfig()
        for here, inside in self._folders:
            config.preopen_dir(here, inside)
        address = ctypes.cast(config._consume(), ctypes.c_void_p).value  # noqa: SLF001 - ours now
        assert address is not None
        return address


class _Words:
    """Arguments and environment of a plan's tasks; what differs is put in for each of them.

    Raises:
        UnicodeEncodeError: they are not UTF-8.
    """

    def __init__(self, plan: SandboxPlan) -> None:
        env = plan.env_of(0)
        self._plan = plan
        self._argv_for = {0: _Strings(["program", *plan.argv_of(0)])}
        self._names, self._values = _Strings(env), _Strings(env.values())
        # By one of the two a task is told which it is; the other is the same for all.
        self._name = plan.job_of if plan.separate else plan.index_of
        self._name_place = [*env].index(JOB_NAME if plan.separate else TASK_NAME)
        self._is_told_by_argv = not plan.separate and any(TASK_WORD in one for one in plan.argv)

    def give(self, wasi: int, task: int, words: Sequence[str]) -> bool:
        """Give those of one task; False where they are not UTF-8."""
        self._values.put(self._name_place, self._name(task))
        argv, names = self._argv_of(task, words), self._names
        return bool(
            _set_argv(wasi, argv.count, argv.place)
            and _set_env(wasi, names.count, names.place, self._values.place)
        )

    def _argv_of(self, task: int, words: Sequence[str]) -> "_Strings":
        """Those of as many words as this task has, with what differs in place."""
        argv = self._argv_for.get(len(words))
        if argv is None:
            line = ["program", *self._plan.argv_of(task, words)]
            argv = self._argv_for[len(words)] = _Strings(line)
        elif words or self._is_told_by_argv:
            line = self._plan.argv_of(task, words)
            same = 0 if self._is_told_by_argv else len(self._plan.argv)
            for place in range(same, len(line)):
                argv.put(place + 1, line[place])
        return argv


class _Strings:
    """Strings as C takes them.

    Attributes:
        count: how many.
        place: where they are.
    """

    def __init__(self, words: Iterable[str]) -> None:
        encoded = [word.encode() for word in words]
        self.count = len(encoded)
        self._array = (ctypes.c_char_p * self.count)(*encoded)
        self.place = ctypes.addressof(self._array)

    def put(self, place: int, word: str) -> None:
        """Put another in one's place."""
        self._array[place] = word.encode()


class Command:
    """A module that is run again and again, each time in an instance of its own.

    Attributes:
        uses_wasi: it imports something of WASI.
        uses_words: by which arguments or environment are read.
        uses_streams: by which the standard streams could be reached.
        uses_files: by which the working folder could be seen or changed.

    Raises:
        PrepareFailedError: it is no WASI preview 1 command.
    """

    def __init__(self, engine: wasmtime.Engine, module: wasmtime.Module) -> None:
        check_command(module)
        self._module, self._linker = module, wasmtime.Linker(engine)
        self._linker.define_wasi()
        names = {one.name for one in module.imports}
        self.uses_wasi = bool(names)
        self.uses_words = bool(names & _WORDS)
        self.uses_streams = bool(names - _WITHOUT_STREAMS)
        self.uses_files = bool(names - _WITHOUT_FILES)
        # The same for each instance: made once, they cost the next no time.
        self._instance, self._trap = capi.wasmtime_instance_t(), ctypes.c_void_p()
        self._made = ctypes.addressof(self._instance), ctypes.addressof(self._trap)
        self._ready: wasmtime.InstancePre | None = None
        self._ready_at: int | None = None
        # An older wasmtime looks up the imports for each instance.
        if hasattr(self._linker, "instantiate_pre"):
            try:
                self._ready = self._linker.instantiate_pre(module)
            except wasmtime.WasmtimeError as error:
                reason = f"{error}"[:1000]
                raise PrepareFailedError(reason, invalid=True, field="program") from error
            self._ready_at = ctypes.cast(self._ready.ptr(), ctypes.c_void_p).value

    def instantiate(self, store: Store) -> int:
        """Make its instance; where it stands, until the next is made.

        Raises:
            wasmtime.WasmtimeError: there is no room for it.
            wasmtime.Trap: what it begins with was ended.
        """
        if self._ready_at is not None:
            error = _pre_instantiate(self._ready_at, store.context, *self._made)
        else:
            linker, module = self._linker.ptr(), self._module.ptr()
            error = _linker_instantiate(linker, store.context, module, *self._made)
        if error or self._trap:
            _raise(error, self._trap)
        return self._made[0]


_trap = ctypes.c_void_p()
_trap_at = ctypes.addressof(_trap)


def start(store: Store, instance: int) -> None:
    """Call _start.

    Raises:
        wasmtime.ExitTrap: it ended with an exit code.
        wasmtime.WasmtimeError: a host call failed.
        wasmtime.Trap: it was ended.
    """
    function = _export(store, instance, _START, _FUNCTION)
    error = _func_call(store.context, function, None, 0, None, 0, _trap_at)
    if error or _trap:
        _raise(error, _trap)


def memory_bytes(store: Store, instance: int) -> int:
    """The size that its memory has grown to."""
    memory = _export(store, instance, _MEMORY, _MEMORY_KIND)
    return int(_memory_data_size(store.context, memory))


_FUNCTION, _MEMORY_KIND = capi.WASMTIME_EXTERN_FUNC.value, capi.WASMTIME_EXTERN_MEMORY.value
_found = capi.wasmtime_extern_t()
_found_at = ctypes.addressof(_found)
_found_of = _found_at + int(capi.wasmtime_extern_t.of.offset)


def _export(store: Store, instance: int, name: bytes, kind: int) -> int:
    """Where the export is, until the next one is looked for."""
    there = _export_get(store.context, instance, name, len(name), _found_at)
    if not there or _found.kind != kind:  # type: ignore[comparison-overlap] # it is an int
        raise wasmtime.WasmtimeError(f"{name!r} is not what the module said it would be")
    return _found_of


def _raise(error: int | None, trap: ctypes.c_void_p | None = None) -> None:
    if error:
        failed = ctypes.cast(error, ctypes.POINTER(capi.wasmtime_error_t))
        raise wasmtime.WasmtimeError._from_ptr(failed)  # noqa: SLF001 - the lower layer's
    if trap:
        ended = ctypes.cast(trap, ctypes.POINTER(capi.wasm_trap_t))
        trap.value = None
        raise wasmtime.Trap._from_ptr(ended)  # noqa: SLF001
