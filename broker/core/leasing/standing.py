"""Who keeps a pull waiting in the empty queue of a class, so that a lease is taken as it comes.

Whenever a message comes to a queue, or a pull, the server looks at every pull that waits there
(nats-server 2.15, `consumer.processWaiting`): twice a lease. So where many lenders list a class a
few of them stand in its queue, for a while, and others after them. The rest pull when they are
told, which is when more waits than those who stand have slots for.

Nobody can be sure of those who stand: what was left to them, and nobody takes, is told to the
lender in whose room it is counted, and others stand from then on.
"""

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

from broker.core.leasing.leases import Lease
from broker.core.matching.lender import Lender
from broker.core.state import Due, State

STANDING_MAX: Final = 16
"""Lenders that stand in the queue of a class. Where no more list it, all of them do, always."""

STAND_S: Final = 60.0
"""For so long each of them."""

HELP_S: Final = 2.5
"""For so long the others, when they are told: longer than it takes until they may be told again."""

LEFT_S: Final = 0.25
"""For so long a lease is left to those who stand: an offer tells 0.05 s later who has it."""

_LOOK: Final = 64
"""Lenders that are looked at for some who may stand."""

_EARLY_S: Final = 1.0
"""So much before its time nobody counts on a lender any more."""


def are_few(state: State, class_token: str) -> bool:
    """Tell whether no more lenders list a class than may stand in its queue."""
    return state.fleet.count_of(class_token) <= STANDING_MAX


def places(
    state: State, now: float, lender_id: str, class_tokens: Iterable[str]
) -> dict[float | None, list[str]]:
    """Return for how long a lender that is told of queues is to stay in which, and note it."""
    found: dict[float | None, list[str]] = {}
    for token in sorted(class_tokens):
        found.setdefault(_stand_s(state, now, lender_id, token), []).append(token)
    return found


def leave(state: State, now: float, lease: Lease) -> bool:
    """Leave a lease to those who stand in the queue of its class, if they have a slot for it.

    Not one that some may not take, or did not want.

    Returns:
        Whether it was left to them: then nobody is to be told of it.
    """
    token = lease.class_token
    if _is_for_all(state, token) or lease.not_for or state.jobs[lease.job].avoided:
        return False
    slots = sum(one.may_begin(lease.need) for one in _who_stands(state, now, token))
    if slots < state.leases.waiting[token]:
        return False
    state.leases.leave(lease, left=True)
    state.stands.left.setdefault(token, deque()).append((now, lease))
    due = Due("left", (token,))
    if due not in state.due:
        state.due.set(due, now + LEFT_S)
    return True


def recruits(state: State, now: float, lease: Lease) -> list[Lender]:
    """Return who is to stand in the queue of a lease's class from now on, beside those who do.

    These are others each time, and for each class: it is them that jobs go to which come alone.
    """
    token, stands = lease.class_token, state.stands
    if _is_for_all(state, token):
        return []
    there = {one.id for one in _who_stands(state, now, token)}
    if len(there) >= STANDING_MAX:
        return []
    listed = list(state.fleet.of_class(token))
    first = stands.turn % len(listed)
    stands.turn += _LOOK
    looked_at = (listed[first:] + listed[:first])[:_LOOK]
    found = (one for one in looked_at if one.id not in there and one.may_begin(lease.need))
    return list(islice(found, STANDING_MAX - len(there)))


def take_late(state: State, now: float, class_token: str) -> list[Lease]:
    """Return what was left to those who stand and was not taken in time: nobody counts on them."""
    left = state.stands.left.pop(class_token)
    waiting = deque((at, lease) for at, lease in left if lease.is_left)
    late = []
    while waiting and waiting[0][0] + LEFT_S <= now:
        late.append(waiting.popleft()[1])
        state.leases.leave(late[-1], left=False)
    if late:
        state.stands.forget(class_token)
    if waiting:
        state.stands.left[class_token] = waiting
        state.due.set(Due("left", (class_token,)), waiting[0][0] + LEFT_S)
    return late


def _stand_s(state: State, now: float, lender_id: str, class_token: str) -> float | None:
    if are_few(state, class_token):
        return None
    there = _who_stands(state, now, class_token)
    if len(there) >= STANDING_MAX and all(one.id != lender_id for one in there):
        return HELP_S
    state.stands.put(class_token, lender_id, now + STAND_S - _EARLY_S)
    return STAND_S


def _who_stands(state: State, now: float, class_token: str) -> list[Lender]:
    there = []
    for one in state.stands.of(now, class_token):
        lender = state.fleet.get(one)
        if lender is None:
            state.stands.drop(class_token, one)
        else:
            there.append(lender)
    return there


def _is_for_all(state: State, class_token: str) -> bool:
    """Tell whether all pull from a queue anyway: they are few, or more waits than some can take."""
    return are_few(state, class_token) or state.leases.waiting[class_token] > STANDING_MAX
