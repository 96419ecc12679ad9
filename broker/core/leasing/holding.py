"""Who holds a lease, and what becomes of its tasks when it ends without their results."""

from math import inf

from broker.core.answers.queries import status_of
from broker.core.answers.why import Reasons
from broker.core.copies import sharing, votes
from broker.core.effects import PublishEvent, SendControl
from broker.core.jobs import queue_time
from broker.core.leasing.leases import Lease
from broker.core.matching.fleet import OFFER_TTL_S
from broker.core.state import Due, State
from lender.protocol import subjects
from lender.protocol.codec import CONTENT_TYPE_HEADER, encode
from lender.protocol.lease import LEASE_TTL_S, Control

STATE_HEADER = "Lender-State"
"""Of an event that is no copy of a record: the state that the job has entered."""

LOOK_S = 1.0
"""While anything is held: how often somebody looks for tasks that take too long."""

LOOK = Due("copies", ())


def take(state: State, now: float, lease: Lease, lender: str, *, ends: bool = False) -> bool:
    """Let a lender hold a lease that it took; not one that has, or had, the same tasks.

    One that knows itself named in the lease leaves it in the queue.
    """
    if not sharing.is_barred(state, lease, lender):
        hold(state, now, lease, lender, ends=ends)
        return True
    set_back(state, now, lease, "taken by a machine that has the same task", lender)
    state.give_up(lease)
    return False


def hold(state: State, now: float, lease: Lease, lender: str, *, ends: bool = False) -> None:
    """Note the lender that took a lease; its job is running.

    Args:
        state: the broker's.
        now: seconds since the epoch.
        lease: nobody's until now.
        lender: who has it.
        ends: the job is about to end, which is told then: that it runs is no news.
    """
    state.leases.hold(lease, lender)
    state.figures.lease_waited(now - lease.fed_at)
    if lease.is_for_some:
        state.due.drop(Due("lease", (lease.id,)))
    lease.held_at = now
    state.copies.pop(lease.id, None)
    if LOOK not in state.due:
        state.due.set(LOOK, now + LOOK_S)
    state.shares.start(lease.job.submitter, lease.need)
    if state.fleet.get(lender) is not None:
        state.claim(lease, lender)
    watch(state, now, lender)
    job = state.jobs[lease.job]
    if job.is_gang:
        state.gangs.touch(job)
    if job.verify is not None:
        votes.begin(state, job, lease)
    if job.state == "queued":
        job.enter("running")
        state.figures.job_waited(now - job.submitted_at)
        if not job.is_gang:  # that begins when all of it is held
            queue_time.stop(state, job)
        if ends:
            return
        headers = {CONTENT_TYPE_HEADER: job.content_type, STATE_HEADER: job.state}
        payload = encode(status_of(state, job, Reasons(state, now)), job.content_type)
        state.outbox.emit(PublishEvent(subjects.event(*lease.job), headers, payload))


def watch(state: State, now: float, lender_id: str) -> None:
    """See to it that a lender's silence is noticed."""
    lender = state.fleet.get(lender_id)
    at = silent_at(state, lender_id, lender.heard_at if lender is not None else now)
    due = Due("lender", (lender_id,))
    # A check that comes too early is put off then: most offers need no new entry.
    if at < state.due.get(due, inf):
        state.due.set(due, at)


def silent_at(state: State, lender_id: str, heard_at: float) -> float:
    """Return when a lender last heard at `heard_at` counts as gone."""
    return heard_at + (LEASE_TTL_S if state.leases.holds_any(lender_id) else OFFER_TTL_S)


def hand_back(state: State, lease: Lease) -> None:
    """Take a lease's open tasks back, to be leased anew under a higher attempt number."""
    job = state.jobs[lease.job]
    job.put_back(sharing.let_go(state, job, lease))
    state.enqueue(job)


def set_back(state: State, now: float, lease: Lease, reason: str, lender: str | None) -> None:
    """Take a lease's open tasks back, to be leased anew after a rest."""
    job = state.jobs[lease.job]
    job.set_back(now, sharing.let_go(state, job, lease), reason, lender)
    state.enqueue(job)


def lose(state: State, lease: Lease) -> None:
    """Give up on a lease: its message is deleted, its tasks are leased anew."""
    if lease.holder is not None:
        state.figures.attempts_lost += len(lease.open)
    hand_back(state, lease)
    state.give_up(lease)


def cancel_stray(state: State, lender: str, lease_ids: list[str]) -> None:
    """Stop leases that a lender holds but that are not, or no longer, its own."""
    if lease_ids:
        control = Control(kind="cancel", leases=tuple(lease_ids))
        state.outbox.emit(SendControl(lender, control))
