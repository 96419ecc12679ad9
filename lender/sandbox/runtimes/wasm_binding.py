"""What wasmtime's C API can do and its Python binding leaves out, or does slowly.

Measured on a task that writes five bytes: the binding looks up every export with its type again for
each instance, and without a pool each instance's memory is mapped and unmapped; together that is
half of the task's time. This goes by the lower layer of the binding, whose names and signatures are
those of the C API (wasmtime/instance.h, func.h, memory.h, config.h). Runs in the sandbox process
only: it imports wasmtime.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import wasmtime
from wasmtime import _ffi as capi

from lender.sandbox.plan import SandboxPlan
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes.wasm_words import Words

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
# So many instances share a store at most, and only as long as they take no more than so much: each
# counts with this part of it and with its memory. Others are cheaper by themselves.
SHARED_BY = 16
_SHARED_BYTES = 1 << 20
# To clear so much costs no more than one page that is mapped anew, of which most guests use some.
_KEPT_RESIDENT_BYTES = 1 << 17
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


def _bare(
    name: str,
    gives: Any = ctypes.c_void_p,  # noqa: ANN401 - ctypes names no type for its types
    of: ctypes.CDLL = _at_once,
) -> Any:  # noqa: ANN401
    """The same for what is called again and again with the same: what `_at` and `_size` make.

    Nothing is converted or looked at on the way: a plain number would be cut to 32 bits.
    """
    found = of[name]
    found.restype = gives
    return found


def _at(address: int) -> Any:  # noqa: ANN401 - an argument has a type of its own
    """An address, as an argument."""
    return ctypes.c_void_p.from_param(address)


def _place(of: Any) -> Any:  # noqa: ANN401
    """Where something is that lives longer than the argument."""
    return _at(ctypes.addressof(of))


def _size(size_bytes: int) -> Any:  # noqa: ANN401
    """A size, as an argument."""
    return ctypes.c_size_t.from_param(size_bytes)


_pre_instantiate = _bare("wasmtime_instance_pre_instantiate", of=capi.dll)
_linker_instantiate = _bare("wasmtime_linker_instantiate", of=capi.dll)
_call = _bare("wasmtime_func_call_unchecked", of=capi.dll)
_find = _bare("wasmtime_instance_export_get", ctypes.c_bool)
_size_of = _bare("wasmtime_memory_data_size", ctypes.c_size_t)
_START_SIZE, _MEMORY_SIZE = _size(len(_START)), _size(len(_MEMORY))
# A function without parameters and results; where its values would be there is something, too.
_values = ctypes.c_uint64()
_no_values, _NO_SIZE = _place(_values), _size(0)
_found = capi.wasmtime_extern_t()
_found_at = _place(_found)
_found_of = _at(ctypes.addressof(_found) + int(capi.wasmtime_extern_t.of.offset))


def pool(config: wasmtime.Config, memory_bytes: int) -> bool:
    """Have an engine's instances take turns in the same memory, which is cleared in between.

    False for an older wasmtime, which has no pool: its instances map their own.
    """
    if not hasattr(capi, "wasmtime_pooling_allocation_config_new"):
        return False
    pool = capi.wasmtime_pooling_allocation_config_new()
    wanted = {
        "total_memories": SHARED_BY,
        "total_tables": SHARED_BY * TABLES_MAX,
        "total_core_instances": SHARED_BY,
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
    return True


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
    """What instances live in.

    Attributes:
        context: where they are made and called.
    """

    __slots__ = ("_pointer", "context")

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer
        self.context: int = _store_context(pointer)

    def close(self) -> None:
        """Give back the memory of its instances, once."""
        _store_delete(self._pointer)


class Stores:
    """Makes what the instances of a plan's module live in.

    Several of them, one after the other, share a store as long as that holds little memory: no
    instance can reach another that it imports nothing of, nor is told of it. Of WASI each gets what
    its module could make use of: of what imports no more than arithmetic needs nothing is to be
    told, and nobody sees the difference.

    Args:
        engine: of the module.
        command: that is run in them.
        plan: whose words a task is told.
        folders: what the guest sees of files: folder here, name inside.
        shares: whether several instances may live in one; each is bounded by the pool then.

    Raises:
        UnicodeEncodeError: the plan's words are not UTF-8.
    """

    def __init__(
        self,
        engine: wasmtime.Engine,
        command: "Command",
        plan: SandboxPlan,
        folders: Sequence[tuple[str, str]],
        *,
        shares: bool,
    ) -> None:
        self._engine = engine  # lives as long as its address is used
        self._engine_at = ctypes.cast(engine.ptr(), ctypes.c_void_p).value
        self._command = command
        self._folders = folders
        memory_bytes, instances = plan.limits.memory_bytes, SHARED_BY if shares else 1
        tables = instances * TABLES_MAX
        self._limits = memory_bytes, table_elements(memory_bytes), instances, tables, instances
        self._bytes_each = _SHARED_BYTES // instances
        self._left_bytes = 0
        self._store: Store | None = None
        self._run: Callable[[], int]
        self.begin_job(plan)

    def begin_job(self, plan: SandboxPlan) -> None:
        """Tell the tasks that follow the words of this plan."""
        self._words = Words(plan)

    def next(self, task: int, words: Sequence[str]) -> Callable[[], int]:
        """What runs the command once, as `Command.runs_in` says, bounded and told of its task.

        Raises:
            wasmtime.WasmtimeError: its words are not UTF-8, or its folder is not there.
        """
        if self._left_bytes <= 0:
            self.renew()
        if self._command.uses_wasi:
            assert self._store is not None
            # It is the store's then, in place of the one before.
            _raise(_set_wasi(self._store.context, self._wasi(task, words)))
        return self._run

    def used(self, memory_bytes: int) -> None:
        """An instance has ended with so much memory, which stands until its store is closed.

        None is known of one whose start function failed, and what that took stands all the same.
        """
        self._left_bytes -= self._bytes_each + memory_bytes if memory_bytes else _SHARED_BYTES

    def memory_bytes(self) -> int:
        """See `Command.memory_bytes`."""
        return 0 if self._store is None else self._command.memory_bytes(self._store)

    def renew(self) -> None:
        """Close the store, and make another: its instances are ended by the next epoch."""
        if self._store is not None:
            self._store.close()
        pointer = _store_new(self._engine_at, None, None)
        self._store = store = Store(pointer)
        _store_limiter(pointer, *self._limits)
        _set_epoch_deadline(store.context, 1)
        self._run = self._command.runs_in(store)
        self._left_bytes = _SHARED_BYTES

    def renew_if_used(self) -> None:
        """Let none of an instance's memory stand while nothing runs."""
        if self._left_bytes < _SHARED_BYTES:
            self.renew()

    def _wasi(self, task: int, words: Sequence[str]) -> int:
        command = self._command
        wasi: int = self._wasi_with_folders() if self._folders else _wasi_new()
        if command.uses_words and not self._give_words(wasi, task, words):
            _wasi_delete(wasi)
            raise wasmtime.WasmtimeError("arguments or environment can't be set")
        if command.uses_streams:
            _inherit_stdout(wasi)
            _inherit_stderr(wasi)
        return wasi

    def _give_words(self, wasi: int, task: int, words: Sequence[str]) -> bool:
        """Whether they are UTF-8."""
        argv, names, values = self._words.of(task, words)
        return bool(
            _set_argv(wasi, argv.count, argv.place)
            and _set_env(wasi, names.count, names.place, values.place)
        )

    def _wasi_with_folders(self) -> int:
        config = wasmtime.WasiConfig()
        for here, inside in self._folders:
            config.preopen_dir(here, inside)
        address = ctypes.cast(config._consume(), ctypes.c_void_p).value  # noqa: SLF001 - ours now
        assert address is not None
        return address


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
        self._instance_at, self._trap_at = _place(self._instance), _place(self._trap)
        self._ready: wasmtime.InstancePre | None = None
        # An older wasmtime looks up the imports for each instance.
        if hasattr(self._linker, "instantiate_pre"):
            try:
                self._ready = self._linker.instantiate_pre(module)
            except wasmtime.WasmtimeError as error:
                reason = f"{error}"[:1000]
                raise PrepareFailedError(reason, invalid=True, field="program") from error

    def runs_in(self, store: Store) -> Callable[[], int]:
        """What runs it once, in a new instance in this store.

        The function returns what the instance's memory has grown to. It raises:
            wasmtime.ExitTrap: it ended with an exit code.
            wasmtime.WasmtimeError: there is no room for it, or a host call failed.
            wasmtime.Trap: it was ended.
        """
        made, trap, (make, *instantiate) = self._instance, self._trap, self._way_into(store)
        context = _at(store.context)
        find_start = context, self._instance_at, _START, _START_SIZE, _found_at
        find_memory = context, self._instance_at, _MEMORY, _MEMORY_SIZE, _found_at
        call = context, _found_of, _no_values, _NO_SIZE, self._trap_at

        def run() -> int:
            error = make(*instantiate)
            if error or trap:
                made.store_id = 0
                _raise(error, trap)
            if not _find(*find_start):
                raise wasmtime.WasmtimeError("no _start, against what the module said")
            error = _call(*call)
            if error or trap:
                _raise(error, trap)
            if not _find(*find_memory):
                raise wasmtime.WasmtimeError("no memory, against what the module said")
            size_bytes: int = _size_of(context, _found_of)
            return size_bytes

        return run

    def memory_bytes(self, store: Store) -> int:
        """What the memory of its last instance has grown to; 0 where none could be made."""
        context = _at(store.context)
        there = self._instance.store_id and _find(
            context, self._instance_at, _MEMORY, _MEMORY_SIZE, _found_at
        )
        return int(_size_of(context, _found_of)) if there else 0

    def _way_into(self, store: Store) -> tuple[Any, ...]:
        """The function that makes an instance, and what it takes."""
        context, made = _at(store.context), (self._instance_at, self._trap_at)
        if self._ready is not None:
            return _pre_instantiate, self._ready.ptr(), context, *made
        return _linker_instantiate, self._linker.ptr(), context, self._module.ptr(), *made


def _raise(error: int | None, trap: ctypes.c_void_p | None = None) -> None:
    if error:
        failed = ctypes.cast(error, ctypes.POINTER(capi.wasmtime_error_t))
        raise wasmtime.WasmtimeError._from_ptr(failed)  # noqa: SLF001 - the lower layer's
    if trap:
        ended = ctypes.cast(trap, ctypes.POINTER(capi.wasm_trap_t))
        trap.value = None
        raise wasmtime.Trap._from_ptr(ended)  # noqa: SLF001
