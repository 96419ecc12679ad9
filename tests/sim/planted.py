"""Bugs to be planted one at a time, to see that the simulation finds each: what is patched, where.

| Bug | Patched |
|---|---|
| the fencing check is dropped | `broker.core.leasing.leases.Leases.was_finished_by`: always true |
| acknowledged before the commit | `broker.core.outbox.Outbox.after_commit`: leaves at once |
| no requeue after a revoke | `broker.core.leasing.reports._hand_back_rest`: nothing for `revoked` |
| a range is leased twice | `broker.core.jobs.job.Job.take`: its first task stays pending |
| a revoke counts as a retry | `broker.core.leasing.reports._hand_back_rest`: one failure more |
| a gang goes on without one | `broker.core.gangs.gathering.scatter`: nothing |
| an answer is not noted | `broker.core.copies.votes.notes`: none |
| a lost copy is put back | `broker.core.copies.sharing.let_go`: as if none else had its tasks |
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from broker.core.containers.ranges import RangeSet
from broker.core.copies import sharing, votes
from broker.core.gangs import gathering
from broker.core.jobs.job import Job, Step
from broker.core.leasing import reports
from broker.core.leasing.leases import Lease, Leases
from broker.core.outbox import Outbox
from broker.core.state import State
from lender.protocol.lease import Done

_hand_back_rest = reports._hand_back_rest
_take = Job.take


def _forget_revoked(state: State, now: float, lease: Lease, lender: str, done: Done) -> None:
    if done.outcome != "revoked":
        _hand_back_rest(state, now, lease, lender, done)


def _punish_revoked(state: State, now: float, lease: Lease, lender: str, done: Done) -> None:
    if done.outcome != "revoked":
        _hand_back_rest(state, now, lease, lender, done)
        return
    job = state.jobs[lease.job]
    job.put_back(Step(lease.step.attempt + 1, lease.step.failures + 1), lease.open)
    state.enqueue(job)


def _take_and_leave(job: Job, step: Step, count: int, ranges_max: int) -> RangeSet:
    taken = _take(job, step, count, ranges_max)
    first = next(iter(taken))[0]
    job.put_back(Step(step.attempt + 1, step.failures), [(first, 1)])
    return taken


def _let_go_of_all(_state: State, _job: Job, lease: Lease) -> dict[Step, RangeSet]:
    return {Step(lease.step.attempt + 1, lease.step.failures): lease.open}


PLANTED: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "the fencing check is dropped": (Leases, "was_finished_by", lambda *_: True),
    "acknowledged before the commit": (Outbox, "after_commit", Outbox.emit),
    "no requeue after a revoke": (reports, "_hand_back_rest", _forget_revoked),
    "a range is leased twice": (Job, "take", _take_and_leave),
    "a revoke counts as a retry": (reports, "_hand_back_rest", _punish_revoked),
    "a gang goes on without one": (gathering, "scatter", lambda *_: None),
    "an answer is not noted": (votes, "notes", lambda *_: []),
    "a lost copy is put back": (sharing, "let_go", _let_go_of_all),
}


@contextlib.contextmanager
def planted(bug: str) -> Iterator[None]:
    """Have a bug for a while."""
    where, name, instead = PLANTED[bug]
    with mock.patch.object(where, name, instead):
        yield
