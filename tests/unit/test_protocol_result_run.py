"""A run of alike results is read and written as if each were read by itself, or is no run."""

import math
import struct
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from lender.protocol.bounds import CHUNK_RESULTS_MAX, MEASURED_S_MAX
from lender.protocol.codec import JSON, MSGPACK, decode, encode
from lender.protocol.errors import ProtocolError
from lender.protocol.lease import Done
from lender.protocol.result import Chunk, TaskResult
from lender.protocol.result_run import (
    RUN_MIN,
    VALUE_BYTES_MAX,
    ResultRun,
    decode_results,
    encode_results,
    joined,
    run_of,
    tasks_of,
)

LEASE, LENDER = "l" * 22, "U" + "A" * 55
TIMES = {"cpu_s": 0.25, "duration_s": 0.5}


def plain(task: int, **changes: Any) -> TaskResult:  # noqa: ANN401 - fields of a model
    fields = {"task": task, "state": "succeeded", "exit_code": 0, "value": b"v%d" % task, **TIMES}
    return TaskResult.model_validate(fields | changes)


def chunk(results: tuple[TaskResult, ...]) -> Chunk:
    return Chunk(job="job-0001", lease=LEASE, attempt=1, lender=LENDER, results=results)


def report(results: tuple[TaskResult, ...]) -> Done:
    return Done(lease=LEASE, job="job-0001", submitter=LENDER, results=results, final=True)


def many(first: int = 0, count: int = RUN_MIN, **changes: Any) -> tuple[TaskResult, ...]:  # noqa: ANN401
    return tuple(plain(task, **changes) for task in range(first, first + count))


def packed(results: tuple[TaskResult, ...]) -> list[dict[str, Any]]:
    fields: dict[str, Any] = msgpack.unpackb(encode(chunk(results)))
    found: list[dict[str, Any]] = fields["results"]
    return found


def with_results(*results: object, **fields: object) -> bytes:
    """A report as somebody writes it who does not use our models."""
    said = {"lease": LEASE, "job": "job-0001", "submitter": LENDER, "final": True}
    written: bytes = msgpack.packb({**said, "results": list(results), **fields})
    return written


@pytest.mark.parametrize("first", [0, 120, 250, 65_530, 9_999_000], ids=str)
@pytest.mark.parametrize("make", [chunk, report])
def test_a_run_is_read_and_written_as_ever(
    make: Callable[[tuple[TaskResult, ...]], Any], first: int
) -> None:
    message = make(many(first, 20, value=b"x" * VALUE_BYTES_MAX))
    payload = encode(message)
    read = decode_results(type(message), payload)
    assert isinstance(read.results, ResultRun)
    assert read == decode(type(message), payload)
    assert encode_results(read) == payload
    assert encode_results(read, JSON) == encode(message, JSON)
    assert tasks_of(read.results) == range(first, first + 20)


def test_it_is_a_sequence_of_results() -> None:
    results = many(7)
    run = decode_results(Chunk, encode(chunk(results))).results
    assert (len(run), run[3], run[-1], run[2:5]) == (RUN_MIN, results[3], results[-1], results[2:5])
    assert list(run) == list(results)
    assert run != results[:-1]
    assert run != "results"
    assert (run == 7) is False
    assert isinstance(run, ResultRun)
    assert run.durations_s == (0.5,) * RUN_MIN


def test_the_largest_report_is_one_run() -> None:
    payload = encode(report(many(count=CHUNK_RESULTS_MAX)))
    assert isinstance(decode_results(Done, payload).results, ResultRun)


END = msgpack.packb({"outputs": (), "stderr_tail": b"", **TIMES})[1:]
"""How a result ends, which a value may hold as well."""


@pytest.mark.parametrize(
    "odd",
    [
        {"state": "failed"},
        {"exit_code": 1},
        {"exit_code": None},
        {"value": b"x" * (VALUE_BYTES_MAX + 1)},
        {"value": END},
        {"stderr_tail": b"x"},
        {"limit": "time"},
        {"error": "no"},
        {"cancelled": True},
        {"outputs": ({"name": "a", "sha256": "cd" * 32, "size_bytes": 3},)},
        {"value_blob": {"sha256": "ab" * 32, "size_bytes": 1}},
        {"task": 3},
        {"task": 99},
    ],
    ids=str,
)
@pytest.mark.parametrize("at", [0, 7, RUN_MIN - 1])
def test_whatever_else_a_task_says_is_read_by_itself(odd: dict[str, Any], at: int) -> None:
    results = list(many())
    results[at] = plain(**{"task": at, **odd})
    payload = encode(chunk(tuple(results)))
    read = decode_results(Chunk, payload)
    assert isinstance(read.results, tuple)
    assert read.results == tuple(results)
    assert tasks_of(read.results) == [one.task for one in results]
    assert encode_results(read) == payload


@pytest.mark.parametrize(
    ("field", "fault"),
    [
        *(("cpu_s", wrong) for wrong in (-1.0, math.nan, math.inf, -math.inf, 2 * MEASURED_S_MAX)),
        *(("duration_s", wrong) for wrong in (-1e-9, math.nan, math.inf)),
        ("value", b"x" * 70_000),
        ("task", -1),
        ("state", "lost"),
    ],
)
def test_a_result_that_is_none_spoils_the_whole_report(field: str, fault: object) -> None:
    results = packed(many())
    results[5][field] = fault
    with pytest.raises(ProtocolError) as caught:
        decode_results(Done, with_results(*results))
    assert caught.value.field == f"results.5.{field}"


def test_a_sum_of_times_says_nothing_of_each() -> None:
    results = packed(many())
    results[5] |= {"cpu_s": 3 * MEASURED_S_MAX}
    with pytest.raises(ProtocolError):
        decode_results(Done, with_results(*results))
    results[5] |= {"cpu_s": MEASURED_S_MAX}
    assert isinstance(decode_results(Done, with_results(*results)).results, ResultRun)


@pytest.mark.parametrize("count", [0, 1, RUN_MIN - 1])
def test_few_are_read_one_by_one(count: int) -> None:
    payload = encode(report(many(count=count)))
    assert decode_results(Done, payload) == decode(Done, payload)
    assert isinstance(decode_results(Done, payload).results, tuple)


def test_too_many_are_too_many() -> None:
    payload = with_results(*packed(many(count=CHUNK_RESULTS_MAX + 1)))
    with pytest.raises(ProtocolError, match="results"):
        decode_results(Done, payload)


def test_what_is_written_in_another_form_is_read_all_the_same() -> None:
    """An int where a float is usual, a longer form of a number, another order of fields."""
    results = packed(many())
    for one in (
        {**results[2], "cpu_s": 0},
        dict(reversed(results[2].items())),
        {**results[2], "newer": True},
    ):
        payload = with_results(*results[:2], one, *results[3:])
        read = decode_results(Done, payload)
        assert isinstance(read.results, tuple)
        assert read == decode(Done, payload)
    longer = with_results(*results).replace(b"\xa4task\x02", b"\xa4task\xcd\x00\x02")
    read = decode_results(Done, longer)
    assert isinstance(read.results, tuple)
    assert read == decode(Done, longer)


def test_a_bytes_length_that_lies_is_malformed() -> None:
    payload = with_results(*packed(many(value=b"abc")))
    for lie in (b"\xc4\x02abc", b"\xc4\x04abc"):
        with pytest.raises(ProtocolError):
            decode_results(Done, payload.replace(b"\xc4\x03abc", lie))


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_a_message_that_is_cut_short_is_malformed(cut: int) -> None:
    payload = encode(report(many()))
    for part in (payload[:-cut], payload[cut:]):
        with pytest.raises(ProtocolError):
            decode_results(Done, part)


def test_who_says_two_things_is_understood_in_one_way() -> None:
    """Of two fields of one name the last one counts, with a run in the first or in the last."""
    results = packed(many())
    once = with_results(*results)
    field = msgpack.packb("results")
    for first, last in ((results, []), ([], results), (results, results[:2])):
        twice = bytes([once[0] + 1]) + once[1:].replace(
            field + msgpack.packb(results),
            field + msgpack.packb(first) + field + msgpack.packb(last),
        )
        assert decode_results(Done, twice) == decode(Done, twice)


def test_a_message_may_be_anything() -> None:
    run = packed(many())
    for payload in (b"", b"\xc0", b"\x81", b"\x81\xa7results", msgpack.packb([1]), b"\xff" * 2000):
        with pytest.raises(ProtocolError):
            decode_results(Done, payload)
    with pytest.raises(ProtocolError, match="results"):
        decode_results(Chunk, msgpack.packb({"job": "job-0001"}))
    late = {"newer": b"x" * 2000, "job": "job-0001", "results": run}
    assert isinstance(decode_results(Chunk, msgpack.packb(late)).results, tuple)
    last = decode_results(Chunk, msgpack.packb({"job": "job-0001", "results": run}))
    assert isinstance(last.results, ResultRun)
    more = msgpack.packb({"job": "job-0001", "results": run}) + msgpack.packb(run[0])
    with pytest.raises(ProtocolError):
        decode_results(Chunk, more)


@pytest.mark.parametrize("content_type", [JSON, MSGPACK])
def test_messages_without_a_run_are_written_as_ever(content_type: Any) -> None:  # noqa: ANN401 - a literal
    message = chunk(many(count=2))
    payload = encode_results(message, content_type)
    assert payload == encode(message, content_type)
    assert decode_results(Chunk, payload, content_type) == message


def test_a_word_behind_the_results_may_hold_any_bytes() -> None:
    told = {"proof": {"signature": "\N{SECTION SIGN}results"}}
    payload = msgpack.packb({**msgpack.unpackb(encode(chunk(many()))), **told})
    read = decode_results(Chunk, payload)
    assert isinstance(read.results, ResultRun)
    assert decode(Chunk, encode_results(read)) == decode(Chunk, payload)


def test_a_time_is_read_bit_by_bit() -> None:
    odd = struct.unpack(">d", bytes.fromhex("3ff00a0000000001"))[0]
    read = decode_results(Chunk, encode(chunk(many(cpu_s=odd, duration_s=-0.0))))
    assert isinstance(read.results, ResultRun)
    assert [one.cpu_s for one in read.results] == [odd] * RUN_MIN
    assert [math.copysign(1, one.duration_s) for one in read.results] == [-1] * RUN_MIN


@pytest.mark.parametrize("first", [0, 120, 250, 65_530, 9_999_000], ids=str)
@pytest.mark.parametrize("values", [(b"",), (b"a", b"", b"x" * VALUE_BYTES_MAX)], ids=len)
def test_a_run_is_written_as_each_of_its_results_would_be(
    first: int, values: tuple[bytes, ...]
) -> None:
    values *= RUN_MIN
    times = [0.25 * at for at in range(len(values))]
    one_by_one = tuple(
        plain(first + at, value=value, cpu_s=times[at], duration_s=times[-1 - at])
        for at, value in enumerate(values)
    )
    run = run_of(first, values, times, times[::-1])
    assert run == one_by_one
    sent = report(()).model_copy(update={"results": run})
    assert encode_results(sent) == encode(report(one_by_one))
    assert isinstance(decode_results(Done, encode_results(sent)).results, ResultRun)


def test_runs_that_follow_each_other_are_one() -> None:
    def part(first: int, count: int) -> ResultRun:
        return run_of(first, [b"v"] * count, [0.5] * count, [1.5] * count)

    one = joined([part(250, 3), part(253, 1), part(254, 9)])
    assert isinstance(one, ResultRun)
    assert (one, one.packed) == (part(250, 13), part(250, 13).packed)
    for pieces in ([part(0, 2), part(3, 2)], [part(0, 2), (plain(2),)], [(plain(0),)], []):
        found = joined(pieces)
        assert found == tuple(one for piece in pieces for one in piece)
        assert isinstance(found, tuple)
