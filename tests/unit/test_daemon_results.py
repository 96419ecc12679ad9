"""What a task leaves goes into its submitter's bucket, or the task says why not."""

from pathlib import Path
from typing import Any

import pytest
from core_world import ALICE, make_spec
from pydantic import ValidationError

from lender.daemon.results import ResultMaker
from lender.link.blobs import BucketFullError
from lender.protocol.bounds import INLINE_VALUE_BYTES_MAX, MEASURED_S_MAX
from lender.protocol.codec import encode
from lender.protocol.job import BlobRef
from lender.protocol.lease import Done
from lender.protocol.result_run import VALUE_BYTES_MAX, ResultRun, decode_results
from lender.sandbox.plan import TaskOutcome

DESK = "U" + "D" * 55
LARGE = bytes(INLINE_VALUE_BYTES_MAX + 1)


class Store:
    """Takes everything, or nothing."""

    def __init__(self, *, full: bool = False) -> None:
        self.full = full
        self.submitters: list[str] = []

    async def put_bytes(self, submitter: str, content: bytes) -> BlobRef:
        if self.full:
            raise BucketFullError("ab" * 32, "the submitter's bucket is full")
        self.submitters.append(submitter)
        return BlobRef(sha256="ab" * 32, size_bytes=len(content), by=DESK)


async def made(store: Store, value: bytes, tmp_path: Path) -> Any:  # noqa: ANN401 - a result
    stores: Any = store
    outcome = TaskOutcome(0, "succeeded", 0, value=value)
    (result,) = await ResultMaker(stores).make(make_spec(), tmp_path, [outcome], None)
    return result


async def test_a_large_value_says_who_has_stored_it_in_whose_bucket(tmp_path: Path) -> None:
    store = Store()
    result = await made(store, LARGE, tmp_path)
    assert (result.state, result.value) == ("succeeded", b"")
    assert (result.value_blob.by, result.value_blob.size_bytes) == (DESK, len(LARGE))
    assert store.submitters == [ALICE.public_key]


async def test_a_task_whose_value_finds_no_room_has_failed_and_says_so(tmp_path: Path) -> None:
    """Run elsewhere, for nothing and without end, it would find no more."""
    result = await made(Store(full=True), LARGE, tmp_path)
    assert (result.state, result.value_blob) == ("failed", None)
    assert "is full" in result.error
    assert (await made(Store(full=True), b"41", tmp_path)).state == "succeeded"


async def test_what_tasks_without_a_word_leave_is_read_as_one_run(tmp_path: Path) -> None:
    """The broker looks at none of them by itself: that is most of what an array costs it."""
    stores: Any = Store()
    outcomes = [TaskOutcome(task, "succeeded", 0, value=b"ok"[: task % 3]) for task in range(200)]
    results = tuple(await ResultMaker(stores).make(make_spec(), tmp_path, outcomes, None))
    report = Done(
        lease="l" * 22, job="job-00001", submitter=DESK, results=results, final=True, signature="s"
    )
    read = decode_results(Done, encode(report))
    assert isinstance(read.results, ResultRun)
    assert read == report


@pytest.mark.parametrize(
    "odd",
    [
        *({"state": "failed", "exit_code": code} for code in (0, 1, None)),
        *({"limit": "time"}, {"error": "why"}, {"stderr_tail": b"t"}, {"exit_code": 3}),
        *({"task": 9}, {"value": bytes(VALUE_BYTES_MAX + 1)}),
    ],
    ids=str,
)
@pytest.mark.parametrize("place", [0, 2])
async def test_what_one_task_says_else_is_told_of_it(
    place: int, odd: dict[str, Any], tmp_path: Path
) -> None:
    stores: Any = Store()
    spec = make_spec().model_copy(update={"outputs": ()})
    outcomes = [TaskOutcome(n, "succeeded", 0, b"v", cpu_s=0.5, duration_s=n) for n in range(3)]
    alike = await ResultMaker(stores).make(spec, tmp_path, outcomes, None)
    assert isinstance(alike, ResultRun)
    outcomes[place] = outcomes[place]._replace(**odd)
    results = await ResultMaker(stores).make(spec, tmp_path, outcomes, None)
    assert not isinstance(results, ResultRun)
    assert results[place] == alike[place].model_copy(update=odd)
    assert [*results[:place], *results[place + 1 :]] == [*alike[:place], *alike[place + 1 :]]


@pytest.mark.parametrize("name", ["cpu_s", "duration_s"])
async def test_a_time_beyond_all_bounds_is_no_result(name: str, tmp_path: Path) -> None:
    stores: Any = Store()
    outcomes = [TaskOutcome(0, "succeeded", 0)._replace(**{name: 2 * MEASURED_S_MAX})]
    with pytest.raises(ValidationError):
        await ResultMaker(stores).make(make_spec(), tmp_path, outcomes, None)
