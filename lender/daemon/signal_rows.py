"""Readings of the sensors as a few bytes each, for the policy's replay.

A block holds some readings: quantised, a column per signal, as differences, compressed. Only
what the policy decides by is kept, and no name of any program: that a film ran, not which.
"""

import zlib
from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import Final

import msgpack

from lender.core.signals import GpuSignal, Presence, Signals

Row = tuple[float, Signals]

VERSION: Final = 2
_VERSIONS: Final = (1, VERSION)
"""The first had no GPU memory in it."""
SOMETHING: Final = "something"
"""Stands for the name of a program that was not kept."""

_ROWS_MAX = 4096
_PACKED_BYTES_MAX = 1 << 20
"""Of a block that somebody has made to grow: ours are 60 rows of 23 numbers."""

_TIME_PER_S = 10
_CORES = 20
_MEMORY_BYTES = 16 << 20
_SWAP_BYTES_PER_S = 64 << 10
_TENTHS = 10
_HUNDREDTHS = 100
_VRAM_ENOUGH = (1 << 50) // _MEMORY_BYTES
"""For a reading that tells nothing of it: what is not known asks for nothing in a replay."""


class BlockError(Exception):
    """No block that this version reads."""


def pack(rows: Iterable[Row]) -> bytes:
    """Return a block of `rows`, oldest first."""
    columns = zip(*(_quantised(now, signals) for now, signals in rows), strict=True)
    differences = [[column[0], *(b - a for a, b in pairwise(column))] for column in columns]
    packed: bytes = msgpack.packb([VERSION, differences])
    return zlib.compress(packed)


def unpack(block: bytes) -> list[Row]:
    """Return the rows of `block`.

    Raises:
        BlockError: it is none, or of a version that is not known.
    """
    try:
        inflating = zlib.decompressobj()
        packed = inflating.decompress(block, _PACKED_BYTES_MAX)
        if not inflating.eof:
            raise BlockError("a block that was cut, or has no end")
        version, differences = msgpack.unpackb(packed, max_array_len=_ROWS_MAX)
        if version not in _VERSIONS:
            raise BlockError(f"a block of version {version}")
        columns = [accumulate(column) for column in differences]
        return [_restored(*row) for row in zip(*columns, strict=True)]
    except (zlib.error, msgpack.UnpackException, ValueError, TypeError) as error:
        raise BlockError(f"no block: {error}") from error


def _quantised(now: float, signals: Signals) -> tuple[int, ...]:
    presence = signals.presence
    return (
        round(now * _TIME_PER_S),
        round(signals.cpu_others * _CORES),
        signals.memory_available_bytes // _MEMORY_BYTES,
        round(signals.swap_in_bytes_per_s / _SWAP_BYTES_PER_S),
        _or_none(signals.pressure_cpu, _TENTHS),
        _or_none(signals.pressure_memory, _TENTHS),
        _or_none(signals.pressure_io, _TENTHS),
        _or_none(max((gpu.use_others for gpu in signals.gpus), default=None), _HUNDREDTHS),
        _or_none(signals.temperature_c),
        _or_none(signals.temperature_limit_c),
        int(signals.throttled),
        int(signals.on_battery),
        _or_none(signals.battery, _HUNDREDTHS),
        _or_none(presence.idle_s),
        _or_none(presence.locked),
        int(presence.desktop),
        presence.remote_sessions,
        int(bool(signals.inhibited_by)),
        int(signals.game),
        int(bool(signals.exclusive_app)),
        int(signals.metered),
        signals.utc_offset_s,
        (signals.vram_left_bytes or 0) // _MEMORY_BYTES,
    )


def _restored(  # the columns, in the order of `_quantised`
    now: int,
    cpu_others: int,
    memory_available: int,
    swap_in: int,
    pressure_cpu: int,
    pressure_memory: int,
    pressure_io: int,
    gpu_others: int,
    temperature_c: int,
    temperature_limit_c: int,
    throttled: int,
    on_battery: int,
    battery: int,
    idle_s: int,
    locked: int,
    desktop: int,
    remote_sessions: int,
    inhibited: int,
    game: int,
    exclusive_app: int,
    metered: int,
    utc_offset_s: int,
    vram_left: int = _VRAM_ENOUGH,
) -> Row:
    presence = Presence(
        idle_s=_known(idle_s),
        locked=None if locked < 0 else bool(locked),
        desktop=bool(desktop),
        remote_sessions=remote_sessions,
    )
    gpu = GpuSignal("", vram_left * _MEMORY_BYTES, use_others=gpu_others / _HUNDREDTHS)
    return now / _TIME_PER_S, Signals(
        cpu_others=cpu_others / _CORES,
        memory_available_bytes=memory_available * _MEMORY_BYTES,
        swap_in_bytes_per_s=swap_in * _SWAP_BYTES_PER_S,
        pressure_cpu=_known(pressure_cpu, _TENTHS),
        pressure_memory=_known(pressure_memory, _TENTHS),
        pressure_io=_known(pressure_io, _TENTHS),
        gpus=() if gpu_others < 0 else (gpu,),
        temperature_c=_known(temperature_c),
        temperature_limit_c=_known(temperature_limit_c),
        throttled=bool(throttled),
        on_battery=bool(on_battery),
        battery=_known(battery, _HUNDREDTHS),
        presence=presence,
        inhibited_by=SOMETHING if inhibited else "",
        game=bool(game),
        exclusive_app=SOMETHING if exclusive_app else "",
        metered=bool(metered),
        utc_offset_s=utc_offset_s,
    )


def _or_none(value: float | None, scale: int = 1) -> int:
    """A number that is not negative, or -1 for None."""
    return -1 if value is None else max(0, round(value * scale))


def _known(value: int, scale: int = 1) -> float | None:
    return None if value < 0 else value / scale
