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
| any number of jobs is taken | `broker.core.intake.quotas.Quotas.full`: never |
| an ended job counts on | `broker.core.intake.quotas.Quotas.end`: nothing |
| any number of tasks is handed out | `broker.core.intake.quotas.Quotas.room`: always |
| who was passed over is forgotten | `broker.core.matching.groups.Turns.sink`: not of such a one |
| what is put off is forgotten | `broker.core.intake.arrivals.Arrivals.put_off`: nothing |
| the oldest lane goes first | `broker.core.intake.lanes.Lanes.take`: whatever it has cost |
| jobs of any pool are taken | `broker.core.intake.admission._check_pool`: nothing |
| an array's every index runs | `lender.protocol.job.JobSpec.task_ranges`: all of them |
| a job ends with its message alone | `broker.core.jobs.dependencies.Dependencies.end_tasks` |
| a cancelled task waits on | `broker.core.jobs.job.Job.take_back`: nothing |
| a device is in nobody's hands | `lender.core.attempts.Attempts.devices_in_use`: none |
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from broker.core.containers.ranges import RangeSet
from broker.core.copies import sharing, votes
from broker.core.gangs import gathering
from broker.core.intake import admission
from broker.core.intake.arrivals import Arrivals
from broker.core.intake.lanes import Lanes
from broker.core.intake.quotas import Quotas
from broker.core.jobs.dependencies import Dependencies
from broker.core.jobs.job import Job, Step
from broker.core.leasing import reports
from broker.core.leasing.leases import Lease, Leases
from broker.core.matching.groups import Turns
from broker.core.outbox import Outbox
from broker.core.state import State
from lender.core.attempts import Attempts
from lender.protocol.job import JobSpec, TaskRange
from lender.protocol.lease import Done

_hand_back_rest = reports._hand_back_rest
_take = Job.take
_take_from_lane = Lanes.take
_sink = Turns.sink


def _forget_revoked(state: State, now: float, lease: Lease, lender: str, done: Done) -> None:
    if done.outcome != "revoked":
        _hand_back_rest(state, now, lease, lender, done)


def _punish_revoked(state: State, now: float, lease: Lease, lender: str, done: Done) -> None:
    if done.outcome != "revoked":
        _hand_back_rest(state, now, lease, lender, done)
        return
    job = state.jobs[lease.job]
    job.put_back({Step(lease.step.attempt + 1, lease.step.failures + 1): lease.open})
    state.enqueue(job)


def _take_and_leave(job: Job, step: Step, count: int, ranges_max: int) -> RangeSet:
    taken = _take(job, step, count, ranges_max)
    first = next(iter(taken))[0]
    job.put_back({Step(step.attempt + 1, step.failures): [(first, 1)]})
    return taken


def _let_go_of_all(_state: State, _job: Job, lease: Lease) -> dict[Step, RangeSet]:
    return {Step(lease.step.attempt + 1, lease.step.failures): lease.open}


def _sink_unless_passed_over(turns: Turns, submitter: str) -> None:
    if submitter in turns._levels:
        _sink(turns, submitter)


def _take_oldest(lanes: Lanes[Any]) -> object | None:
    oldest = next(iter(lanes._lanes), None)
    if oldest is not None:
        lanes._turns.set(oldest, -1.0)
    return _take_from_lane(lanes)


def _every_index(spec: JobSpec) -> tuple[TaskRange, ...]:
    return ((0, spec.task_end),)


PLANTED: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "the fencing check is dropped": (Leases, "was_finished_by", lambda *_: True),
    "acknowledged before the commit": (Outbox, "after_commit", Outbox.emit),
    "no requeue after a revoke": (reports, "_hand_back_rest", _forget_revoked),
    "a range is leased twice": (Job, "take", _take_and_leave),
    "a revoke counts as a retry": (reports, "_hand_back_rest", _punish_revoked),
    "a gang goes on without one": (gathering, "scatter", lambda *_: None),
    "an answer is not noted": (votes, "notes", lambda *_: []),
    "a lost copy is put back": (sharing, "let_go", _let_go_of_all),
    "any number of jobs is taken": (Quotas, "full", lambda *_: None),
    "an ended job counts on": (Quotas, "end", lambda *_: None),
    "any number of tasks is handed out": (Quotas, "room", lambda *_: 1 << 62),
    "who was passed over is forgotten": (Turns, "sink", _sink_unless_passed_over),
    "what is put off is forgotten": (Arrivals, "put_off", lambda *_: None),
    "the oldest lane goes first": (Lanes, "take", _take_oldest),
    "jobs of any pool are taken": (admission, "_check_pool", lambda *_: None),
    "an array's every index runs": (JobSpec, "task_ranges", property(_every_index)),
    "a job ends with its message alone": (Dependencies, "end_tasks", lambda *_: None),
    "a cancelled task waits on": (Job, "take_back", lambda *_: None),
    "a device is in nobody's hands": (Attempts, "devices_in_use", property(lambda _: frozenset())),
}


@contextlib.contextmanager
def planted(bug: str) -> Iterator[None]:
    """Have a bug for a while."""
    where, name, instead = PLANTED[bug]
    with mock.patch.object(where, name, instead):
        yield
