"""Python functions as jobs: a callable and its arguments become a program, results become values.

The program is a pickle of one callable that a lender calls with the task's index. Byte code belongs
to one minor version of Python: the job requires this interpreter's own.
"""

import importlib
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

from lender.client.errors import Rejected, TaskFailed
from lender.client.job import Job
from lender.client.specs import Content
from lender.client.values import decode
from lender.protocol.job import After, Limits, Requires, Verify

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
"""What a job of functions from here requires."""


def one_call(function: Callable[..., object], arguments: Iterable[object] = ()) -> bytes:
    """Return the program of a job whose one task is `function(*arguments)`.

    Raises:
        Rejected: function or arguments can't be pickled.
    """
    given = tuple(arguments)

    def call(_task: int) -> object:
        return function(*given)

    return pickled(call)


def call_for_each(
    function: Callable[[Any], object], arguments: Iterable[object]
) -> tuple[bytes, int]:
    """Return the program and the number of tasks of an array: `function(one)` for each argument.

    Each argument is a pickle of its own, opened when its task runs: a lender that gets few of many
    opens few, and no task can change another's.

    Raises:
        Rejected: there is no argument, or something can't be pickled.
    """
    given = [pickled(one) for one in arguments]
    if not given:
        raise Rejected("array", "there is nothing to call the function for")

    def call(task: int) -> object:
        import pickle  # noqa: PLC0415 - on the lender, and the submitter's own

        return function(pickle.loads(given[task]))  # noqa: S301 - see above

    return pickled(call), len(given)


class FunctionOptions(TypedDict, total=False):
    """What may be said of a job of functions; see `JobRequest`."""

    name: str
    inputs: Mapping[str, Content]
    outputs: Sequence[str]
    env: Mapping[str, str]
    workload: str
    limits: Limits
    requires: Requires
    retries: int
    priority: int
    expected_s: float
    delay_s: float
    after: Sequence[After | str]
    queue_s: float
    deadline_s: float
    gang: bool
    verify: Verify | None
    checkpoint: bool
    sealed: bool
    traceparent: str


class FunctionJob:
    """A job whose tasks are calls of a function.

    What a lender sends back is a stranger's word. Values of plain data (None, bool, int, float,
    str, bytes, and lists, tuples and dicts of them) are read safely. Any other comes as a pickle,
    and opening a pickle runs what it names: `trust=True` gives every lender that may run the job
    the run of this machine. Without it such a value raises UntrustedValue.

    Attributes:
        job: the job itself.
    """

    def __init__(self, job: Job) -> None:
        self.job = job

    async def value(self, timeout_s: float | None = None, *, trust: bool = False) -> Any:  # noqa: ANN401 - what the function returns
        """Wait for the value of a single call.

        Raises:
            JobFailed, Cancelled, Expired, Rejected: there is none.
            UntrustedValue, ContentFault: it can't be read.
            TimeoutError: the job has not ended within `timeout_s`; it goes on.
        """
        result = await self.job.result(timeout_s)
        return decode(result.value, trust=trust)

    async def values(self, *, trust: bool = False) -> AsyncIterator[tuple[int, Any]]:
        """Yield each call's index and value, as they are committed.

        Raises:
            TaskFailed: a call failed for good.
            UntrustedValue, ContentFault: a value can't be read.
        """
        async for record in self.job.results():
            result = record.result
            if result.state != "succeeded":
                raise TaskFailed(self.job.id, result)
            yield result.task, decode(await self.job.value(result), trust=trust)

    async def in_order(self, *, trust: bool = False) -> list[Any]:
        """Return the values of all calls in the order of their arguments; raises as `values`.

        Raises:
            Cancelled, Expired, Rejected: the job ended before all were there.
        """
        found = {task: value async for task, value in self.values(trust=trust)}
        if len(found) < self.job.spec.task_count:
            await self.job.result()
        return [found[task] for task in sorted(found)]


def pickled(what: object) -> bytes:
    """Return a pickle of something, with whatever a lender can't import in it (cloudpickle).

    Raises:
        Rejected: it can't be pickled.
    """
    # Loaded with the first function: commands and modules do without.
    cloudpickle = importlib.import_module("cloudpickle")
    try:
        pickled: bytes = cloudpickle.dumps(what)
    except Exception as error:
        # Whatever the object's own methods raise.
        raise Rejected("program", f"can't be pickled ({type(error).__name__}: {error})") from error
    return pickled
