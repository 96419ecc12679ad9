"""Results of consecutive tasks that said nothing but a short value: most of a large array's.

In MessagePack two of them differ in task, value and times alone. So a run of them is read by one
pattern and kept as columns, and goes on as the bytes that came: no object is made of a task that
nobody looks at. Whatever is no such run is read as ever; both ways read the same, or refuse.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise, repeat
from typing import Any, Final, NamedTuple, TypeVar, overload

import msgpack
from pydantic import TypeAdapter

from lender.protocol.bounds import CHUNK_RESULTS_MAX, MEASURED_S_MAX
from lender.protocol.codec import (
    MSGPACK,
    UNPACK_ERRORS,
    ContentType,
    decode,
    encode,
    unpacked,
    validated,
)
from lender.protocol.lease import Done
from lender.protocol.result import Chunk, TaskResult

RUN_MIN: Final = 16
"""Fewer are read one by one as fast."""

VALUE_BYTES_MAX: Final = 64
"""Of each value. Their end is searched for: long ones are read as fast one by one."""

_HEAD_BYTES: Final = 1024
"""Results begin within: before them stand a few ids."""

WithResults = TypeVar("WithResults", Done, Chunk)

_RESULTS_OF: Final = TypeAdapter(tuple[TaskResult, ...])
_PACKER: Final = msgpack.Packer()
_pack: Final = _PACKER.pack
_RESULTS: Final = _pack("results")
_NO_RESULTS: Final = _RESULTS + _pack(())

_UINT: Final = rb"([\x00-\x7f]|\xcc[\x80-\xff]|\xcd(?!\x00)..|\xce(?!\x00\x00)....)"
"""In the one form that packers give it, of up to 32 bits."""
_SHORT: Final = rb"\xc4([\x00-\x%02x])(.{0,%d}?)" % (VALUE_BYTES_MAX, VALUE_BYTES_MAX)
"""Its length and itself: up to its end, or to what looks like that, so the two are compared."""
_FLOAT: Final = rb"\xcb(.{8})"

_FIELDS: Final = {
    "task": _UINT,
    "state": re.escape(_pack("succeeded")),
    "exit_code": re.escape(_pack(0)),
    "value": _SHORT,
    "outputs": re.escape(_pack(())),
    "stderr_tail": re.escape(_pack(b"")),
    "cpu_s": _FLOAT,
    "duration_s": _FLOAT,
}
"""All that is written of such a result, in the model's order."""

_BETWEEN: Final = (
    bytes([0x80 | len(_FIELDS)]) + _pack("task"),
    b"".join(map(_pack, ("state", "succeeded", "exit_code", 0, "value"))),
    b"".join(map(_pack, ("outputs", (), "stderr_tail", b"", "cpu_s"))),
    _pack("duration_s"),
)
"""What is written before the task, the value and the times of each."""

_RESULT_BYTES_MAX: Final = 256
"""More than one of them takes."""

_ONE: Final = bytes([0x80 | len(_FIELDS)]) + b"".join(
    _pack(name) + said for name, said in _FIELDS.items()
)
_PATTERN: Final = re.compile(_ONE + rb"|(.+)", re.DOTALL)
"""One result, or all that is left where there is none: nothing between two is passed over."""


class ResultRun(Sequence[TaskResult]):
    """Successes with exit code 0, no outputs and nothing on standard error.

    Attributes:
        tasks: their tasks.
        values: of each.
        cpu_s: user and system time of each.
        durations_s: how long each took.
        packed: all of them in MessagePack, one behind the other, as `codec.encode` writes them.
    """

    __slots__ = ("_made", "cpu_s", "durations_s", "packed", "tasks", "values")

    def __init__(
        self,
        tasks: range,
        values: tuple[bytes, ...],
        cpu_s: tuple[float, ...],
        durations_s: tuple[float, ...],
        packed: bytes,
    ) -> None:
        self.tasks = tasks
        self.values = values
        self.durations_s = durations_s
        self.packed = packed
        self.cpu_s = cpu_s
        self._made: tuple[TaskResult, ...] | None = None

    def __len__(self) -> int:
        return len(self.tasks)

    @overload
    def __getitem__(self, at: int) -> TaskResult: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[TaskResult, ...]: ...
    def __getitem__(self, at: int | slice) -> TaskResult | tuple[TaskResult, ...]:
        return self._all()[at]

    def __iter__(self) -> Iterator[TaskResult]:
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return self._all() == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # as it equals tuples, whose hash is dear

    def _all(self) -> tuple[TaskResult, ...]:
        """Make all as soon as one is looked at: each by itself would take half as long again."""
        if self._made is None:
            columns = (self.tasks, self.values, self.cpu_s, self.durations_s)
            self._made = _RESULTS_OF.validate_python(
                tuple(
                    {
                        "task": task,
                        "state": "succeeded",
                        "exit_code": 0,
                        "value": value,
                        "cpu_s": cpu_s,
                        "duration_s": duration_s,
                    }
                    for task, value, cpu_s, duration_s in zip(*columns, strict=True)
                )
            )
        return self._made


def tasks_of(results: Sequence[TaskResult]) -> Sequence[int]:
    """Return the tasks of results, in their order."""
    return results.tasks if isinstance(results, ResultRun) else [one.task for one in results]


def run_of(
    first: int, values: Sequence[bytes], cpu_s: Sequence[float], durations_s: Sequence[float]
) -> ResultRun:
    """Return the results of tasks from `first` on, as `codec.encode` would write them.

    Args:
        first: up to 32 bits.
        values: of each, up to `VALUE_BYTES_MAX`.
        cpu_s: floats, within the model's bounds.
        durations_s: as those.
    """
    tasks = range(first, first + len(values))
    columns = (tasks, values, cpu_s, durations_s)
    by_turns = [
        (repeat(said), map(_pack, one)) for said, one in zip(_BETWEEN, columns, strict=True)
    ]
    pieces = chain.from_iterable(zip(*chain.from_iterable(by_turns), strict=False))
    return ResultRun(tasks, tuple(values), tuple(cpu_s), tuple(durations_s), b"".join(pieces))


def joined(pieces: Sequence[Sequence[TaskResult]]) -> Sequence[TaskResult]:
    """Return them one behind the other: as a run where all are runs, each from where one ends."""
    runs = [one for one in pieces if isinstance(one, ResultRun)]
    follow = all(one.tasks.stop == other.tasks.start for one, other in pairwise(runs))
    if not runs or len(runs) < len(pieces) or not follow:
        return tuple(chain.from_iterable(pieces))
    return ResultRun(
        range(runs[0].tasks.start, runs[-1].tasks.stop),
        tuple(chain.from_iterable(one.values for one in runs)),
        tuple(chain.from_iterable(one.cpu_s for one in runs)),
        tuple(chain.from_iterable(one.durations_s for one in runs)),
        b"".join(one.packed for one in runs),
    )


def decode_results(
    model: type[WithResults], payload: bytes, content_type: ContentType = MSGPACK
) -> WithResults:
    """Do as `codec.decode`; `results` that are such a run come as a `ResultRun`.

    Raises:
        ProtocolError: as there.
    """
    found = _cut(payload) if content_type == MSGPACK else None
    if found is None:
        return decode(model, payload, content_type)
    fields, run = found
    return validated(model, fields).model_copy(update={"results": run})


def encode_results(message: WithResults, content_type: ContentType = MSGPACK) -> bytes:
    """Do as `codec.encode`, of a message whose results may be a run."""
    run = message.results
    if not isinstance(run, ResultRun):
        return encode(message, content_type)
    if content_type != MSGPACK:
        return encode(message.model_copy(update={"results": tuple(run)}), content_type)
    # No word before it can have these bytes: in UTF-8 none begins with the first, or goes on so.
    head, _, tail = encode(message.model_copy(update={"results": ()})).partition(_NO_RESULTS)
    return b"".join((head, _RESULTS, _PACKER.pack_array_header(len(run)), run.packed, tail))


class _Place(NamedTuple):
    """Where a message has its results.

    Attributes:
        entries: how many fields the message has.
        begin: where the field's value begins.
        results: how many there are.
        first: where the first one begins.
    """

    entries: int
    begin: int
    results: int
    first: int


def _cut(payload: bytes) -> tuple[dict[str, Any], ResultRun] | None:
    """Return the fields of a message without its results, and these; None: they are no run."""
    place = _find(payload[:_HEAD_BYTES])
    if place is None or not RUN_MIN <= place.results <= CHUNK_RESULTS_MAX:
        return None
    found = _read(payload, place.first, place.results)
    if found is None:
        return None
    run, end = found
    fields = unpacked(payload[: place.begin] + _pack(()) + payload[end:])
    # Who says one thing twice is understood in one way, wherever it is read.
    return (fields, run) if len(fields) == place.entries else None


def _find(head: bytes) -> _Place | None:
    unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=_HEAD_BYTES)
    unpacker.feed(head)
    try:
        entries = unpacker.read_map_header()
        for _ in range(entries):
            if unpacker.unpack() == "results":
                begin = unpacker.tell()
                return _Place(entries, begin, unpacker.read_array_header(), unpacker.tell())
            unpacker.skip()
    except UNPACK_ERRORS:
        pass
    return None


def _read(payload: bytes, first: int, count: int) -> tuple[ResultRun, int] | None:
    """Read so many results that begin at `first`; returns where they end, too."""
    stop = min(len(payload), first + count * _RESULT_BYTES_MAX + 1)
    found = _PATTERN.findall(payload, first, stop)
    behind = found.pop()[-1] if found and found[-1][-1] else b""
    if len(found) != count:
        return None
    packed_tasks, sizes, values, packed_cpu_s, packed_duration_s, _ = zip(*found, strict=True)
    tasks = unpacked(_PACKER.pack_array_header(count) + b"".join(packed_tasks))
    cpu_s = struct.unpack(f">{count}d", b"".join(packed_cpu_s))
    duration_s = struct.unpack(f">{count}d", b"".join(packed_duration_s))
    run = range(tasks[0], tasks[0] + count)
    whole = b"".join(sizes) == bytes(map(len, values)) and tasks == tuple(run)
    if not (whole and _are_times(cpu_s) and _are_times(duration_s)):
        return None
    end = stop - len(behind)
    return ResultRun(run, values, cpu_s, duration_s, payload[first:end]), end


def _are_times(seconds: tuple[float, ...]) -> bool:
    # What is no number makes no sum that compares; what has no bound makes none that is below one.
    bounded = sum(seconds) <= len(seconds) * MEASURED_S_MAX
    return bounded and min(seconds) >= 0 and max(seconds) <= MEASURED_S_MAX
