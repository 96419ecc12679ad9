"""Tasks that several owners' machines answer: what is asked of whom, and which answer counts."""

from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from broker.core.containers.ranges import RangeSet
from broker.core.copies import sharing
from broker.core.copies.shared import SharedTask, owner_of
from broker.core.durable.records import VotesSummary, votes_record
from broker.core.effects import Record
from broker.core.jobs.job import Job, Step
from broker.core.leasing.leases import Lease
from broker.core.state import State
from lender.protocol.job import Verify
from lender.protocol.lease import Done
from lender.protocol.result import TaskResult

Round = tuple[int, dict[str, str]]
"""How often a task's work had failed before, and the digest of each owner's answer since."""

_DIGEST_CHARS = 32
_SHOWN_CHARS = 8
_ERROR_CHARS_MAX = 2_000

_NOTED_MAX = 1_000
"""Answers in one note: a stream takes headers of up to 64 KiB, and each is up to 45 bytes."""


class Verdict(NamedTuple):
    """The result that counts, and under which number its task was leased last."""

    result: TaskResult
    attempt: int
    retries: bool
    """Whether a failure may be tried again."""


def answers_max(verify: Verify) -> int:
    """Return how many answers are asked for at most, where they differ."""
    return 2 * verify.replicas


def digest_of(result: TaskResult) -> str:
    """Return what makes two answers equal: state, exit code, value and outputs.

    How long it took and what was written to standard error may differ. The first letter tells a
    failure from a success.
    """
    blob = result.value_blob
    value = blob.sha256 if blob is not None else sha256(result.value).hexdigest()
    parts = [result.state, str(result.exit_code), value]
    parts += sorted(f"{one.sha256} {one.name}" for one in result.outputs)
    return result.state[0] + sha256("\n".join(parts).encode()).hexdigest()[:_DIGEST_CHARS]


def begin(state: State, job: Job, lease: Lease) -> None:
    """A lender has taken tasks that are to be verified: have the next one answer, too.

    Of a spot check it is decided here, since now it is known whom it would check.
    """
    assert job.verify is not None, "asked of jobs that are verified"
    assert lease.holder is not None, "and of leases that are held"
    anew: dict[Step, RangeSet] = {}
    owner = owner_of(lease.holder)
    for task in sharing.indices(lease.open):
        shared = job.shared.get(task)
        if shared is None or shared.wanted == 1:
            if job.verify.spot_check and not state.reputation.is_checked(owner):
                continue
            shared = sharing.share(job, lease, task)
            shared.wanted = job.verify.replicas
        sharing.ask(state, task, shared, anew)
    job.put_back(anew)
    state.enqueue(job)


def count(state: State, job: Job, lease: Lease, result: TaskResult) -> Verdict | None:
    """Take up one answer to a task that several lenders have; None: others' are waited for."""
    shared = job.shared[result.task]
    del shared.leases[lease.id]
    if job.verify is None or shared.wanted == 1:
        if result.state == "failed" and sharing.is_in_work(state, shared, result.task):
            return None  # the other goes on
        return Verdict(result, sharing.settle(state, job, lease, result.task), retries=True)
    return _vote(state, job, job.verify, lease, result)


def asked_beyond(shared: SharedTask, verify: Verify) -> int:
    """Return how many answers have to be there for a quorum to be possible."""
    return max(shared.wanted, len(shared.votes) + verify.quorum - shared.agreeing)


def notes(job: Job, lease: Lease, fresh: Iterable[TaskResult]) -> list[Record]:
    """Return what keeps the answers of a report that have not decided anything yet."""
    if not job.shared:
        return []
    assert lease.holder is not None, "who reports holds the lease"
    owner = owner_of(lease.holder)
    votes = tuple(
        (one.task, shared.votes[owner])
        for one in fresh
        if (shared := job.shared.get(one.task)) is not None and owner in shared.votes
    )
    records = []
    for first in range(0, len(votes), _NOTED_MAX):
        some = votes[first : first + _NOTED_MAX]
        summary = VotesSummary(owner, lease.step.attempt, lease.step.failures, some)
        records.append(votes_record(*job.key, job.votes_notes, summary))
        job.votes_notes += 1
    return records


def refused_by_one(lease: Lease, done: Done, fresh: Iterable[TaskResult]) -> list[TaskResult]:
    """Return what it means for a lease's other tasks that its lender says that none can be run.

    Of a job that is verified no lender alone may say so: it is one answer to each of them.
    """
    told_of = {one.task for one in fresh}
    error = f"{done.field or 'payload'}: {done.reason}"[:_ERROR_CHARS_MAX]
    return [
        TaskResult(task=task, state="failed", error=error)
        for task in sharing.indices(lease.open)
        if task not in told_of
    ]


def told(job: Job) -> str:
    """Return how far the answers to the tasks of a job have come."""
    voted = [one for one in job.shared.values() if one.votes]
    if not voted:
        return ""
    differ = sum(one.agreeing < len(one.votes) for one in voted)
    if job.is_array:
        tasks = "1 task waits" if len(voted) == 1 else f"{len(voted)} tasks wait"
        return f"{tasks} for more answers; those to {differ} of them differ so far"
    (one,) = voted
    there = f"{len(one.votes)} of {one.wanted} answers in"
    if len(one.votes) == 1:
        return there
    return f"{there}, they {'differ' if differ else 'agree'}"


def wants(job: Job) -> str:
    """Return what a job waits for of whose waiting tasks each has been with somebody already."""
    others = bool(job.pending) and all(step.barred for step in job.pending)
    return "waiting for a machine of another owner" if others else ""


def restore(job: Job, verify: Verify, rounds: Mapping[int, Round], unsettled: RangeSet) -> None:
    """Take up the answers that an earlier broker had noted, to tasks without a result."""
    for task, (failures, votes) in rounds.items():
        if task in unsettled:
            shared = SharedTask(0, failures, wanted=verify.replicas, votes=votes)
            shared.wanted = asked_beyond(shared, verify)
            job.shared[task] = shared


def adoptable(job: Job, verify: Verify, failures: int, tasks: RangeSet) -> RangeSet:
    """Return which of these tasks, of a lease that a replay has found, want one more lease."""
    wanting = RangeSet()
    for task in sharing.indices(tasks):
        shared = job.shared.get(task)
        if shared is None or failures > shared.failures:
            # Of a spot check two leases alone show that there is one.
            wanted = 1 if verify.spot_check else verify.replicas
            shared = job.shared[task] = SharedTask(0, failures, wanted=wanted)
        elif shared.wanted == 1:
            shared.wanted = verify.replicas
        if failures == shared.failures and shared.missing > 0:
            wanting.add(task)
    return wanting


def resume(state: State, job: Job, attempt: int, unsettled: RangeSet) -> dict[Step, RangeSet]:
    """Return what has to be leased, by step, after a replay; the rest stays in `unsettled`."""
    anew: dict[Step, RangeSet] = {}
    for task, shared in job.shared.items():
        unsettled.remove(task)
        shared.attempt = max(shared.attempt, attempt)
        sharing.ask(state, task, shared, anew)
    return anew


def _vote(
    state: State, job: Job, verify: Verify, lease: Lease, result: TaskResult
) -> Verdict | None:
    task, shared = result.task, job.shared[result.task]
    assert lease.holder is not None, "who reports holds the lease"
    digest = shared.votes[owner_of(lease.holder)] = digest_of(result)
    if sum(vote == digest for vote in shared.votes.values()) >= verify.quorum:
        if verify.quorum > 1:
            for owner, vote in shared.votes.items():
                state.reputation.note(owner, valid=vote == digest)
        return Verdict(result, sharing.settle(state, job, lease, task), retries=True)
    wanted = asked_beyond(shared, verify)
    if wanted > answers_max(verify):
        failed = TaskResult(task=task, state="failed", error=_differing(shared, verify))
        return Verdict(failed, sharing.settle(state, job, lease, task), retries=False)
    shared.wanted = wanted
    anew: dict[Step, RangeSet] = {}
    sharing.ask(state, task, shared, anew)
    job.put_back(anew)
    return None


def _differing(shared: SharedTask, verify: Verify) -> str:
    """Say how the answers differ that can't agree."""
    counts = Counter(shared.votes.values()).most_common()
    words = {"s": "succeeded", "f": "failed"}
    answers = ", ".join(
        f"{times} x {words[digest[0]]} ({digest[1 : 1 + _SHOWN_CHARS]})" for digest, times in counts
    )
    machines = f"{len(shared.votes)} machines gave answers that differ"
    return f"{machines}, {verify.quorum} had to agree: {answers}"
