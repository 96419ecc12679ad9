"""From what the streams hold back to what the broker knew."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from broker.core.containers.ranges import RangeSet
from broker.core.copies import sharing, votes
from broker.core.copies.votes import Round
from broker.core.durable.records import (
    CheckpointsSummary,
    ChunkSummary,
    RetriesSummary,
    Summary,
    TerminalSummary,
    VotesSummary,
)
from broker.core.effects import DeleteWork, SendControl, Warn
from broker.core.events import CancelReplayed, JobReplayed, LeaseReplayed, ResultReplayed
from broker.core.intake.admission import Rejection, admit
from broker.core.jobs import queue_time
from broker.core.jobs.checkpoints import Checkpoints
from broker.core.jobs.failures import Failures
from broker.core.jobs.job import FIRST_STEP, Job, JobKey, Step
from broker.core.jobs.lifecycle import (
    end,
    end_of_array,
    key_of,
    reject_submission,
    remember_ended,
    take_up,
)
from broker.core.jobs.retries import Retries
from broker.core.jobs.separate import ended_in, keys_of_tasks
from broker.core.jobs.task_cancel import cancel
from broker.core.leasing.feed import COPY_HEADER, FAILURES_HEADER
from broker.core.leasing.leases import Lease
from broker.core.leasing.locality import NEAR_HEADER
from broker.core.leasing.presence import RECONNECT_S
from broker.core.leasing.untaken import await_taking
from broker.core.state import State
from lender.protocol import lease as wire
from lender.protocol import subjects
from lender.protocol.codec import decode
from lender.protocol.errors import ProtocolError
from lender.protocol.job import TaskRange
from lender.protocol.lease import Control
from lender.protocol.subjects import (
    NoteSubject,
    parse_begun_subject,
    parse_checkpoints_subject,
    parse_job_subject,
    parse_retries_subject,
    parse_votes_subject,
)

_S = TypeVar("_S", bound=Summary)
_Parse = Callable[[str], NoteSubject | None]
_Take = Callable[[NoteSubject, ResultReplayed], None]


@dataclass(slots=True)
class _Progress:
    """What RESULTS holds of a job that has no terminal record."""

    begun: bool = False
    """Whether a lender has: no task is cancelled in an attempt of it."""
    tasks: RangeSet = field(default_factory=RangeSet)
    failed: int = 0
    failures: Failures = field(default_factory=Failures)
    attempt: int = 0
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    retries: Retries = field(default_factory=Retries)
    votes: dict[int, Round] = field(default_factory=dict)
    answered: dict[int, set[int]] = field(default_factory=dict)
    """By task: the attempts that such votes are of, each of which was one lease's."""
    votes_notes: int = 0

    def count(self, noted: VotesSummary) -> None:
        """Count one owner's votes; those on an earlier try count no longer."""
        for task, digest in noted.votes:
            failures, votes = self.votes.get(task, (0, {}))
            if noted.failures > failures:
                votes = {}
            self.votes[task] = noted.failures, {**votes, noted.owner: digest}
            self.answered.setdefault(task, set()).add(noted.attempt)

    def rounds(self) -> dict[int, Round]:
        """Return the votes that count: none on an attempt that was agreed to have failed."""
        failed = {times: self.retries.beyond(times) for times, _ in self.votes.values()}
        return {task: one for task, one in self.votes.items() if task not in failed[one[0]]}


@dataclass(frozen=True, slots=True)
class _Queued:
    """A lease that WORK holds."""

    attempt: int
    sequence: int
    id: str
    job: JobKey
    ranges: tuple[TaskRange, ...]
    failures: int
    near: str | None
    not_for: tuple[str, ...]
    copy_of: str | None


def _attempt_then_sequence(queued: _Queued) -> tuple[int, int]:
    return queued.attempt, queued.sequence


class Replay:
    """Takes RESULTS, WORK and JOBS, in this order, and at the end puts the state together.

    Before that it may take RESULTS and JOBS for as long as it likes, each from where it was: what
    has ended meanwhile is forgotten. So a broker that stands by keeps abreast.

    WORK holds the outstanding leases, RESULTS the settled tasks; what is in neither is pending.
    Where two leases have a task (a lost one whose message outlived the crash), the one with the
    higher attempt number has it; both have it where that is a copy of the other.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._ended: dict[JobKey, TerminalSummary | None] = {}
        """Of jobs that JOBS has not told of yet."""
        self._progress: dict[JobKey, _Progress] = {}
        self._unknown: list[JobKey] = []
        """Those of `_progress` that JOBS had not told of when they came."""
        self._rejected: dict[JobKey, Rejection] = {}
        self._cancelled: list[str] = []
        self._queued: list[_Queued] = []
        self._leased: set[JobKey] = set()
        self._copies: dict[str, list[Lease]] = {}
        """Leases that were taken up, by the one that each is a copy of."""
        self._notes: tuple[tuple[_Parse, _Take], ...] = (
            (parse_checkpoints_subject, self._checkpoints),
            (parse_votes_subject, self._votes),
            (parse_retries_subject, self._retries),
        )

    def result(self, event: ResultReplayed) -> None:
        """Take a record of RESULTS."""
        for parse, take in self._notes:
            note = parse(event.subject)
            if note is not None:
                take(note, event)
                return
        begun = parse_begun_subject(event.subject)
        if begun is not None:
            self._progress_of(JobKey(*begun)).begun = True
            return
        try:
            subject = parse_job_subject(event.subject)
        except ProtocolError as error:
            self._state.outbox.emit(Warn(f"RESULTS: not this broker's record, ignored: {error}"))
            return
        key = JobKey(subject.submitter, subject.job)
        if subject.first_task is None:
            self._end(key, TerminalSummary.load(event.headers))
        elif (chunk := self._load(ChunkSummary, event)) is not None:
            progress = self._noted(key, chunk.attempt)
            progress.tasks.add_all(chunk.tasks)
            progress.failed += chunk.failed
            if chunk.attempt:
                progress.failures.add(chunk.failed_tasks)
            else:
                progress.failures.cancel(chunk.tasks)
            for one, how in ended_in(key, chunk):
                self._state.dependencies.endings.note(one, how, chunk.ended_at or 0.0)

    def job(self, event: JobReplayed) -> bool:
        """Take a submission of JOBS; False where its submitter has too many for that."""
        key, state = key_of(event.subject), self._state
        if key in self._ended:
            self._remember(key, self._ended.pop(key))
            return True
        if key in state.jobs:
            return True  # its first message was purged since, and counts
        has_begun = key in self._progress or key in self._leased
        if not has_begun and state.quotas.overflows(key.submitter):
            return False
        admitted = admit(event.subject, event.headers, event.payload, submitters=None, now=None)
        if isinstance(admitted, Rejection):
            self._rejected[key] = admitted
            return True
        take_up(state, admitted)
        if state.history.was_cancelled_early(key):
            self._cancelled.append(subjects.cancel(*key))
        return True

    def cancelled(self, event: CancelReplayed) -> None:
        """Take a cancellation of JOBS."""
        self._cancelled.append(event.subject)

    def lease(self, event: LeaseReplayed) -> None:
        """Take a lease of WORK."""
        try:
            message = decode(wire.Lease, event.payload)
            failures = int(event.headers.get(FAILURES_HEADER, "0"))
        except (ProtocolError, ValueError) as error:
            self._state.outbox.emit(Warn(f"WORK {event.sequence}: no lease, deleted: {error}"))
            self._state.outbox.emit(DeleteWork(event.sequence))
            return
        key = JobKey(message.submitter, message.job)
        self._leased.add(key)
        self._queued.append(
            _Queued(
                message.attempt,
                event.sequence,
                message.lease,
                key,
                message.ranges,
                failures,
                event.headers.get(NEAR_HEADER),
                message.not_for,
                event.headers.get(COPY_HEADER),
            )
        )

    def caught_up(self) -> None:
        """JOBS was read to its end after RESULTS: what is known of no job there is not needed."""
        state = self._state
        self._ended.clear()
        for key in self._unknown:
            if key not in state.jobs:
                self._progress.pop(key, None)
        self._unknown.clear()
        cancelled, self._cancelled = self._cancelled, []
        for subject in cancelled:
            key = key_of(subject)
            if key in state.jobs or state.jobs.named_task(key) is not None:
                self._cancelled.append(subject)
            elif key not in state.history:
                state.history.note_early_cancel(key)

    def _end(self, key: JobKey, terminal: TerminalSummary | None) -> None:
        """A job has ended, whether or not JOBS has told of it by now."""
        state = self._state
        self._progress.pop(key, None)
        if terminal is not None and (
            terminal.state != "rejected" or key.submitter in state.submitters
        ):
            for one in (*keys_of_tasks(key, terminal.left or ()), key):
                state.dependencies.endings.note(one, terminal.state, terminal.ended_at)
        job = state.jobs.get(key)
        if job is not None:
            state.forget_job(job)
        elif self._rejected.pop(key, None) is None:
            self._ended[key] = terminal
            return
        self._remember(key, terminal)

    def _remember(self, key: JobKey, terminal: TerminalSummary | None) -> None:
        if terminal is not None:
            remember_ended(self._state, key, terminal, "")

    def _progress_of(self, key: JobKey) -> _Progress:
        progress = self._progress.get(key)
        if progress is None:
            progress = self._progress[key] = _Progress()
            if key not in self._state.jobs:
                self._unknown.append(key)
        return progress

    def _votes(self, note: NoteSubject, event: ResultReplayed) -> None:
        if (summary := self._load(VotesSummary, event)) is not None:
            progress = self._noted(JobKey(note.submitter, note.job), summary.attempt)
            progress.votes_notes = note.number + 1
            progress.count(summary)

    def _retries(self, note: NoteSubject, event: ResultReplayed) -> None:
        if (summary := self._load(RetriesSummary, event)) is not None:
            progress = self._noted(JobKey(note.submitter, note.job), summary.attempt)
            progress.retries.restore(note.number, summary)

    def _checkpoints(self, note: NoteSubject, event: ResultReplayed) -> None:
        if (summary := self._load(CheckpointsSummary, event)) is not None:
            progress = self._noted(JobKey(note.submitter, note.job), summary.attempt)
            progress.checkpoints.restore(note.number, summary.checkpoints)

    def _noted(self, key: JobKey, attempt: int) -> _Progress:
        """Return the progress of a job of which an attempt is known by now, unless it is 0."""
        progress = self._progress_of(key)
        progress.begun = progress.begun or attempt > 0
        progress.attempt = max(progress.attempt, attempt)
        return progress

    def _load(self, kind: type[_S], event: ResultReplayed) -> _S | None:
        """Read what a record's header says of it; what says nothing is ignored, and told of."""
        summary = kind.load(event.headers)
        if summary is None:
            self._state.outbox.emit(Warn(f"{event.subject}: not this broker's record, ignored"))
        return summary

    def complete(self, now: float) -> None:
        """Put the state together, end what has to end, and call the lenders."""
        state = self._state
        for key, rejection in self._rejected.items():
            reject_submission(state, now, key, rejection)
        unclaimed: dict[JobKey, RangeSet] = {}
        for job in state.jobs:
            unclaimed[job.key] = self._unsettled(job)
        attempts = self._adopt_leases(now, unclaimed)
        for job in list(state.jobs):
            if job.settled == job.total:
                end(state, now, job, end_of_array(job))
                continue
            if job.after and job.state == "queued" and not job.leases:
                state.dependencies.add(job.key, job.after)
                continue
            self._begin(now, job, attempts.get(job.key, 0), unclaimed[job.key])
            # Who holds one of its leases has the time to say so.
            grace_until = now + RECONNECT_S if job.leases else 0.0
            queue_time.start(state, job, grace_until)
            state.enqueue(job)
        for subject in self._cancelled:
            cancel(state, now, subject)
        state.outbox.emit(SendControl(subjects.ALL_LENDERS, Control(kind="hello")))

    def _begin(self, now: float, job: Job, attempt: int, pending: RangeSet) -> None:
        """Let the tasks that are open in no lease wait, each at its step."""
        anew = votes.resume(self._state, job, attempt, pending) if job.shared else {}
        if (progress := self._progress.get(job.key)) is not None:
            for failures, tasks in progress.retries.take_from(pending):
                anew.setdefault(Step(attempt + 1, failures), RangeSet()).add_all(tasks)
        job.begin(now, Step(attempt + 1, 0) if attempt else FIRST_STEP, pending)
        for step, tasks in anew.items():
            job.begin(now, step, tasks)

    def _unsettled(self, job: Job) -> RangeSet:
        unsettled = RangeSet(job.tasks)
        progress = self._progress.get(job.key)
        if progress is not None:
            unsettled.remove_all(progress.tasks)
            self._state.dependencies.separate.settle(job.key, progress.tasks)
            job.failed = progress.failed
            job.failures = progress.failures
            job.succeeded = len(progress.tasks) - progress.failed
            if progress.begun:
                job.enter("running")
            if job.checkpoints is not None:
                progress.checkpoints.keep(unsettled)
                job.checkpoints = progress.checkpoints
            job.retries_notes = progress.retries.notes
            if job.verify is not None:
                votes.restore(job, job.verify, progress.rounds(), unsettled)
                job.votes_notes = progress.votes_notes
        return unsettled

    def _adopt_leases(self, now: float, unclaimed: dict[JobKey, RangeSet]) -> dict[JobKey, int]:
        """Take up the leases that still have something to do; delete the other messages.

        Returns:
            The highest attempt number seen of each live job.
        """
        nothing = RangeSet()
        attempts = {key: progress.attempt for key, progress in self._progress.items()}
        for queued in sorted(self._queued, key=_attempt_then_sequence, reverse=True):
            attempts[queued.job] = max(attempts.get(queued.job, 0), queued.attempt)
            if not self._adopt(now, queued, unclaimed.get(queued.job, nothing)):
                self._state.outbox.emit(DeleteWork(queued.sequence))
        return attempts

    def _adopt(self, now: float, queued: _Queued, unclaimed: RangeSet) -> bool:
        state = self._state
        if queued.id in state.leases:
            return False
        tasks = RangeSet(queued.ranges)
        failed = self._retried(queued.job, queued.failures)
        if self._is_answered(queued.job, tasks, failed):
            state.leases.remember(now, queued.id, None)  # its holder may not have got the answer
            return False
        job = state.jobs.get(queued.job)
        if job is None:
            return False
        copies = self._copies.get(queued.id, ())
        open_tasks = unclaimed.overlap(tasks)
        open_tasks.remove_all(failed)
        if job.verify is not None:
            self._drop_answered(queued, open_tasks)
            open_tasks = votes.adoptable(job, job.verify, queued.failures, open_tasks)
        else:
            unclaimed.remove_all(open_tasks)
            for copy in copies:
                open_tasks.add_all(copy.open.overlap(tasks))
                self._share(job, copy, open_tasks)
        if not open_tasks:
            return False
        job.verified = True  # else it would not stand in WORK
        lease = Lease(
            id=queued.id,
            job=queued.job,
            need=job.need,
            step=Step(queued.attempt, queued.failures),
            ranges=tasks.pairs(),
            task_count=len(tasks),
            open=open_tasks,
            fed_at=now,
            sequence=queued.sequence,
            near=queued.near,
            not_for=queued.not_for,
        )
        state.add_lease(job, lease)
        await_taking(state, lease, now + RECONNECT_S)
        if queued.copy_of is not None:
            self._copies.setdefault(queued.copy_of, []).append(lease)
        state.open_classes.add(lease.queue)
        return True

    def _drop_answered(self, queued: _Queued, tasks: RangeSet) -> None:
        """Take out what the lease's holder has answered, so that others' leases have it."""
        progress = self._progress.get(queued.job)
        for task, attempts in progress.answered.items() if progress is not None else ():
            if queued.attempt in attempts:
                tasks.remove(task)

    def _share(self, job: Job, copy: Lease, open_tasks: RangeSet) -> None:
        for task in sharing.indices(copy.open.overlap(open_tasks)):
            shared = sharing.share(job, copy, task)
            if task == open_tasks.first:  # what waits behind that is not copied
                shared.copied = True
                job.copies += 1

    def _retried(self, key: JobKey, failures: int) -> RangeSet:
        progress = self._progress.get(key)
        return RangeSet() if progress is None else progress.retries.beyond(failures)

    def _is_answered(self, key: JobKey, tasks: RangeSet, failed: RangeSet) -> bool:
        progress = self._progress.get(key)
        if progress is not None:
            left = RangeSet(tasks)
            left.remove_all(progress.tasks)
            left.remove_all(failed)
            return not left
        ended = self._state.dependencies.endings.get(key)
        return ended is not None and ended.state in ("succeeded", "failed")
