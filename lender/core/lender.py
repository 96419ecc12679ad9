"""The daemon's decisions: `handle(now, event)` returns what the shell is to do, in order."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from lender.core.admission import Refused, Rules, admit
from lender.core.config import Config
from lender.core.effects import (
    Effect,
    Exit,
    LetSleep,
    PurgeSubmitter,
    ReturnLease,
    SendOffer,
)
from lender.core.events import (
    BrokerConnected,
    BrokerDisconnected,
    BrokerGreeted,
    Capabilities,
    CapabilitiesFound,
    ClassesOpened,
    ConsentLoaded,
    DrainRequested,
    Event,
    IntentLoaded,
    LeaseDelivered,
    LeaseMalformed,
    LeasesCancelled,
    MachineSampled,
    PreparationFailed,
    PullEnded,
    ReportAnswered,
    SandboxGone,
    SandboxPrepared,
    SleepAnnounced,
    StandstillSeen,
    TasksEnded,
    TimeAdvanced,
    UsageMetered,
    UsageRecalled,
    WallClockRead,
    WokenUp,
)
from lender.core.headroom import Spare
from lender.core.hold import NEEDED_HERE, Hold
from lender.core.leases import HELD_MAX, Leases
from lender.core.lender_state import Grounds, derive
from lender.core.offering import OfferPace
from lender.core.pulling import Pulls
from lender.core.regulation import Regulation
from lender.core.restraint import Restraint
from lender.core.status import AttemptStatus, LenderStatus
from lender.core.valid_consent import ValidConsent
from lender.protocol.bounds import MEMORY_BYTES_MAX
from lender.protocol.lease import LEASE_TTL_S, LenderPhase, Offer, Outcome

NO_SLOT_DELAY_S: Final = 0.1
MALFORMED_DELAY_S: Final = 10.0


class Lender:
    """One lender's state. Every rule is level-triggered: it holds after each event, whichever.

    Until consent, intent, capabilities and a first reading of the machine have come, nothing is
    lent.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._consent = ValidConsent(config)
        self._restraint = Restraint(config)
        self._capabilities: Capabilities | None = None
        self._connected = False
        self._drain_deadline: float | None = None
        self._exited = False
        self._let_sleep = False
        self._phase: LenderPhase = "paused"
        self._spare = Spare(self._restraint.comfort, config.slots, config.memory_bytes)
        self._leases = Leases()
        self._regulation = Regulation()
        self._now = -math.inf
        self._pulls = Pulls()
        self._pace = OfferPace()
        self._handlers: dict[type, Callable[[float, Any], list[Effect]]] = {
            ConsentLoaded: self._on_consent,
            IntentLoaded: self._on_intent,
            CapabilitiesFound: self._on_capabilities,
            MachineSampled: self._on_sampled,
            StandstillSeen: self._on_standstill,
            WallClockRead: self._on_wall_clock,
            BrokerConnected: self._on_connected,
            BrokerDisconnected: self._on_disconnected,
            BrokerGreeted: self._on_greeted,
            ClassesOpened: self._on_opened,
            LeasesCancelled: self._on_cancelled,
            LeaseDelivered: self._on_delivered,
            LeaseMalformed: self._on_malformed,
            PullEnded: self._on_pull_ended,
            SandboxPrepared: lambda _, event: self._leases.prepared(event.lease),
            PreparationFailed: self._leases.preparation_failed,
            UsageMetered: self._on_metered,
            UsageRecalled: self._on_recalled,
            SleepAnnounced: self._on_sleep,
            WokenUp: self._on_woken,
            TasksEnded: lambda now, event: self._leases.tasks_ended(
                now, event.lease, event.results, self._restraint.energy_rate
            ),
            SandboxGone: lambda now, event: self._leases.sandbox_gone(
                now, event.lease, event.reason
            ),
            ReportAnswered: lambda now, event: self._leases.answered(
                now, event.lease, event.number, accepted=event.accepted, reason=event.reason
            ),
            DrainRequested: self._on_drain,
            TimeAdvanced: lambda _now, _event: [],
        }

    def handle(self, now: float, event: Event) -> list[Effect]:
        """Take up `event` at `now` (seconds since the epoch, never going back)."""
        self._now = now
        # What time has ended ends first: an event can't begin anything under what is over.
        effects = self._end_overdue(now)
        effects += self._handlers[type(event)](now, event)
        self._count_spent(now)
        effects += self._end_overdue(now)
        effects += self._settle(now)
        return effects

    def next_deadline(self) -> float | None:
        """Return when time alone changes something; the shell then tells `TimeAdvanced`."""
        if self._exited:
            return None
        deadlines = [
            self._consent.until,
            self._drain_deadline,
            self._restraint.next_deadline(self._now),
            self._regulation.next_deadline,
            self._leases.next_deadline(self._config.frozen_handback_s),
            self._pulls.next_deadline(),
            self._pace.next_deadline() if self._online else None,
        ]
        at = min(one for one in deadlines if one is not None)
        return None if math.isinf(at) else at

    def status(self, now: float) -> LenderStatus:
        """Return the view that `lender status` shows."""
        phase, reason = derive(self._grounds(now))
        restraint = self._restraint
        return LenderStatus(
            phase=phase,
            reason=reason,
            connected=self._connected,
            slots_total=self._slots_total,
            slots_free=self._slots_free(now),
            cpu_free=self._spare.cpu_free(self._leases.cpu_committed),
            memory_free_bytes=self._memory_free_bytes,
            attempts=tuple(AttemptStatus.of(run) for run in self._leases.runs),
            leases_unanswered=len(self._leases) - len(tuple(self._leases.runs)),
            grants=tuple(self._consent.grants.values()),
            closed={id_: hold.reason for id_, hold in restraint.closed.items()},
            classes=self._consent.classes,
            consent_digest=self._consent.digest,
            intent=restraint.intent,
            behind_s=restraint.behind_s,
            verdict=restraint.comfort.verdict,
            signals=restraint.comfort.signals,
            asleep=restraint.asleep,
        )

    def budgets(self, now: float) -> list[dict[str, object]]:
        """Return every bound that holds, and what of it is used up: `lender status`."""
        return self._restraint.budgets(now, self._consent.grants)

    # What holds after every event.

    def _end_overdue(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if now >= self._consent.until:
            effects += self._renew_consent(now)
        restraint = self._restraint
        closed = restraint.close_grants(now, self._consent.grants)
        self._consent.close(closed, gpu_work=restraint.comfort.verdict.gpu_work)
        why = Hold(restraint.comfort.verdict.reason)
        holds = restraint.holds(now)
        going = self._regulation.evicted(self._leases.runs, holds, restraint.cores, why)
        effects += self._leases.evict(now, going)
        overdue = self._leases.frozen_for(now, self._config.frozen_handback_s)
        effects += self._leases.evict(now, overdue)
        if self._drain_deadline is not None and now >= self._drain_deadline:
            hold = Hold("the lender shut down", told="the lender shut down")
            left = [(run, hold) for run in self._leases.runs]
            effects += self._leases.evict(now, left)
        return effects

    def _renew_consent(self, now: float) -> list[Effect]:
        before = self._consent.submitters
        self._consent.renew(now)
        effects = self._leases.revoke(now, self._consent.withdrawn)
        gone = sorted(before - self._consent.submitters)
        return effects + [PurgeSubmitter(submitter) for submitter in gone]

    def _settle(self, now: float) -> list[Effect]:
        self._phase, reason = derive(self._grounds(now))
        restraint = self._restraint
        effects = self._regulation.settle(
            now,
            self._leases.runs,
            restraint.holds(now),
            restraint.cores,
            Hold(restraint.comfort.verdict.reason),
        )
        effects += self._leases.due(now)
        if self._online:
            effects += self._offer(now, _told(self._phase, reason))
        classes = frozenset(self._consent.classes)
        effects += self._pulls.next(now, classes, self._slots_free(now))
        if restraint.asleep and not self._let_sleep and not self._leases:
            self._let_sleep = True
            effects.append(LetSleep())
        if self._drain_deadline is not None and not self._exited:
            self._exited = not self._leases or now >= self._drain_deadline
            effects += [Exit()] if self._exited else []
        return effects

    def _count_spent(self, now: float) -> None:
        for grant, usage in self._leases.take_spent():
            self._restraint.spending.count(grant, now, usage, self._restraint.utc_offset_s)

    def _offer(self, now: float, reason: str) -> list[Effect]:
        slots_free = self._slots_free(now)
        says = (
            self._phase,
            slots_free,
            self._consent.classes,
            self._consent.digest,
            self._leases.states(),
        )
        if not self._pace.due(now, says, holding=len(self._leases) > 0):
            return []
        assert self._capabilities is not None
        offer = Offer(
            lender=self._config.lender,
            name=self._config.name,
            phase=self._phase,
            reason=reason,
            slots_total=self._slots_total,
            slots_free=slots_free,
            cpu_free=self._spare.cpu_free(self._leases.cpu_committed),
            memory_free_bytes=self._memory_free_bytes,
            vram_free_bytes=self._spare.vram_free_bytes,
            arch=self._capabilities.arch,
            os=self._capabilities.os,
            runtimes=tuple(sorted(self._capabilities.runtimes)),
            classes=self._consent.classes,
            consent_digest=self._consent.digest,
            leases=self._leases.held(),
        )
        return [SendOffer(offer)]

    # What is derived.

    def _grounds(self, now: float) -> Grounds:
        consent, restraint = self._consent, self._restraint
        paused, draining = restraint.word(now, any_run=self._leases.any_run)
        offline = None if self._connected else "not connected to the broker"
        if self._capabilities is None:
            offline = "the sandboxes' self-test has not ended yet"
        shutting_down = self._drain_deadline is not None
        return Grounds(
            paused=paused,
            unconsented=consent.lacking,
            draining="shutting down: nothing new" if shutting_down else draining,
            offline=offline,
            yielding=restraint.yielding(
                any_grant=bool(consent.grants),
                any_open=len(consent.closed) < len(consent.grants),
            ),
            lending=restraint.comfort.verdict.reason,
        )

    @property
    def _online(self) -> bool:
        return self._connected and self._capabilities is not None

    @property
    def _slots_total(self) -> int:
        return self._spare.slots_total

    @property
    def _memory_free_bytes(self) -> int:
        return self._spare.memory_free_bytes(self._leases.memory_committed_bytes)

    def _slots_free(self, now: float) -> int:
        if derive(self._grounds(now))[0] != "lending" or len(self._leases) >= HELD_MAX:
            return 0
        return self._spare.slots_free(
            self._leases.cpu_committed, self._leases.memory_committed_bytes
        )

    # What each event changes by itself.

    def _on_consent(self, _now: float, event: ConsentLoaded) -> list[Effect]:
        self._consent.loaded(event.consent)
        return []

    def _on_intent(self, _now: float, event: IntentLoaded) -> list[Effect]:
        if event.intent != self._restraint.intent:
            # Whatever was stopped before this word stands or goes on by this word.
            self._leases.take_over_stopped()
        self._restraint.hear(event.intent)
        return []

    def _on_wall_clock(self, _now: float, event: WallClockRead) -> list[Effect]:
        self._restraint.follow(event.behind_s)
        return []

    def _on_capabilities(self, _now: float, event: CapabilitiesFound) -> list[Effect]:
        self._capabilities = event.capabilities
        self._consent.can_run(event.capabilities)
        return []

    def _on_sampled(self, now: float, event: MachineSampled) -> list[Effect]:
        self._restraint.sampled(now, event.signals)
        return []

    def _on_standstill(self, now: float, event: StandstillSeen) -> list[Effect]:
        self._leases.seen_still(now, event.leases)
        return []

    def _on_metered(self, _now: float, event: UsageMetered) -> list[Effect]:
        run = self._leases.run_of(event.lease)
        if run is not None:
            run.meter.metered(event, self._restraint.energy_rate)
        return []

    def _on_recalled(self, _now: float, event: UsageRecalled) -> list[Effect]:
        for grant, at, usage in event.entries:
            self._restraint.spending.count(grant, at, usage, event.utc_offset_s)
        return []

    def _on_sleep(self, _now: float, _event: SleepAnnounced) -> list[Effect]:
        self._restraint.asleep, self._let_sleep = True, False
        return []

    def _on_woken(self, now: float, event: WokenUp) -> list[Effect]:
        self._restraint.woken()
        self._pace.ask()
        if event.slept_s < LEASE_TTL_S:
            return []
        return self._leases.forget_expired(now, "its lease expired while the machine slept")

    def _on_connected(self, _now: float, _event: BrokerConnected) -> list[Effect]:
        self._connected = True
        self._pace.ask()
        return []

    def _on_disconnected(self, _now: float, _event: BrokerDisconnected) -> list[Effect]:
        self._connected = False
        return []

    def _on_greeted(self, _now: float, _event: BrokerGreeted) -> list[Effect]:
        self._pace.ask()
        return []

    def _on_opened(self, _now: float, event: ClassesOpened) -> list[Effect]:
        self._pulls.opened(event.classes, frozenset(self._consent.classes))
        return []

    def _on_cancelled(self, now: float, event: LeasesCancelled) -> list[Effect]:
        return [
            effect
            for lease in event.leases
            for effect in self._leases.drop(now, lease, "the broker cancelled it")
        ]

    def _on_delivered(self, now: float, event: LeaseDelivered) -> list[Effect]:
        self._pulls.brought(event.work_class)
        delivery, lease = event.delivery, event.lease
        known = self._leases.delivered_again(delivery, lease.lease)
        if known is not None:
            return known
        if len(self._leases) >= HELD_MAX:
            return [ReturnLease(delivery, NO_SLOT_DELAY_S)]
        phase, reason = derive(self._grounds(now))
        outcome: Outcome
        if phase != "lending" or self._capabilities is None:
            outcome = "refused" if phase == "unconsented" else "evicted"
            told = f"{phase}: {_told(phase, reason)}"
            return self._leases.hand_back(now, delivery, lease, outcome, told)
        rules = Rules(
            consent=self._consent.open,
            capabilities=self._consent.lent(self._capabilities),
            workloads=self._config.workloads,
            slots_total=self._slots_total,
            memory_free_bytes=self._spare.memory_free_bytes(),
            vram_free_bytes=self._spare.vram_free_bytes,
        )
        plan = admit(now, lease, event.work_class, rules)
        if isinstance(plan, Refused):
            outcome, told = "refused", plan.reason
            whole = replace(rules, consent=self._consent.consent)
            if not self._consent.gpu_work:
                whole = replace(
                    whole, capabilities=self._capabilities, vram_free_bytes=MEMORY_BYTES_MAX
                )
            if not isinstance(admit(now, lease, event.work_class, whole), Refused):
                outcome, told = "evicted", NEEDED_HERE  # closed, or no GPU work, for now
            return self._leases.hand_back(now, delivery, lease, outcome, told)
        limits = plan.spec.limits
        if limits.cpu > self._slots_free(now) or limits.memory_bytes > self._memory_free_bytes:
            self._pulls.turned_away(event.work_class)
            return [ReturnLease(delivery, NO_SLOT_DELAY_S)]
        self._pulls.served(event.work_class)
        return self._leases.start(now, delivery, lease, plan)

    def _on_malformed(self, _now: float, event: LeaseMalformed) -> list[Effect]:
        # Not ours to destroy: the broker, or a newer lender, may make something of it.
        self._pulls.brought(event.work_class)
        return [ReturnLease(event.delivery, MALFORMED_DELAY_S)]

    def _on_pull_ended(self, now: float, event: PullEnded) -> list[Effect]:
        self._pulls.ended(now, event.work_class, refused=event.refused)
        return []

    def _on_drain(self, _now: float, event: DrainRequested) -> list[Effect]:
        self._drain_deadline = event.deadline
        return []


def _told(phase: LenderPhase, reason: str) -> str:
    """What others are told of the reason: nothing of the owner's presence or habits."""
    return {"lending": "", "yielding": NEEDED_HERE}.get(phase, reason)
