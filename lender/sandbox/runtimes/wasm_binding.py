"""What wasmtime's C API can do and its Python binding leaves out, or does slowly.

Measured on a task that writes five bytes: the binding looks up every export with its type again for
each instance, and without a pool each instance's memory is mapped and unmapped; together that is
half of the task's time. This goes by the lower layer of the binding, whose names and signatures are
those of the C API (wasmtime/instance.h, func.h, memory.h, config.h). Runs in the sandbox process
only: it imports wasmtime.
"""

import ctypes
from ctypes import byref

import wasmtime
from wasmtime import _ffi as capi

from lender.sandbox.port import PrepareFailedError

TABLES_MAX = 16
_ELEMENTS_MAX, _ELEMENT_BYTES = 1_000_000, 8
_START, _MEMORY = "_start", "memory"
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
    start, memory = exports.get(_START), exports.get(_MEMORY)
    what = f"imports {', '.join(sorted(strange))}" if strange else ""
    if not isinstance(start, wasmtime.FuncType) or start.params or start.results:
        what = what or f"exports no function {_START} without parameters and results"
    if not isinstance(memory, wasmtime.MemoryType):
        what = what or f"exports no {_MEMORY}"
    if what:
        reason = f"the module {what}: not a WASI preview 1 command"
        raise PrepareFailedError(reason, invalid=True, field="program")


def start(store: wasmtime.Store, instance: wasmtime.Instance) -> None:
    """Call _start.

    Raises:
        wasmtime.ExitTrap: it ended with an exit code.
        wasmtime.WasmtimeError: a host call failed.
        wasmtime.Trap: it was ended.
    """
    export = _export(store, instance, _START, capi.WASMTIME_EXTERN_FUNC)
    trap = ctypes.POINTER(capi.wasm_trap_t)()
    context, function = store._context(), byref(export.of.func)  # noqa: SLF001 - the lower layer's
    error = capi.wasmtime_func_call(context, function, None, 0, None, 0, byref(trap))
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)  # noqa: SLF001
    if trap:
        raise wasmtime.Trap._from_ptr(trap)  # noqa: SLF001


def memory_bytes(store: wasmtime.Store, instance: wasmtime.Instance) -> int:
    """The size that its memory has grown to."""
    export = _export(store, instance, _MEMORY, capi.WASMTIME_EXTERN_MEMORY)
    context = store._context()  # noqa: SLF001
    return int(capi.wasmtime_memory_data_size(context, byref(export.of.memory)))


def _export(
    store: wasmtime.Store, instance: wasmtime.Instance, name: str, kind: ctypes.c_uint8
) -> capi.wasmtime_extern_t:
    found, encoded = capi.wasmtime_extern_t(), name.encode()
    context, place = store._context(), byref(instance._instance)  # noqa: SLF001
    there = capi.wasmtime_instance_export_get(context, place, encoded, len(encoded), byref(found))
    if not there or found.kind != kind.value:  # type: ignore[comparison-overlap] # it is an int
        raise wasmtime.WasmtimeError(f"{name} is not what the module said it would be")
    return found
