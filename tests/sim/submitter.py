"""A submitter: publishes jobs until the ledger has them, and now and then thinks better of it.

What failed of some it tries once more, as `lender retry` does.
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from sim.ended import Ended, tasks_left
from sim.jetstream import Message, Record, Refused, Stored
from sim.server import Server
from sim.world import EPOCH, Actor, World

from broker.core.containers.ranges import RangeSet
from lender.client.retrying import retry_spec
from lender.protocol import subjects
from lender.protocol.codec import CONTENT_TYPE_HEADER, MSGPACK, decode, encode
from lender.protocol.ids import task_name
from lender.protocol.job import (
    PREPARE_S,
    After,
    AfterOn,
    Array,
    JobSpec,
    Limits,
    Requires,
    TaskRange,
    Verify,
)
from lender.protocol.result import Terminal
from lender.protocol.signature import SIGNATURE_HEADER, Signer
from lender.protocol.streams import JOBS, RESULTS

GIB = 1 << 30
PROGRAM = {"sha256": "ab" * 32, "size_bytes": 1000}
LARGE_PROGRAM = {"sha256": "cd" * 32, "size_bytes": 64 << 20}
"""Worth waiting for a machine that has it."""

LARGE_EVERY = 3
"""Of the jobs that have a program, about so many have the large one."""

DEVICE = "accel-hailo8"
"""What some ask for."""

AGAIN_S = (0.2, 1.0)
LOOK_S = 1.0


class JobPlan(NamedTuple):
    """A job that will be submitted; of its attempts some fail, some stall."""

    id: str
    submitter: int
    at: float
    count: int | None
    task_s: float
    fails_permille: int = 0
    retries: int = 0
    workload: str = "render"
    cpu: int = 1
    gpu: bool = False
    checkpoint: bool = False
    gang: bool = False
    broken: bool = False
    life_s: float = 86_400.0
    cancel_after_s: float | None = None
    after: tuple[tuple[str, AfterOn], ...] = ()
    """Jobs of the same submitter; one that never comes only where it has a short life."""
    queue_s: float | None = None
    prepare_s: float = PREPARE_S
    slow_permille: int = 0
    expected_s: float | None = None
    """What its submitter says that a task takes, which may be far from it."""
    verify: Verify | None = None
    pool: str = "default"
    device: bool = False
    """Whether it asks for an accelerator."""
    tasks: tuple[TaskRange, ...] = ()
    """Of an array: these indices alone."""
    separate: bool = False
    """Of an array: its tasks are jobs, and others may follow one of them."""
    tasks_cancelled: tuple[tuple[float, int], ...] = ()
    """Of an array: when after its submission which task is."""
    retried: bool = False
    """Whether what has not succeeded of it is submitted once more when it has ended."""


class Job:
    """A job, and what has become of it as the world knows, whatever anybody is told."""

    def __init__(self, plan: JobPlan, signer: Signer, spec: JobSpec | None = None) -> None:
        self.plan = plan
        self.signer = signer
        self.key = (signer.public_key, plan.id)
        self.accepted = False
        self.failed_runs: Counter[int] = Counter()
        self.spec = spec or self._make_spec()
        self.indices = RangeSet(plan.tasks or [(0, plan.count or 1)])
        payload = encode(self.spec)
        headers = {CONTENT_TYPE_HEADER: MSGPACK, SIGNATURE_HEADER: signer.sign(payload)}
        self.record = Record(subjects.submit(*self.key), payload, headers)

    @property
    def total(self) -> int:
        """Number of tasks."""
        return len(self.indices)

    def value(self, task: int) -> bytes:
        """Return what a task that succeeds comes to."""
        return f"{self.plan.id}/{task}".encode()

    def again(self, tasks: tuple[TaskRange, ...], now: float) -> "Job":
        """Return a new job of what has not succeeded of this one; `now` in simulated seconds."""
        id_ = f"again-{self.plan.id.replace('-', '')}-1"
        spec = retry_spec(self.spec, tasks, job=id_, now=EPOCH + now)
        plan = self.plan._replace(
            id=id_, at=now, cancel_after_s=None, tasks=tasks, tasks_cancelled=(), retried=False
        )
        return Job(plan, self.signer, spec)

    def _make_spec(self) -> JobSpec:
        plan = self.plan
        wasm = plan.workload == "render"
        large = int(plan.id.rpartition("-")[2]) % LARGE_EVERY == 0
        program = LARGE_PROGRAM if large else PROGRAM
        return JobSpec.model_validate(
            {
                "v": 1,
                "id": plan.id,
                "submitter": self.signer.public_key,
                "workload": plan.workload,
                "runtime": "wasm" if wasm else "process",
                "program": program if wasm else None,
                "argv": () if wasm else ("true",),
                "array": Array(count=plan.count, tasks=plan.tasks, separate=plan.separate)
                if plan.count
                else None,
                "limits": Limits(cpu=plan.cpu, prepare_s=plan.prepare_s),
                "requires": Requires(
                    pool=plan.pool,
                    labels=(DEVICE,) if plan.device else (),
                    gpu="nvidia" if plan.gpu else "none",
                    vram_bytes=GIB if plan.gpu else 0,
                ),
                "checkpoint": plan.checkpoint,
                "gang": plan.gang,
                "retries": plan.retries,
                "verify": plan.verify,
                "after": tuple(After(job=job, on=on) for job, on in plan.after),
                "queue_s": plan.queue_s,
                "expected_s": plan.expected_s,
                "created_at": EPOCH + plan.at,
                "not_after": EPOCH + plan.at + plan.life_s,
            }
        )


class Submitter(Actor):
    """One of them, with a line of its own."""

    def __init__(
        self,
        world: World,
        server: Server,
        name: str,
        hint: Callable[[], None],
        retries: Callable[[Job, Job], None],
    ) -> None:
        """Begin with nothing to submit.

        Args:
            world: that it lives in.
            server: that it publishes to.
            name: its own.
            hint: tells that the ledger has more.
            retries: tells of a job, and of the one that tries again what failed of it.
        """
        super().__init__(world, name)
        self.owed: dict[str, None] = {}
        """Jobs of which what fails is to be tried again."""
        self._server = server
        self._hint = hint
        self._retries = retries
        self._rng = world.rng(name)
        self.line = server.line(self, lambda _up: None)
        self.line.open()

    def plan(self, job: Job) -> None:
        """Submit a job at its time, and cancel it if that is planned."""
        at = job.plan.at
        self.world.at(at, self, self._publish, job.record, job)
        submitter, name = job.key
        cancels = [(after_s, task_name(name, task)) for after_s, task in job.plan.tasks_cancelled]
        if job.plan.cancel_after_s is not None:
            cancels.append((job.plan.cancel_after_s, name))
        for after_s, cancelled in cancels:
            cancel = Record(subjects.cancel(submitter, cancelled), b"")
            self.world.at(at + after_s, self, self._publish, cancel, None)
        if job.plan.retried:
            self.owed[job.plan.id] = None
            self.world.at(at + LOOK_S, self, self._look, job)

    def _look(self, job: Job) -> None:
        """Read how a job has ended, and submit what has not succeeded of it once more."""
        results = self._server.js.streams[RESULTS]

        def read() -> Ended | None:
            end = results.get_last(subjects.result(*job.key))
            if end is None:
                return None
            return Ended(job.spec, decode(Terminal, end.payload), tuple(results.messages.values()))

        def take(ended: object) -> None:
            if not isinstance(ended, Ended):
                self.after(LOOK_S, self._look, job)
                return
            del self.owed[job.plan.id]
            if ended.terminal.state not in ("succeeded", "rejected"):
                again = job.again(tasks_left(ended), self.world.now)
                self._retries(job, again)
                self._publish(again.record, again)

        self.line.call("publish", read, take)

    def _publish(self, record: Record, job: Job | None) -> None:
        self.line.call(
            "publish",
            lambda: self._server.store(JOBS, [record]),
            lambda answer: self._take(record, job, answer),
        )

    def _take(self, record: Record, job: Job | None, answer: object) -> None:
        match answer:
            case Stored():
                self._accepted(record, job)
            case Refused():
                self.line.call(
                    "publish",
                    lambda: self._server.js.streams[JOBS].get_last(record.subject),
                    lambda stored: self._compare(record, job, stored),
                )
            case _:
                self._again(record, job)

    def _compare(self, record: Record, job: Job | None, stored: object) -> None:
        """Refused: it is ours already, if the bytes are the same."""
        if isinstance(stored, Message):
            assert stored.payload == record.payload, "another job under our id"
            self._accepted(record, job)
        else:
            self._again(record, job)

    def _again(self, record: Record, job: Job | None) -> None:
        self.after(self._rng.uniform(*AGAIN_S), self._publish, record, job)

    def _accepted(self, record: Record, job: Job | None) -> None:
        self.world.note(self.name, f"is accepted: {record.subject.partition('.')[0]}")
        if job is not None:
            job.accepted = True
        self._hint()
