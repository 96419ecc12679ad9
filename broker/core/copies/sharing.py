"""Tasks that several lenders have at a time: none is lost with one of them, or counted twice."""

from collections.abc import Iterable, Iterator

from broker.core.containers.ranges import RangeSet
from broker.core.copies.shared import SharedTask, owner_of
from broker.core.effects import SendControl
from broker.core.jobs.job import Job, Step
from broker.core.leasing.leases import Lease
from broker.core.state import State
from lender.protocol.job import TaskRange
from lender.protocol.lease import Control


def share(job: Job, lease: Lease, task: int) -> SharedTask:
    """Return what is known of a task that a lease has, and from now on others may have too."""
    shared = job.shared.get(task)
    if shared is None:
        shared = SharedTask(lease.step.attempt, lease.step.failures, {lease.id: None})
        job.shared[task] = shared
    return shared


def owners(state: State, shared: SharedTask) -> tuple[str, ...]:
    """Return the owners whose lenders have the task, or have answered."""
    holders = (state.leases[lease].holder for lease in shared.leases)
    return tuple(
        sorted({owner_of(one) for one in holders if one is not None} | shared.votes.keys())
    )


def is_barred(state: State, lease: Lease, lender: str) -> bool:
    """Tell whether a lender is not to hold a lease, since its owner has, or had, the same tasks."""
    shared, owner = state.jobs[lease.job].shared, owner_of(lender)
    if not shared:
        return False
    return any(
        owner in owners(state, shared[task]) for task in indices(lease.open) if task in shared
    )


def let_go(state: State, job: Job, lease: Lease) -> dict[Step, RangeSet]:
    """Take a lease's open tasks from it; returns, by step, what is to be leased anew."""
    step = Step(lease.step.attempt + 1, lease.step.failures)
    if not job.shared:
        return {step: lease.open}
    anew: dict[Step, RangeSet] = {}
    for task in indices(lease.open):
        shared = job.shared.get(task)
        if shared is None:
            anew.setdefault(step, RangeSet()).add(task)
        else:
            del shared.leases[lease.id]
            ask(state, task, shared, anew)
    return anew


def ask(state: State, task: int, shared: SharedTask, anew: dict[Step, RangeSet]) -> None:
    """Let a task wait for a lease more, if an answer is missing.

    One at a time: only when it is known who has taken a lease the next one can leave him out.
    """
    if shared.missing > 0 and may_ask(state, shared):
        shared.attempt += 1
        shared.waits = True
        step = Step(shared.attempt, shared.failures, owners(state, shared))
        anew.setdefault(step, RangeSet()).add(task)


def may_ask(state: State, shared: SharedTask) -> bool:
    """Tell whether it is known whom the next lease of a task has to leave out."""
    return not shared.waits and all(
        state.leases[lease].holder is not None for lease in shared.leases
    )


def is_in_work(state: State, shared: SharedTask, task: int) -> bool:
    """Tell whether a task's turn has come in one of its leases: they are run in their order."""
    return any(state.leases[lease].open.first == task for lease in shared.leases)


def settle(state: State, job: Job, lease: Lease, task: int) -> int:
    """Take a shared task from wherever it is, since its result is there.

    Leases in which nothing is left are cancelled at once: what they bring is stale.

    Returns:
        The highest attempt number that it was leased under.
    """
    shared = job.shared.pop(task)
    for lease_id in shared.leases:
        other = state.leases[lease_id]
        other.open.remove(task)
        if not other.open and other is not lease:
            withdraw(state, other)
    if shared.waits:
        job.take_back(task)
        state.backlog.tidy(state.backlog.group_of(job))
    return shared.attempt


def withdraw(state: State, lease: Lease) -> None:
    """End a lease that has nothing left to do: its message is deleted, its holder stops it."""
    if lease.holder is not None:
        control = Control(kind="cancel", leases=(lease.id,))
        state.outbox.emit(SendControl(lease.holder, control))
    state.give_up(lease)


def told(job: Job) -> str:
    """Return what its submitter may want to know of the shared tasks of a job."""
    copied = sum(one.copied and one.missing < 0 for one in job.shared.values())
    if not copied:
        return ""
    tasks = "1 task runs" if copied == 1 else f"{copied} tasks run"
    return f"{tasks} on one machine more, since the first takes far longer than usual"


def indices(ranges: Iterable[TaskRange]) -> Iterator[int]:
    """Yield the tasks one by one."""
    for first, count in ranges:
        yield from range(first, first + count)
