"""What lenders say of themselves, and what their silence says."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from broker.core.effects import SendControl, Warn
from broker.core.enrolment.bound import Bound
from broker.core.gangs import gathering
from broker.core.leasing import locality, standing, untaken
from broker.core.leasing.holding import cancel_stray, lose, set_back, silent_at, take, watch
from broker.core.leasing.leases import UNLISTED_GRACE_S, Lease
from broker.core.matching.lender import Lender
from broker.core.matching.need import Need
from broker.core.state import Due, State
from lender.protocol.codec import decode
from lender.protocol.errors import ProtocolError
from lender.protocol.lease import Control, HeldLease, LeaseState, Offer

REMIND_S = 2.0
"""A lender with free slots that leaves work in its queues is told of them again, this often."""

RECONNECT_S = 4.0
"""A lender's longest pause between two tries to reconnect: it is not silent before that."""

_AT_WORK: Final[tuple[LeaseState, ...]] = ("running", "frozen")


def hear_offer(state: State, now: float, lender_id: str, payload: bytes) -> None:
    """Take up an offer: who is there, with which room, holding which leases."""
    try:
        offer = decode(Offer, payload)
    except ProtocolError as error:
        state.outbox.emit(Warn(f"offer of {lender_id}: {error}"))
        return
    if offer.lender != lender_id:
        state.outbox.emit(Warn(f"offer of {lender_id} speaks for {offer.lender}"))
        return
    offer = _within_bound(state, offer)
    lender, added = state.fleet.hear(now, offer, _held_needs(state, offer))
    watch(state, now, lender_id)
    if offer.leases or state.leases.holds_any(lender_id):
        _match_leases(state, now, lender_id, offer.leases)
    if len(state.gangs):
        gathering.hear(state, lender_id, offer.leases)
    if offer.phase == "offline":
        _give_up(state, lender_id)
        return
    opened = {one for one in added & state.open_classes if standing.are_few(state, one)}
    _tell_open(state, now, lender, opened)
    _remind(state, now, lender)


def bind(state: State, now: float, bounds: Mapping[str, Bound]) -> None:
    """Take up whom the operator lets lenders work for, also those that have offered already.

    What one holds goes on; what waits for it alone, and lies beyond its bound, is taken back.
    """
    state.bounds = bounds
    for lender in list(state.fleet):
        offer = _within_bound(state, lender.offer)
        if offer is lender.offer:
            continue
        state.fleet.hear(lender.heard_at, offer, _held_needs(state, offer))
        for lease in [state.leases[one] for one in lender.claims]:
            waits = lease.near == lender.id and lease.holder is None
            if waits and lease.class_token not in lender.classes:
                set_back(state, now, lease, untaken.NOT_TAKEN, lender.id)
                state.give_up(lease)


def tell_fed(state: State, now: float, lease: Lease) -> None:
    """A lease waits in the queue of its class: tell those who may not know of it.

    The first one of a class opens it, for all that list it where those are few. Any is told to the
    lender in whose room it is counted: it may have begun anew, and lenders that are no good for the
    lease may take it before every reminder. Where many list it, that lender has no pull that waits,
    unless it is one of those that stand there (`standing`).
    """
    token = lease.class_token
    if lease.near is not None:
        locality.tell_fed(state, lease)
        return
    if token not in state.open_classes:
        state.open_classes.add(token)
        if standing.are_few(state, token):
            for lender in state.fleet.of_class(token):
                _tell_open(state, now, lender, {token})
    if lease.holder is None and not standing.leave(state, now, lease):
        _tell_claimed(state, now, lease)
        for lender in standing.recruits(state, now, lease):
            _tell_open(state, now, lender, {token})


def _tell_left(state: State, now: float, class_token: str) -> None:
    """Leases were left to those who stand in the queue of a class: tell of what nobody took."""
    for lease in standing.take_late(state, now, class_token):
        _tell_claimed(state, now, lease)


def fall_due(state: State, now: float, due: Due) -> None:
    """The time is up for a lender, for a lease, or for what was left to those who stand."""
    what = {"lender": _notice_silence, "lease": _end_grace, "left": _tell_left}[due.kind]
    what(state, now, due.name[0])


def _notice_silence(state: State, now: float, lender_id: str) -> None:
    """The time is up for a lender that may have spoken since: give it up, or wait on."""
    lender = state.fleet.get(lender_id)
    if lender is None:
        _lose_held(state, lender_id)
        return
    if silent_at(state, lender_id, lender.heard_at) <= now:
        _give_up(state, lender_id)
    else:
        watch(state, now, lender_id)


def _end_grace(state: State, now: float, lease_id: str) -> None:
    """Its holder no longer lists the lease, nor has it reported the end of it: it is lost.

    Or it is not meant for all, and waits for somebody to take it.
    """
    lease = state.leases[lease_id]
    if lease.holder is None and lease.near is not None:
        set_back(state, now, lease, untaken.NOT_TAKEN, lease.near)
        state.give_up(lease)
    elif lease.holder is not None or untaken.is_outdated(state, lease):
        lose(state, lease)
    else:
        untaken.await_taking(state, lease, now)


def restore_hearing(state: State, now: float) -> None:
    """Lenders can be heard again: give each the time to reconnect and speak up."""
    state.deaf = False
    state.fleet.hear_all(now + RECONNECT_S)
    for due, at in state.due.items():
        if due.kind in ("queue", "lease"):
            state.due.set(due, max(at, now + RECONNECT_S + UNLISTED_GRACE_S))


def _within_bound(state: State, offer: Offer) -> Offer:
    """Return the offer without the classes that the operator has not approved the lender for.

    The server opens it no queue of theirs; what is put into its own queue is for us to heed.
    """
    bound = state.bounds.get(offer.lender)
    classes = offer.classes if bound is None else bound.within(offer.classes)
    if len(classes) == len(offer.classes):
        return offer
    return offer.model_copy(update={"classes": classes})


def _held_needs(state: State, offer: Offer) -> Iterator[Need]:
    listed = (state.leases.get(held.lease) for held in offer.leases)
    return (lease.need for lease in listed if lease is not None)


def _match_leases(state: State, now: float, lender_id: str, listed: tuple[HeldLease, ...]) -> None:
    strays = []
    for held in listed:
        lease = state.leases.get(held.lease)
        if lease is None:
            # Its holder lists it until its report is answered, which takes a commit: to let go of
            # it before that would leave its results with us alone. Who lists it for longer was
            # given it once more, after a restart.
            if not state.leases.awaits_answer(now, held.lease, lender_id):
                strays.append(held.lease)
        elif lease.holder == lender_id or (
            lease.holder is None and take(state, now, lease, lender_id)
        ):
            state.due.drop(Due("lease", (lease.id,)))
            if held.state in _AT_WORK:
                lease.works(now)
        else:
            strays.append(held.lease)
    cancel_stray(state, lender_id, strays)
    listed_ids = {held.lease for held in listed}
    for lease in state.leases.held_by(lender_id):
        grace = Due("lease", (lease.id,))
        if lease.id not in listed_ids and grace not in state.due:
            state.due.set(grace, now + UNLISTED_GRACE_S)


def _lose_held(state: State, lender_id: str) -> None:
    for lease in state.leases.held_by(lender_id):
        lose(state, lease)


def _give_up(state: State, lender_id: str) -> None:
    _lose_held(state, lender_id)
    state.due.drop(Due("lender", (lender_id,)))
    for lease_id in state.fleet.forget(lender_id):
        lease = state.leases[lease_id]
        # Whoever is left of those that may not take it would hand it back for ever.
        if lease.is_for_some:
            lose(state, lease)
        else:
            state.leases.claim(lease, None)
            state.stir(lease.need)


def _tell_open(state: State, now: float, lender: Lender, class_tokens: AbstractSet[str]) -> None:
    if class_tokens:
        lender.reminded_at = now
        for stand_s, tokens in standing.places(state, now, lender.id, class_tokens).items():
            control = Control(kind="open", classes=tuple(tokens), stand_s=stand_s)
            state.outbox.emit(SendControl(lender.id, control))


def _tell_claimed(state: State, now: float, lease: Lease) -> None:
    claimed = None if lease.claim is None else state.fleet.get(lease.claim)
    if claimed is not None and _may_remind(claimed, now):
        _tell_open(state, now, claimed, {lease.class_token})


def _remind(state: State, now: float, lender: Lender) -> None:
    if _may_remind(lender, now):
        waiting, left = state.leases.waiting, state.leases.left
        untaken = {one for one in lender.classes & waiting.keys() if waiting[one] > left[one]}
        _tell_open(state, now, lender, untaken & state.open_classes)


def _may_remind(lender: Lender, now: float) -> bool:
    idle = lender.offer.phase == "lending" and lender.offer.slots_free > 0
    return idle and lender.reminded_at + REMIND_S <= now
