"""Where one task of a job is, in words."""

from broker.core.answers.why import Reasons
from broker.core.jobs.job import Job
from broker.core.leasing.leases import Lease
from broker.core.state import State
from lender.protocol.query import TaskStatus

_KEY_CHARS_SHOWN = 8


def has(job: Job, task: int) -> bool:
    """Tell whether a job has such a task."""
    return any(first <= task < first + count for first, count in job.tasks)


def status_of(state: State, now: float, job: Job, task: int, reasons: Reasons) -> TaskStatus | None:
    """Return where a task of a live job is; None: it has its result, or is none of the job's."""
    if not has(job, task):
        return None
    if state.dependencies.left(job.key) or (job.is_gang and not state.gangs.runs(job)):
        return TaskStatus(task=task, state="waiting", why=reasons.why(job))
    leases = [lease for one in job.leases if task in (lease := state.leases[one]).open]
    if held := [_held(now, lease, task) for lease in leases if lease.holder is not None]:
        return TaskStatus(task=task, state="running", why="; ".join([*held, *_votes(job, task)]))
    waits = _handed_out(leases[0]) if leases else _rests_or_waits(job, task, reasons)
    if waits is None:
        return None
    return TaskStatus(task=task, state="waiting", why="; ".join([waits, *_votes(job, task)]))


def _held(now: float, lease: Lease, task: int) -> str:
    """Say who has it: a lender runs the tasks of a lease in their order."""
    assert lease.holder is not None, "asked of leases that are held"
    since_s = max(0.0, now - lease.held_at)
    where = f"attempt {lease.step.attempt} is with lender {lease.holder[:_KEY_CHARS_SHOWN]}"
    if lease.working_since is None:
        return f"{where} for {since_s:.0f} s, which prepares for it"
    if task != lease.open.first:
        return f"{where} for {since_s:.0f} s, behind task {lease.open.first}"
    return f"{where} for {since_s:.0f} s"


def _handed_out(lease: Lease) -> str:
    return f"attempt {lease.step.attempt} is handed out, waiting for a machine to take it"


def _rests_or_waits(job: Job, task: int, reasons: Reasons) -> str | None:
    """Say what a task waits for that is in no lease; None for one that has its result."""
    resting = next((one for one in job.resting if task in one.tasks), None)
    if resting is not None:
        return reasons.rests(job, resting)
    step = next((step for step, tasks in job.pending.items() if task in tasks), None)
    if step is None:
        return None
    return "waiting for a machine of another owner" if step.barred else reasons.not_leased(job)


def _votes(job: Job, task: int) -> list[str]:
    """Say how far the answers to it have come, of a job that is verified."""
    shared = job.shared.get(task)
    if shared is None or not shared.votes:
        return []
    return [f"{len(shared.votes)} of {shared.wanted} answers in"]
