"""What becomes of a lease that a queue delivered: it runs, goes back untouched, or is answered."""

from dataclasses import replace
from typing import Final
from zlib import crc32

from lender.core.admission import Plan, Refused, Rules, admit
from lender.core.effects import Effect, ReturnLease
from lender.core.events import Capabilities, LeaseDelivered
from lender.core.hold import NEEDED_HERE
from lender.core.lease_run import LeaseRun
from lender.core.leases import HELD_MAX
from lender.core.pulling import Pulls
from lender.core.situation import Situation, told
from lender.protocol.bounds import MEMORY_BYTES_MAX
from lender.protocol.devices import devices_of
from lender.protocol.lease import Outcome

NO_SLOT_DELAY_S: Final = 0.1
NO_GPU_DELAY_S: Final = 1.0
NO_DEVICE_DELAY_S: Final = 1.0
FOR_OTHERS_DELAY_S: Final = 0.1
FOR_OTHERS_DELAY_MAX_S: Final = 10.0
FOR_OTHERS_TIMES: Final = 16
"""As often as all of them may hand it back who are not to take it; then nobody is there who is."""
_SPREAD: Final = 0.5
"""Two leases that are each for the other of two machines would else come to the wrong one for ever,
both at the same time: a queue gives what is there to whose pulls wait in the order of both."""


def take_up(now: float, event: LeaseDelivered, situation: Situation, pulls: Pulls) -> list[Effect]:
    """Decide on a delivered lease; one that may run here at all is begun if there is room."""
    pulls.brought(now, event.work_class)
    if event.ends_pull:
        pulls.ended(now, event.work_class, refused=False)
    delivery, lease, leases = event.delivery, event.lease, situation.leases
    known = leases.delivered_again(now, delivery, lease)
    if known is not None:
        return known
    if lease.is_barred(situation.config.lender):
        # Untouched: others may take it.
        return [ReturnLease(delivery, _for_others_s(event, situation.config.lender))]
    if len(leases) >= HELD_MAX:
        return [ReturnLease(delivery, NO_SLOT_DELAY_S)]
    phase, reason = state = situation.state(now)
    outcome: Outcome
    if phase != "lending" or situation.capabilities is None:
        outcome = "refused" if phase == "unconsented" else "evicted"
        why = f"{phase}: {told(phase, reason)}"
        return leases.hand_back(now, delivery, lease, outcome, why)
    rules = _rules(situation, situation.capabilities)
    plan = admit(now, lease, event.work_class, rules)
    if isinstance(plan, Refused):
        outcome, why = "refused", plan.reason
        whole = _whole(rules, situation, situation.capabilities)
        if not isinstance(admit(now, lease, event.work_class, whole), Refused):
            outcome, why = "evicted", NEEDED_HERE  # closed, or no GPU work, for now
        return leases.hand_back(now, delivery, lease, outcome, why)
    return _begin(now, event, plan, situation, situation.slots_free(state), pulls)


def _for_others_s(event: LeaseDelivered, lender: str) -> float:
    """Return for how long a lease that is not for us is kept from being given to us again."""
    doublings = min(max(0, event.times - FOR_OTHERS_TIMES), 10)
    usual_s = min(FOR_OTHERS_DELAY_MAX_S, FOR_OTHERS_DELAY_S * (1 << doublings))
    chance = crc32(f"{event.lease.lease}.{lender}.{event.times}".encode()) / (1 << 32)
    return usual_s * (1 - _SPREAD + 2 * _SPREAD * chance)


def _begin(
    now: float,
    event: LeaseDelivered,
    plan: Plan,
    situation: Situation,
    slots_free: int,
    pulls: Pulls,
) -> list[Effect]:
    """Run an admitted lease, or return it until there is room; refuse what was done before."""
    delivery, leases = event.delivery, situation.leases
    attempts, replayed = leases.attempts, leases.replayed(plan, event.lease)
    if replayed is not None:
        return leases.hand_back(now, delivery, event.lease, "refused", replayed)
    requires, limits, free_bytes = plan.spec.requires, plan.spec.limits, situation.memory_free_bytes
    disk_bytes = situation.disk_free_bytes(attempts.disk_committed_bytes)
    no_disk = disk_bytes is not None and limits.scratch_bytes > disk_bytes
    if limits.cpu > slots_free or limits.memory_bytes > free_bytes or no_disk:
        pulls.turned_away(event.work_class)
        return [ReturnLease(delivery, NO_SLOT_DELAY_S)]
    gpu = None
    if requires.gpu != "none":
        gpu = situation.spare.gpu_with(requires.vram_bytes, attempts.vram_committed_bytes)
        if gpu is None:
            pulls.rest(now, event.work_class)
            return [ReturnLease(delivery, NO_GPU_DELAY_S)]
    if not attempts.devices_in_use.isdisjoint(devices_of(requires.labels)):
        pulls.rest(now, event.work_class)
        return [ReturnLease(delivery, NO_DEVICE_DELAY_S)]
    pulls.served(event.work_class)
    run = LeaseRun(now, event.lease, plan, gpu)
    return leases.start(now, delivery, run, free_bytes)


def _rules(situation: Situation, capabilities: Capabilities) -> Rules:
    """What is allowed right now."""
    return Rules(
        consent=situation.consent.open,
        capabilities=situation.consent.lent(capabilities),
        workloads=situation.config.workloads,
        slots_total=situation.spare.slots_total,
        memory_free_bytes=situation.spare.memory_free_bytes(),
        disk_free_bytes=situation.disk_free_bytes(),
        vram_free_bytes=situation.spare.vram_free_bytes(),
        processes_max=situation.config.processes_max,
        labels=situation.labels,
        pools=situation.config.pools,
        lender=situation.config.lender,
        own_queue=situation.own_queue,
    )


def _whole(rules: Rules, situation: Situation, capabilities: Capabilities) -> Rules:
    """The same without what is closed only for now."""
    whole = replace(rules, consent=situation.consent.consent)
    if situation.consent.gpu_work:
        return whole
    return replace(whole, capabilities=capabilities, vram_free_bytes=MEMORY_BYTES_MAX)
