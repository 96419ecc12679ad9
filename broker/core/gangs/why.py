"""What a gang waits for, in words."""

from broker.core.gangs.turns import its_turn, lenders_for
from broker.core.jobs.job import Job
from broker.core.matching.places import free_places, lent_places, places_ever
from broker.core.state import State


def why_gang(state: State, now: float, job: Job) -> str:
    """Return what a gang waits for that does not rest, and whose tasks somebody could run."""
    left = job.total - job.settled
    what = f"a gang of {left}"
    if job.leases:
        leases = [state.leases[lease_id] for lease_id in job.leases]
        held = [lease.id for lease in leases if lease.open and lease.holder is not None]
        ready = len(state.gangs[job.key].ready.intersection(held))
        return f"{what}: {len(held)} of {left} places taken, {ready} ready, waiting for the others"
    ever = places_ever(state.fleet.of_class(job.class_token), job.need)
    if ever < left:
        return f"{what} can't ever run at once: the fleet has {_places(ever)} for it"
    room = state.quotas.room(job.key.submitter)
    if room < left:
        return f"{what}: no more than {room} of your tasks may be handed out now"
    lenders = lenders_for(state, now, job)
    lent = lent_places(lenders, job.need, left)
    if lent < left:
        return f"{what}: the fleet lends {_places(lent)} for it now"
    waiting = state.leases.waiting.keys()
    free = sum(1 for _ in free_places(lenders, job.need, waiting, left))
    turn = "" if its_turn(state, job) else ", and other work comes first"
    return f"{what}: {free} of {left} places free now{turn}"


def _places(count: int) -> str:
    return "1 place" if count == 1 else f"{count} places"
