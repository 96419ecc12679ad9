"""What holds now: consent, machine and leases together, and what owner and broker hear of it."""

from lender.core.admission import Plan
from lender.core.config import Config
from lender.core.effects import SendOffer
from lender.core.events import Capabilities, DiskSampled
from lender.core.headroom import Spare
from lender.core.hold import NEEDED_HERE
from lender.core.leases import HELD_MAX, Leases
from lender.core.lender_state import Grounds, derive
from lender.core.offering import OfferPace
from lender.core.restraint import Restraint
from lender.core.status import AttemptStatus, LenderStatus
from lender.core.valid_consent import ValidConsent
from lender.protocol.bounds import LABELS_MAX, OFFERED_BYTES_MAX
from lender.protocol.classes import own_queue
from lender.protocol.devices import devices_of
from lender.protocol.lease import LenderPhase, Offer

State = tuple[LenderPhase, str]
"""A lender's state, and the reason for it in words."""


class Situation:
    """All that decides what may be lent. Events change its parts; what is derived is read anew.

    Attributes:
        config: the lender's settings.
        own_queue: where the broker puts what this lender is to have.
        consent: which grants hold.
        restraint: what was said and read last.
        leases: what is held.
        spare: the machine's cores and memory.
        disk: the last reading of it; None before the first.
        capabilities: what the self-test has shown; None before it ended.
        found: labels of what else was found in the machine.
        connected: a broker can be reached.
        token_classes: what our token opens at the server; None: all that there is.
        drain_deadline: when lenderd ends; None while it goes on.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.own_queue = own_queue(config.lender)
        self.consent = ValidConsent(config)
        self.restraint = Restraint(config)
        self.leases = Leases()
        self.spare = Spare(self.restraint.comfort, config.slots, config.memory_bytes)
        self.disk: DiskSampled | None = None
        self.capabilities: Capabilities | None = None
        self.found: tuple[str, ...] = ()
        self.connected = False
        self.token_classes: frozenset[str] | None = None
        self.drain_deadline: float | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """What is lent, as far as the operator's word reaches."""
        lent, opened = self.consent.classes, self.token_classes
        return lent if opened is None else tuple(one for one in lent if one in opened)

    @property
    def queues(self) -> frozenset[str]:
        """What may be pulled from: the classes that are lent, and with any the lender's own."""
        classes = self.classes
        return frozenset((*classes, self.own_queue) if classes else ())

    @property
    def labels(self) -> tuple[str, ...]:
        """By what the machine may be asked for: what its owner calls it, and what was found."""
        return tuple(dict.fromkeys((*self.config.labels, *self.found)))[:LABELS_MAX]

    @property
    def labels_lent(self) -> tuple[str, ...]:
        """The same without the devices that no grant allows now: they are nobody's business."""
        lent = {device for grant in self.consent.open.grants for device in grant.devices}
        return tuple(one for one in self.labels if one in lent or not devices_of((one,)))

    @property
    def online(self) -> bool:
        """Whether there is somebody to offer to, and something to offer."""
        return self.connected and self.capabilities is not None

    @property
    def memory_free_bytes(self) -> int:
        """What could be lent beside the leases that run."""
        return self.spare.memory_free_bytes(self.leases.attempts.memory_committed_bytes)

    def disk_free_bytes(self, committed_bytes: int = 0) -> int | None:
        """Return what working folders could take beside `committed_bytes`; None: not known yet.

        What leases may still write is counted as used, and also what they have written.
        """
        if self.disk is None:
            return None
        spare_bytes = self.disk.free_bytes - self.config.disk_kept_bytes - committed_bytes
        return max(0, min(spare_bytes, OFFERED_BYTES_MAX))

    def slots_free(self, state: State) -> int:
        """Return how many more cores could be lent in this state, that of now."""
        if state[0] != "lending" or len(self.leases) >= HELD_MAX:
            return 0
        running = self.leases.attempts
        return self.spare.slots_free(running.cpu_committed, running.memory_committed_bytes)

    def may_keep(self, now: float, plan: Plan) -> bool:
        """Tell whether a sandbox of `plan` may stay, idle, for more of its job.

        Only while all is as it is when lending: whatever else holds leaves nothing behind.
        """
        lends = self.state(now)[0] == "lending" and self.restraint.comfort.verdict.new_work
        restraint = self.restraint
        return lends and plan.grant.id not in restraint.closed and not restraint.bars_network(plan)

    def drained(self, now: float) -> bool:
        """Tell whether lenderd's time is over."""
        return self.drain_deadline is not None and now >= self.drain_deadline

    def ends(self, now: float) -> list[tuple[float, str]]:
        """Return the times that are known when running work has to be over, and why."""
        ends = (
            (self.drain_deadline, "the lender shut down"),
            (self.restraint.finishes_by(now), "the time to finish is over"),
        )
        return [(at, why) for at, why in ends if at is not None]

    def state(self, now: float) -> State:
        """Return the lender's state at `now`, and the reason for it in words."""
        consent, restraint = self.consent, self.restraint
        paused, draining = restraint.word(now, any_run=len(self.leases.attempts) > 0)
        offline = None if self.connected else "not connected to the broker"
        if self.capabilities is None:
            offline = "the sandboxes' self-test has not ended yet"
        grounds = Grounds(
            paused=paused,
            unconsented=consent.lacking,
            draining=draining if self.drain_deadline is None else "shutting down: nothing new",
            offline=offline,
            yielding=restraint.yielding(
                any_grant=bool(consent.grants),
                any_open=len(consent.closed) < len(consent.grants),
            ),
            lending=restraint.comfort.verdict.reason,
        )
        return derive(grounds)

    def offer(self, now: float, pace: OfferPace, state: State) -> list[SendOffer]:
        """Return the offer, if one is due; `state` is that of `now`."""
        if not self.online or pace.waits(now):
            return []
        phase, reason = state
        slots_free = self.slots_free(state)
        consent, leases = self.consent, self.leases
        blobs = self.disk.blobs if self.disk is not None else ()
        classes = self.classes
        lent = (classes, consent.nets, consent.digest)
        labels = self.labels_lent
        states = leases.states()
        ready = tuple(lease for lease, _, is_ready in states if is_ready)
        says = (phase, *lent, labels, blobs, ready, leases.attempts.fresh)
        if not pace.due(now, says, (slots_free, states), holding=len(leases) > 0):
            return []
        assert self.capabilities is not None, "it is online"
        offer = Offer(
            lender=self.config.lender,
            name=self.config.name,
            phase=phase,
            reason=told(phase, reason),
            slots_total=self.spare.slots_total,
            slots_free=slots_free,
            cpu_free=self.spare.cpu_free(leases.attempts.cpu_committed),
            memory_free_bytes=self.memory_free_bytes,
            vram_free_bytes=self.spare.vram_free_bytes(leases.attempts.vram_committed_bytes),
            disk_free_bytes=self.disk_free_bytes(leases.attempts.disk_committed_bytes),
            stay_s=self.restraint.stay_s(now, consent.open.grants),
            arch=self.capabilities.arch,
            os=self.capabilities.os,
            labels=labels,
            runtimes=tuple(sorted(self.capabilities.runtimes)),
            classes=classes,
            consent_digest=consent.digest,
            net=consent.nets,
            blobs=blobs,
            leases=leases.held(),
        )
        return [SendOffer(offer)]

    def status(self, now: float) -> LenderStatus:
        """Return the view that `lender status` shows."""
        phase, reason = state = self.state(now)
        consent, restraint, leases = self.consent, self.restraint, self.leases
        return LenderStatus(
            phase=phase,
            reason=reason,
            connected=self.connected,
            slots_total=self.spare.slots_total,
            slots_free=self.slots_free(state),
            cpu_free=self.spare.cpu_free(leases.attempts.cpu_committed),
            memory_free_bytes=self.memory_free_bytes,
            attempts=tuple(AttemptStatus.of(run) for run in leases.attempts),
            saving=tuple(AttemptStatus.of(run) for run in leases.saving),
            warm=tuple(one.plan.spec.id for one in leases.attempts.kept),
            leases_unanswered=len(leases) - len(leases.attempts),
            grants=tuple(consent.grants.values()),
            closed={id_: hold.reason for id_, hold in restraint.closed.items()},
            classes=self.classes,
            consent_digest=consent.digest,
            intent=restraint.intent,
            behind_s=restraint.behind_s,
            verdict=restraint.comfort.verdict,
            signals=restraint.comfort.signals,
            asleep=restraint.asleep,
        )


def told(phase: LenderPhase, reason: str) -> str:
    """Return what others are told of the reason: nothing of the owner's presence or habits."""
    return {"lending": "", "yielding": NEEDED_HERE}.get(phase, reason)
