"""What wasmtime's C API can do and its Python binding leaves out, or does slowly.

Measured on a task that writes five bytes: the binding looks up every export with its type again for
each instance, and without a pool each instance's memory is mapped and unmapped; together that is
half of the task's time. This goes by the lower layer of the binding, whose names and signatures are
those of the C API (wasmtime/instance.h, func.h, memory.h, config.h). Runs in the sandbox process
only: it imports wasmtime.
"""

import ctypes
import functools
from collections.abc import Mapping, Sequence
from ctypes import byref
from typing import Any

import wasmtime
from wasmtime import _ffi as capi

from lender.sandbox.port import PrepareFailedError

TABLES_MAX = 16
_ELEMENTS_MAX, _ELEMENT_BYTES = 1_000_000, 8
_START, _MEMORY = b"_start", b"memory"
_NO_FINALIZER = ctypes.cast(0, ctypes.CFUNCTYPE(None, ctypes.c_void_p))
_WORDS = ctypes.POINTER(ctypes.POINTER(ctypes.c_char))
# The guest that runs, and the one before, whose store is closed once its outcome is told.
_SLOTS = 2
_KEPT_RESIDENT_BYTES = 1 << 20
# What the engine itself keeps of an instance: some bytes for each function.
_INSTANCE_BYTES_MAX = 64 << 20


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
    """What one instance lives in. A task's is made by a dozen calls, none of them a detour."""

    def __init__(self, engine: wasmtime.Engine, wasi: wasmtime.WasiConfig) -> None:
        self._pointer = capi.wasmtime_store_new(engine.ptr(), None, _NO_FINALIZER)
        self.context = capi.wasmtime_store_context(self._pointer)
        # It is the store's now.
        _check(capi.wasmtime_context_set_wasi(self.context, wasi._consume()))  # noqa: SLF001

    def limit(self, memory_bytes: int) -> None:
        """Bound what the instance may grow to, and have the next epoch end it."""
        elements = table_elements(memory_bytes)
        capi.wasmtime_store_limiter(self._pointer, memory_bytes, elements, 1, TABLES_MAX, 1)
        capi.wasmtime_context_set_epoch_deadline(self.context, 1)

    def close(self) -> None:
        """Give back its instance's memory, once."""
        capi.wasmtime_store_delete(self._pointer)


def set_words(wasi: wasmtime.WasiConfig, argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Give arguments and environment.

    Raises:
        wasmtime.WasmtimeError: they are not UTF-8.
    """
    given, pairs = wasi.ptr(), len(env)
    if not (
        capi.wasi_config_set_argv(given, len(argv), _words(*argv))
        and capi.wasi_config_set_env(given, pairs, _words(*env.keys()), _words(*env.values()))
    ):
        raise wasmtime.WasmtimeError("arguments or environment can't be set")


class Command:
    """A module that is run again and again, each time in an instance of its own.

    Raises:
        PrepareFailedError: it is no WASI preview 1 command.
    """

    def __init__(self, engine: wasmtime.Engine, module: wasmtime.Module) -> None:
        check_command(module)
        self._module, self._linker = module, wasmtime.Linker(engine)
        self._linker.define_wasi()
        self._ready: wasmtime.InstancePre | None = None
        # An older wasmtime looks up the imports for each instance.
        if hasattr(self._linker, "instantiate_pre"):
            try:
                self._ready = self._linker.instantiate_pre(module)
            except wasmtime.WasmtimeError as error:
                reason = f"{error}"[:1000]
                raise PrepareFailedError(reason, invalid=True, field="program") from error

    def instantiate(self, store: Store) -> capi.wasmtime_instance_t:
        """Make its instance.

        Raises:
            wasmtime.WasmtimeError: there is no room for it.
            wasmtime.Trap: what it begins with was ended.
        """
        made, trap = capi.wasmtime_instance_t(), ctypes.POINTER(capi.wasm_trap_t)()
        given = store.context, byref(made), byref(trap)
        if self._ready is not None:
            error = capi.wasmtime_instance_pre_instantiate(self._ready.ptr(), *given)
        else:
            linker, module = self._linker.ptr(), self._module.ptr()
            context, *rest = given
            error = capi.wasmtime_linker_instantiate(linker, context, module, *rest)
        _check(error, trap)
        return made


def start(store: Store, instance: capi.wasmtime_instance_t) -> None:
    """Call _start.

    Raises:
        wasmtime.ExitTrap: it ended with an exit code.
        wasmtime.WasmtimeError: a host call failed.
        wasmtime.Trap: it was ended.
    """
    export = _export(store, instance, _START, capi.WASMTIME_EXTERN_FUNC)
    trap, function = ctypes.POINTER(capi.wasm_trap_t)(), byref(export.of.func)
    _check(capi.wasmtime_func_call(store.context, function, None, 0, None, 0, byref(trap)), trap)


def memory_bytes(store: Store, instance: capi.wasmtime_instance_t) -> int:
    """The size that its memory has grown to."""
    export = _export(store, instance, _MEMORY, capi.WASMTIME_EXTERN_MEMORY)
    return int(capi.wasmtime_memory_data_size(store.context, byref(export.of.memory)))


def _export(
    store: Store, instance: capi.wasmtime_instance_t, name: bytes, kind: ctypes.c_uint8
) -> capi.wasmtime_extern_t:
    found, place = capi.wasmtime_extern_t(), byref(instance)
    there = capi.wasmtime_instance_export_get(store.context, place, name, len(name), byref(found))
    if not there or found.kind != kind.value:  # type: ignore[comparison-overlap] # it is an int
        raise wasmtime.WasmtimeError(f"{name!r} is not what the module said it would be")
    return found


@functools.lru_cache(4)  # one task's are mostly the next one's, too
def _words(*words: str) -> "ctypes._Pointer[ctypes._Pointer[ctypes.c_char]]":
    encoded = [word.encode() for word in words]
    return ctypes.cast((ctypes.c_char_p * len(encoded))(*encoded), _WORDS)


def _check(error: Any, trap: Any = None) -> None:  # noqa: ANN401 - pointers of the C API
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)  # noqa: SLF001 - the lower layer's
    if trap:
        raise wasmtime.Trap._from_ptr(trap)  # noqa: SLF001
