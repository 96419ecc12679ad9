"""What has to end now: by consent, by the owner's word, for the machine, or because time is up."""

from collections.abc import Iterator
from functools import partial

from lender.core.effects import Effect
from lender.core.hold import Hold
from lender.core.lease_run import LeaseRun
from lender.core.regulation import Regulation
from lender.core.restraint import GRACE_S, SAVE_ROOM_S
from lender.core.situation import Situation


def end_overdue(now: float, situation: Situation, regulation: Regulation) -> list[Effect]:
    """End it; level-triggered: nothing is left to end after this, until more happens."""
    effects: list[Effect] = []
    if now >= situation.consent.until:
        effects += _renew_consent(now, situation)
    consent, restraint, leases = situation.consent, situation.restraint, situation.leases
    verdict, attempts, drained = restraint.comfort.verdict, leases.attempts, situation.drained(now)
    closed = restraint.close_grants(now, consent.grants)
    consent.close(closed, gpu_work=verdict.gpu_work, metered=restraint.metered)
    # Once lenderd's time is over nobody is left to wait for a task, or to upload anything.
    evict = partial(leases.evict, now, save=not drained)
    holds, why = restraint.holds(now), Hold(verdict.reason)
    effects += evict(regulation.evicted(attempts, holds, restraint.cores, why))
    effects += evict(attempts.overdue(now))
    effects += leases.hand_back_unprepared(now)
    effects += evict(attempts.frozen_for(now, situation.config.frozen_handback_s))
    effects += evict(list(_ending_soon(now, situation)))
    if drained:
        hold = Hold("the lender shut down", told="the lender shut down")
        effects += evict([(run, hold) for run in attempts])
    effects += leases.give_up_saving(now, whatever=drained)
    return effects + _let_cool(now, situation)


def _renew_consent(now: float, situation: Situation) -> list[Effect]:
    consent = situation.consent
    before = consent.submitters
    consent.renew(now)
    effects = situation.leases.revoke(now, consent.withdrawn)
    gone = sorted(before - consent.submitters)
    return effects + [situation.leases.purge(submitter) for submitter in gone]


def _ending_soon(now: float, situation: Situation) -> Iterator[tuple[LeaseRun, Hold]]:
    """What leaves a checkpoint and has to be over soon is asked to end before that."""
    for at, why in situation.ends(now):
        if now >= at - GRACE_S:
            left_s = max(0.0, at - SAVE_ROOM_S - now)
            hold = Hold(why, told=why, evict=True, grace_s=left_s)
            yield from ((run, hold) for run in situation.leases.attempts if run.leaves_checkpoint)


def _let_cool(now: float, situation: Situation) -> list[Effect]:
    """Close kept sandboxes: too long idle, more than may be, or not under plain lending."""
    kept = situation.leases.attempts.kept
    if not kept:
        return []
    effects = kept.close(unless=lambda one: now < one.until and situation.may_keep(now, one.plan))
    return effects + kept.shrink(situation.spare.slots_total, situation.memory_free_bytes)
