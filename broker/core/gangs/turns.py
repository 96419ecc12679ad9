"""Which of the gangs that wait are leased: those with room for all, and whose turn it is."""

from collections.abc import Set as AbstractSet
from heapq import nsmallest

from broker.core.gangs.gang import Gang
from broker.core.gangs.gathering import gather, scatter, settle
from broker.core.jobs.job import Job
from broker.core.jobs.lifecycle import verified
from broker.core.matching.lender import Lender
from broker.core.matching.places import free_places, lent_places, places_ever
from broker.core.state import Due, State

LOOK_S = 1.0
"""Between two looks at gangs that wait: each costs a walk through the lenders of their class."""

LOOKS_MAX = 16
"""Gangs that are looked at in one go."""

LOOKS_OF_ONE_MAX = 4
"""And of one submitter."""

_LOOK = Due("gangs", ())


def look(state: State, now: float) -> None:
    """Lease the gangs that may gather now, if it is time to look.

    Each is leased whole. Where there is room for all of it, at once. In its turn also where others
    hold that room: its members take what comes free, and are kept there until all have a place.
    Gangs that share lenders do so one after another, so that none waits for what another keeps.
    """
    gangs = state.gangs
    if gangs.look_at is None or now < gangs.look_at:
        return
    saved, gangs.saved = gangs.saved, {}
    _end_hopeless(state, now)
    for gang in _in_order(state):
        _look_at(state, now, gang)
    for submitter in saved.keys() - gangs.saved.keys():
        state.let_back(submitter)
    if gangs.ready or any(gang.phase == "gathering" for gang in gangs.open):
        gangs.look_at = now + LOOK_S
        state.due.set(_LOOK, gangs.look_at)
    else:
        gangs.look_at = None
        state.due.drop(_LOOK)


def its_turn(state: State, job: Job) -> bool:
    """Tell whether a gang goes before whatever else could be leased.

    That is so if no other submitter that is being served has had less, and if of its own jobs none
    comes first for which some lender could make room. Who waits for a machine that isn't there
    holds nobody up.
    """
    shares, turns = state.shares, state.backlog.turns
    submitter = job.key.submitter
    served = (one for one in turns if one != submitter and shares.holds_any(one))
    level = shares.level(submitter)
    return _is_first_of_its_own(state, job) and all(shares.level(one) >= level for one in served)


def _is_first_of_its_own(state: State, job: Job) -> bool:
    first = state.backlog.turns.first_of(job.key.submitter)
    if first is None or first.rank >= job.rank:
        return True
    lenders = state.fleet.of_class(first.need.class_token)
    return not lent_places(lenders, first.need, 1)


def lenders_for(state: State, now: float, job: Job) -> list[Lender]:
    """Return the lenders of a gang's class, but for those that refused it lately."""
    lenders = state.fleet.of_class(job.class_token)
    return [one for one in lenders if not job.avoids(one.id, now)]


def _end_hopeless(state: State, now: float) -> None:
    """Let go of what is held for others that can't come any more: too little is lent by now.

    Those that came back while their submitter had its most are leased again.
    """
    for gang in [one for one in state.gangs.open if one.phase == "gathering"]:
        job = gang.job
        left, lenders = job.total - job.settled, state.fleet.of_class(job.class_token)
        if lent_places(lenders, job.need, left) < left:
            scatter(state, job)
        elif job.pending:
            _save(state, job)
            state.gangs.touch(job)
    settle(state, now)


def _save(state: State, job: Job) -> None:
    """Keep what a gang wants of the tasks that its submitter may have handed out, if it has a most.

    Else other work of the same submitter would take each as it comes free.
    """
    submitter, wanted = job.key.submitter, job.pending_count
    most = state.quotas.of(submitter).running_tasks_max
    if most is not None and wanted <= most:
        state.gangs.saved[submitter] = max(wanted, state.gangs.saved.get(submitter, 0))


def _in_order(state: State) -> list[Gang]:
    """Return some that are ready: of the submitter that has had least, what came first.

    Nobody waits behind those that the fleet could not ever hold.
    """
    firsts = (
        (one.too_large, state.shares.level(submitter), one.job.rank, one.job.order, one)
        for submitter in state.gangs.ready
        for one in state.gangs.first_ready(submitter, LOOKS_OF_ONE_MAX)
    )
    return [entry[-1] for entry in nsmallest(LOOKS_MAX, firsts)]


def _look_at(state: State, now: float, gang: Gang) -> None:
    job = gang.job
    lenders, wanted = lenders_for(state, now, job), job.pending_count
    if not verified(state, now, job):
        return
    if _is_first_of_its_own(state, job) and lent_places(lenders, job.need, wanted) == wanted:
        _save(state, job)
    if state.quotas.room(job.key.submitter) < wanted:
        return
    free = list(free_places(lenders, job.need, state.leases.waiting.keys(), wanted))
    if len(free) == wanted:
        gather(state, now, gang, free)
    elif lent_places(lenders, job.need, wanted) == wanted:
        keep = {one.job.class_token for one in state.gangs.open}
        if not _share(lenders, keep) and its_turn(state, job):
            gather(state, now, gang)
    else:
        ever = places_ever(state.fleet.of_class(job.class_token), job.need)
        gang.too_large = ever < wanted
        state.gangs.note(gang)


def _share(lenders: list[Lender], classes: AbstractSet[str]) -> bool:
    return bool(classes) and any(not classes.isdisjoint(one.classes) for one in lenders)
