"""The submitter's way in: submit jobs, follow them, ask about them."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, Unpack
from weakref import WeakValueDictionary

from lender.client import functions
from lender.client.contents import Contents, Transfer
from lender.client.errors import ClientError, NoSuchJob, outcome_of
from lender.client.filling import filled
from lender.client.functions import FunctionJob, FunctionOptions
from lender.client.insistence import insist
from lender.client.job import Job, Session
from lender.client.keys import named_path, read_trusted
from lender.client.ledger import Ledger
from lender.client.news import News
from lender.client.one_of_many import Many
from lender.client.retrying import renewed, retry_spec, tasks_to_retry
from lender.client.specs import (
    DAY_S,
    Content,
    JobRequest,
    array_of_each,
    inputs_by_name,
)
from lender.client.submissions import Submissions
from lender.client.trust import Trust
from lender.client.way_in import WayIn
from lender.client.workload import Workload
from lender.link.api import JetStream
from lender.link.blobs import Blobs
from lender.protocol import codec, subjects
from lender.protocol.errors import ProtocolError
from lender.protocol.ids import is_job_id, task_named
from lender.protocol.job import After, Array, Limits, Requires, Verify
from lender.protocol.query import JobStatus, Query, QueryReply

Known = TypeVar("Known")


class AnyJob(Protocol):
    """A handle on a job, of either kind."""

    @property
    def id(self) -> str:
        """The job's id."""


class Client:
    """An async context manager that holds one connection as one submitter.

    The connection comes back by itself: whatever is awaited goes on after a server's restart.
    Every method may raise NotAdmitted (the server forbids it) and Unreachable (no server or
    broker answered within `timeout_s`; doing the same again is always safe).
    """

    def __init__(
        self,
        url: str | None = None,
        key: Path | None = None,
        *,
        credentials: Path | None = None,
        ca: Path | None = None,
        trusted_lenders: Iterable[str] | None = None,
        together: bool = True,
        timeout_s: float = 30.0,
        connect_timeout_s: float = 5.0,
        on_transfer: Callable[[Transfer], None] | None = None,
        now: Callable[[], float] = time.time,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            url: of the NATS server; `$LENDER_URL`, else the fleet that `lender enroll` has
                joined with this key, else port 4222 of this machine.
            key: file with the submitter's seed; see `default_key_path`.
            credentials: file that the server lets us in by; `$LENDER_CREDS`, else what
                enrolment has left for that server, else the key.
            ca: certificates of who may vouch for the server, for TLS; `$LENDER_CA`, else those
                that the key was enrolled with, else any.
            trusted_lenders: public keys of the machines whose results count; a result that none
                of them has signed raises UntrustedResult. None: those that the file
                `$LENDER_TRUST` names, else those of any, also unsigned.
            together: jobs that are submitted at the same time, and ask for the same but for the
                command line, go to the fleet in one message; else each goes in its own.
            timeout_s: bound on each exchange with server or broker, repetitions included.
            connect_timeout_s: bound on reaching a server at first.
            on_transfer: called in the event loop while contents are sent and fetched, some times
                a second; may be set later, too.
            now: the clock, seconds since the epoch.
            entropy: returns so many random bytes, for job ids.
        """
        self._way_in = WayIn(url, key, credentials, ca)
        if trusted_lenders is None and (path := named_path(os.environ, "LENDER_TRUST")):
            trusted_lenders = read_trusted(path)
        self._trust = Trust(trusted_lenders)
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self.on_transfer = on_transfer
        self._now = now
        self._entropy = entropy
        self._public_key: str | None = None
        self._opened: Session | None = None
        self._together = together
        self._opened_submissions: Submissions | None = None
        self._many: WeakValueDictionary[str, Many] = WeakValueDictionary()
        """Arrays by their ids that somebody has a handle on a task of: one watch serves all."""

    @property
    def url(self) -> str:
        """Of the NATS server."""
        return self._way_in.url

    @property
    def public_key(self) -> str:
        """The submitter's, known once the client was entered."""
        return _entered(self._public_key)

    @property
    def _session(self) -> Session:
        return _entered(self._opened)

    @property
    def _submissions(self) -> Submissions:
        return _entered(self._opened_submissions)

    async def __aenter__(self) -> Self:
        signer = self._way_in.signer()
        self._public_key = signer.public_key
        connection = await self._way_in.connect(signer.public_key, self._connect_timeout_s)
        self._keeping = asyncio.create_task(self._way_in.keep(connection, signer.public_key))
        jetstream = JetStream(connection)
        self._blobs = Blobs(connection, signer.public_key, now=self._now)
        self._many.clear()
        self._opened = Session(
            connection,
            jetstream,
            Ledger(connection, jetstream, signer, self._timeout_s),
            News(connection, signer.public_key),
            Contents(connection, self._blobs, signer.public_key, self._timeout_s, self._moved),
            self._timeout_s,
            self._trust,
            signer,
        )
        self._opened_submissions = Submissions(
            self._opened, self._now, self._entropy, together=self._together
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._blobs.close()
        self._keeping.cancel()
        try:
            await self._session.connection.close()
        finally:
            self._session.news.close()  # last, so that whoever waits for news is told

    async def submit(
        self,
        argv: Sequence[str] = (),
        *,
        wasm: Content | None = None,
        inputs: Mapping[str, Content] | Iterable[str | Path] = (),
        outputs: Sequence[str] = (),
        array: int | Array | None = None,
        each: Sequence[Sequence[str]] | None = None,
        name: str = "",
        workload: str | Workload | None = None,
        env: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        requires: Requires | None = None,
        retries: int = 0,
        priority: int = 0,
        expected_s: float | None = None,
        delay_s: float = 0.0,
        after: Sequence[After | str] = (),
        queue_s: float | None = None,
        deadline_s: float = DAY_S,
        gang: bool = False,
        verify: Verify | None = None,
        checkpoint: bool = False,
        sealed: bool = False,
        traceparent: str | None = None,
    ) -> Job:
        """Upload what the job needs and have it accepted; returns without waiting for its end.

        Args:
            argv: the command line; with `wasm`, the arguments of the module.
            wasm: a WebAssembly module to run instead of a command.
            inputs: files (named for the task as here, see `inputs_by_name`), or contents by name.
            outputs: files that the task leaves and that are to come back.
            array: number of tasks, or some of their indices; `{task}` in an argument becomes the
                task's index.
            each: an array, and what follows `argv` in the command line of each task:
                `[["a.csv"], ["b.csv"]]` is one of two; at most 1,000.
            name: for people to read.
            workload: what the owners' grants name; `command`, or `wasm` with a module. One of the
                catalogue (`Catalogue.of_user()["checksum"]`) also brings what its description
                says: its module, limits and outputs; `argv` are its arguments then.
            env: environment of the task.
            limits: of one task.
            requires: what a machine must have.
            retries: how often a failed task is run again.
            priority: among this submitter's jobs, -100 to 100; a step is worth a minute of waiting.
            expected_s: what a task probably takes; machines that stay long get long tasks.
            delay_s: no task runs before that has passed.
            after: jobs of this submitter that have to have ended before, by id: with success,
                unless `After(job=..., on="end")` says in any way.
            queue_s: how long it may wait for its first task to begin, once it may run.
            deadline_s: seconds from now by which the job must have ended, at most a week.
            gang: all tasks of the array run at the same time, or none does; at most 256.
            verify: how many owners' machines run each task, and how many of their answers have to
                be equal: `Verify(replicas=3, quorum=2)`, or now and then `Verify(spot_check=True)`.
            checkpoint: the task keeps its state in the folder `checkpoint/`; another attempt of
                it goes on from there.
            sealed: inputs, values, outputs, checkpoints and what tasks say are encrypted, to this
                submitter and `trusted_lenders` (at most 64) alone; no other lender runs it. Not
                sealed are the command line, the environment and a module.
            traceparent: the caller's span, as W3C Trace Context writes it. Tasks find it in
                TRACEPARENT, and owners' receipts name it.

        Raises:
            Rejected: a field breaks a rule of the protocol.
            ContentFault: a file can't be read.
        """
        request = JobRequest(
            argv=argv,
            wasm=wasm,
            inputs=inputs if isinstance(inputs, Mapping) else inputs_by_name(inputs),
            outputs=outputs,
            array=array if each is None else array_of_each(each, array),
            name=name,
            workload=workload.name if isinstance(workload, Workload) else workload,
            env=env or {},
            limits=limits or Limits(),
            requires=requires or Requires(),
            retries=retries,
            priority=priority,
            expected_s=expected_s,
            delay_s=delay_s,
            after=after,
            queue_s=queue_s,
            deadline_s=deadline_s,
            gang=gang,
            verify=verify,
            checkpoint=checkpoint,
            sealed=sealed,
            traceparent=traceparent,
        )
        if isinstance(workload, Workload):
            request = filled(request, workload)
        return await self.submit_request(request)

    async def submit_function(
        self,
        function: Callable[..., object],
        *arguments: object,
        **options: Unpack[FunctionOptions],
    ) -> FunctionJob:
        """Have one `function(*arguments)` run; `value` of what is returned waits for its value.

        Function and arguments are sent as a pickle (cloudpickle): what they take from modules that
        a lender does not have must be in there, see cloudpickle.register_pickle_by_value.

        Raises:
            Rejected: something can't be pickled, or a field breaks a rule of the protocol.
            ContentFault: a file can't be read.
        """
        program = functions.one_call(function, arguments)
        return FunctionJob(await self.submit_program(program, None, options))

    async def map(
        self,
        function: Callable[[Any], object],
        arguments: Iterable[object],
        **options: Unpack[FunctionOptions],
    ) -> FunctionJob:
        """Have `function(one)` run for each argument, as one array; else like `submit_function`."""
        program, count = functions.call_for_each(function, arguments)
        return FunctionJob(await self.submit_program(program, count, options))

    async def submit_program(
        self, program: bytes, array: int | None, options: FunctionOptions
    ) -> Job:
        """Have the pickle of one callable run: with each index of an array, or once, with 0."""
        request = JobRequest(**options, function=program, array=array)
        requires = request.requires.model_copy(update={"python": functions.VERSION})
        return await self.submit_request(replace(request, requires=requires))

    async def submit_request(self, request: JobRequest) -> Job:
        """Like `submit`, for a request that was put together elsewhere."""
        return await self._submissions.submit(request)

    async def get(self, job: str) -> Job:
        """Return a handle on a job of this submitter's, or on one task of an array: `JOB-17`.

        Raises:
            NoSuchJob: the ledger holds none under this id.
            Rejected: what it holds breaks the protocol.
            Forged: it is not what this submitter signed as this job.
        """
        session = self._session
        try:
            return Job(session, *await session.ledger.read(job))
        except NoSuchJob:
            named = task_named(job)
            if named is None:
                raise
        array, index = named
        many = self._many.get(array)
        if many is None:
            many = Many(Job(session, *await session.ledger.read(array)))
            many = self._many.setdefault(array, many)
        if many.whole.spec.array is None or not many.whole.spec.has_task(index):
            raise NoSuchJob(job)
        return many.one(index)

    async def retry(self, job: AnyJob | str) -> Job:
        """Submit anew what of an ended job has not succeeded; see `tasks_to_retry`.

        Raises:
            NoSuchJob: the ledger holds none under this id.
            ClientError: it has not ended, or all of its tasks have succeeded.
            Rejected: its failed tasks are too many ranges.
            ContentFault: the program or an input is gone: they are kept for 16 days.
        """
        old = await self._handle(job)
        terminal = await old.terminal()
        if terminal is None:
            raise ClientError(f"job {old.id} has not ended", "wait for it, or cancel it")
        tasks, now = await tasks_to_retry(old, terminal), self._now()
        spec = retry_spec(old.spec, tasks, job=self._submissions.new_id(now), now=now)
        return await self._submissions.submit_spec(await renewed(spec, self._session.contents))

    async def status(self, job: AnyJob | str, task: int | None = None) -> JobStatus | None:
        """Return what the broker knows of a job: counts of its tasks, and which have failed.

        That costs the same however many tasks it has. None: the broker does not remember it.

        Args:
            job: or its id.
            task: the status tells of this one, too, while it has no result.
        """
        name = job if isinstance(job, str) else job.id
        if not is_job_id(name):
            return None
        found = await self._ask(Query(job=name, task=task))
        return found[0] if found else None

    async def jobs(self) -> tuple[JobStatus, ...]:
        """Return what the broker knows of this submitter's jobs, newest first."""
        return await self._ask(Query())

    async def why(self, job: AnyJob | str, task: int | None = None) -> str:
        """Say in words what a job waits for, or what became of it; empty if nobody knows it.

        Args:
            job: or its id.
            task: say it of this one alone; of one with a result that is read from RESULTS.
        """
        found = await self.status(job, task)
        if found is None:
            return ""
        if task is None:
            return found.why or await self._why_failed(job, found) or found.state
        if found.task is not None:
            return found.task.why
        record = await (await self._handle(job)).task(task)
        return outcome_of(record.result) if record else ""

    async def _why_failed(self, job: AnyJob | str, found: JobStatus) -> str | None:
        """Return what the broker does not keep of a task that is asked for by its name."""
        if found.state != "failed" or task_named(found.job) is None:
            return None
        terminal = await (await self._handle(job)).terminal()
        return None if terminal is None else terminal.reason

    async def _handle(self, job: AnyJob | str) -> Job:
        if isinstance(job, Job):
            return job
        return await self.get(job if isinstance(job, str) else job.id)

    def _moved(self, transfer: Transfer) -> None:
        if self.on_transfer is not None:
            self.on_transfer(transfer)

    async def _ask(self, query: Query) -> tuple[JobStatus, ...]:
        subject = subjects.query(self.public_key)
        headers: dict[str, str] = {codec.CONTENT_TYPE_HEADER: codec.MSGPACK}
        connection = self._session.connection

        async def attempt() -> QueryReply:
            msg = await connection.request(subject, codec.encode(query), headers)
            return codec.decode(QueryReply, msg.data)

        try:
            reply = await insist(connection, subject, attempt, self._timeout_s)
        except ProtocolError as error:
            raise ClientError(
                f"can't read the broker's answer ({error})", "update this client"
            ) from error
        if reply.error:
            raise ClientError(f"the broker refused the question ({reply.error})", "ask another")
        return reply.jobs


def _entered(what: Known | None) -> Known:
    if what is None:
        raise RuntimeError("it is not connected: enter it first, `async with Client() as client`")
    return what
