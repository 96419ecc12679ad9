"""The client for programs without an event loop: each call waits, and returns what it waited for.

`with BlockingClient() as client: print(client.submit(["uname"]).result().value)`. Every method is
its asynchronous twin's, with the same arguments and errors; what was an asynchronous iterator is a
plain one. A client may be used by several threads. Ctrl-C ends a wait, and not the job.
"""

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, Never, ParamSpec, Self, TypeVar

from lender.client.client import Client
from lender.client.functions import FunctionJob
from lender.client.job import Job
from lender.client.loop_thread import LoopThread
from lender.protocol.job import JobSpec

Twin = TypeVar("Twin")
Blocking = TypeVar("Blocking", bound="_Twin[Any]")
Given = ParamSpec("Given")
Result = TypeVar("Result")
Wrapped = TypeVar("Wrapped")


class _Twin(Generic[Twin]):
    """Something asynchronous, and the thread that its loop runs in."""

    def __init__(self, twin: Twin, thread: LoopThread) -> None:
        self._twin = twin
        self._thread = thread


def _of(twin: Twin, method: Callable[Concatenate[Twin, Given], Result]) -> Callable[Given, Result]:
    """Return the twin's own: some jobs do it in their own way."""
    found: Callable[Given, Result] = getattr(twin, method.__name__)
    return found


def _waiting(
    method: Callable[Concatenate[Twin, Given], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[_Twin[Twin], Given], Result]:
    """The same method, which waits."""

    @functools.wraps(method)
    def wait(self: _Twin[Twin], /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        return self._thread.run(_of(self._twin, method)(*args, **kwargs))

    return wait


def _waiting_for(
    wrap: Callable[[Result, LoopThread], Wrapped],
    method: Callable[Concatenate[Twin, Given], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[_Twin[Twin], Given], Wrapped]:
    """The same method, which waits and returns the twin of what comes."""

    @functools.wraps(method)
    def wait(self: _Twin[Twin], /, *args: Given.args, **kwargs: Given.kwargs) -> Wrapped:
        return wrap(self._thread.run(_of(self._twin, method)(*args, **kwargs)), self._thread)

    return wait


def _iterating(
    method: Callable[Concatenate[Twin, Given], AsyncIterator[Result]],
) -> Callable[Concatenate[_Twin[Twin], Given], Iterator[Result]]:
    """The same iterator, which waits for each item."""

    @functools.wraps(method)
    def iterate(
        self: _Twin[Twin], /, *args: Given.args, **kwargs: Given.kwargs
    ) -> Iterator[Result]:
        return self._thread.iterate(_of(self._twin, method)(*args, **kwargs))

    return iterate


class BlockingJob(_Twin[Job]):
    """A handle on a job; see `Job` for what is not said here."""

    @property
    def id(self) -> str:
        """The job's id."""
        return self._twin.id

    @property
    def spec(self) -> JobSpec:
        """What was submitted."""
        return self._twin.spec

    terminal = _waiting(Job.terminal)
    ended = _waiting(Job.ended)
    result = _waiting(Job.result)
    task = _waiting(Job.task)
    results = _iterating(Job.results)
    log = _iterating(Job.log)
    log_so_far = _iterating(Job.log_so_far)
    value = _waiting(Job.value)
    download = _waiting(Job.download)
    cancel = _waiting(Job.cancel)


class BlockingFunctionJob(_Twin[FunctionJob]):
    """A job whose tasks are calls of a function; see `FunctionJob`."""

    @property
    def job(self) -> BlockingJob:
        """The job itself."""
        return BlockingJob(self._twin.job, self._thread)

    value = _waiting(FunctionJob.value)
    values = _iterating(FunctionJob.values)
    in_order = _waiting(FunctionJob.in_order)


class BlockingClient(_Twin[Client]):
    """A context manager that holds one connection as one submitter; see `Client`."""

    def __init__(self, client: Client | None = None) -> None:
        """Prepare; nothing is opened yet.

        Args:
            client: as whom, where to; not entered. `Client()`, unless said.
        """
        self._client = client

    def __getattr__(self, name: str) -> Never:
        if name in ("_twin", "_thread"):
            raise RuntimeError("it is not open: enter it first, `with BlockingClient() as client`")
        raise AttributeError(name)

    def __enter__(self) -> Self:
        super().__init__(self._client or Client(), LoopThread("lender-client"))
        self._thread.open(self._twin.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        if not self._thread.is_here:
            return  # a child that was forked ends; the connection is its parent's
        try:
            self._thread.run(self._twin.__aexit__())
        finally:
            self._thread.stop()
            self._thread.join()

    @property
    def url(self) -> str:
        """Of the NATS server."""
        return self._twin.url

    @property
    def public_key(self) -> str:
        """The submitter's, known once the client was entered."""
        return self._twin.public_key

    submit = _waiting_for(BlockingJob, Client.submit)
    submit_request = _waiting_for(BlockingJob, Client.submit_request)
    submit_function = _waiting_for(BlockingFunctionJob, Client.submit_function)
    map = _waiting_for(BlockingFunctionJob, Client.map)
    get = _waiting_for(BlockingJob, Client.get)
    retry = _waiting_for(BlockingJob, Client.retry)
    status = _waiting(Client.status)
    jobs = _waiting(Client.jobs)
    why = _waiting(Client.why)
