"""The daemon's decisions: `handle(now, event)` returns what the shell is to do, in order."""

import math
from collections.abc import Callable
from typing import Any, Final

from lender.core.admission import Refused, Rules, admit
from lender.core.config import Config
from lender.core.consent import Intent
from lender.core.effects import Effect, Exit, ReturnLease, SendOffer
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
    TasksEnded,
    TimeAdvanced,
)
from lender.core.headroom import Headroom
from lender.core.leases import HELD_MAX, Leases
from lender.core.lender_state import Signals, derive, step
from lender.core.offering import OfferPace
from lender.core.pulling import Pulls
from lender.core.status import AttemptStatus, LenderStatus
from lender.core.valid_consent import ValidConsent
from lender.protocol.lease import LenderPhase, Offer, Outcome

NO_SLOT_DELAY_S: Final = 0.1
MALFORMED_DELAY_S: Final = 10.0

_REASON_CHARS_MAX: Final = 400


class Lender:
    """One lender's state. Every rule is level-triggered: it holds after each event, whichever.

    Until consent, intent, capabilities and a first reading of the machine have come, nothing is
    lent.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._consent = ValidConsent(config)
        self._intent: Intent | None = None
        self._capabilities: Capabilities | None = None
        self._connected = False
        self._drain_deadline: float | None = None
        self._exited = False
        self._phase: LenderPhase = "paused"
        self._headroom = Headroom(config.reserve, config.cores, config.memory_bytes)
        self._leases = Leases()
        self._pulls = Pulls()
        self._pace = OfferPace()
        self._handlers: dict[type, Callable[[float, Any], list[Effect]]] = {
            ConsentLoaded: self._on_consent,
            IntentLoaded: self._on_intent,
            CapabilitiesFound: self._on_capabilities,
            MachineSampled: self._on_sampled,
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
            TasksEnded: lambda now, event: self._leases.tasks_ended(
                now, event.lease, event.results
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
        # What time has ended ends first: an event can't begin anything under what is over.
        effects = self._end_overdue(now)
        effects += self._handlers[type(event)](now, event)
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
            self._leases.next_deadline(self._config.frozen_handback_s),
            self._pulls.next_deadline(),
            self._pace.next_deadline() if self._online else None,
        ]
        at = min(one for one in deadlines if one is not None)
        return None if math.isinf(at) else at

    def status(self) -> LenderStatus:
        """Return the view that `lender status` shows."""
        phase, reason = derive(self._signals())
        return LenderStatus(
            phase=phase,
            reason=reason,
            connected=self._connected,
            slots_total=self._slots_total,
            slots_free=self._slots_free(),
            cpu_free=self._headroom.cpu_free(self._leases.cpu_committed),
            memory_free_bytes=self._memory_free_bytes,
            attempts=tuple(AttemptStatus.of(run) for run in self._leases.runs),
            leases_unanswered=len(self._leases) - len(tuple(self._leases.runs)),
            grants=tuple(self._consent.grants.values()),
            classes=self._consent.classes,
            consent_digest=self._consent.digest,
        )

    # What holds after every event.

    def _end_overdue(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if now >= self._consent.until:
            self._consent.renew(now)
            effects += self._leases.revoke(now, self._consent.withdrawn)
        overdue = self._leases.frozen_for(now, self._config.frozen_handback_s)
        if overdue:
            hold = f"frozen for {self._config.frozen_handback_s:g} s: {self._hold_reason()}"
            effects += self._leases.evict(now, overdue, hold)
        if self._drain_deadline is not None and now >= self._drain_deadline:
            effects += self._leases.evict(now, self._leases.runs, "the lender shut down")
        return effects

    def _settle(self, now: float) -> list[Effect]:
        phase, reason = derive(self._signals())
        self._phase = step(self._phase, phase)
        frozen = self._hold_reason() is not None
        effects = self._leases.freeze(now) if frozen else self._leases.thaw()
        effects += self._leases.due(now)
        if self._online:
            effects += self._offer(now, reason)
        effects += self._pulls.next(now, frozenset(self._consent.classes), self._slots_free())
        if self._drain_deadline is not None and not self._exited:
            self._exited = not self._leases or now >= self._drain_deadline
            effects += [Exit()] if self._exited else []
        return effects

    def _offer(self, now: float, reason: str) -> list[Effect]:
        slots_free = self._slots_free()
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
            reason=reason[:_REASON_CHARS_MAX],
            slots_total=self._slots_total,
            slots_free=slots_free,
            cpu_free=self._headroom.cpu_free(self._leases.cpu_committed),
            memory_free_bytes=self._memory_free_bytes,
            vram_free_bytes=self._headroom.sample.vram_free_bytes,
            arch=self._capabilities.arch,
            os=self._capabilities.os,
            runtimes=tuple(sorted(self._capabilities.runtimes)),
            classes=self._consent.classes,
            consent_digest=self._consent.digest,
            leases=self._leases.held(),
        )
        return [SendOffer(offer)]

    # What is derived.

    def _signals(self) -> Signals:
        verdict = self._headroom.verdict
        paused = "the owner's stored intent has not been read yet"
        if self._intent is not None:
            paused = "the owner paused lending" if self._intent.paused else ""
        offline = "" if self._connected else "not connected to the broker"
        if self._capabilities is None:
            offline = "the sandboxes' self-test has not ended yet"
        nothing = "" if self._consent.classes else "no grant names a workload that works here; "
        return Signals(
            paused=paused or None,
            unconsented=None if self._consent.grants else "no valid grant on this machine",
            draining=None if self._drain_deadline is None else "shutting down: nothing new",
            offline=offline or None,
            yielding=verdict.reason if verdict.yields else None,
            lending=nothing + verdict.reason,
        )

    def _hold_reason(self) -> str | None:
        signals = self._signals()
        return signals.paused or signals.yielding

    @property
    def _online(self) -> bool:
        return self._connected and self._capabilities is not None

    @property
    def _slots_total(self) -> int:
        return self._headroom.slots_total(self._config.slots)

    @property
    def _memory_free_bytes(self) -> int:
        return self._headroom.memory_free_bytes(self._leases.memory_committed_bytes)

    def _slots_free(self) -> int:
        if derive(self._signals())[0] != "lending" or len(self._leases) >= HELD_MAX:
            return 0
        return self._headroom.slots_free(
            self._config.slots, self._leases.cpu_committed, self._leases.memory_committed_bytes
        )

    # What each event changes by itself.

    def _on_consent(self, _now: float, event: ConsentLoaded) -> list[Effect]:
        self._consent.loaded(event.consent)
        return []

    def _on_intent(self, _now: float, event: IntentLoaded) -> list[Effect]:
        self._intent = event.intent
        return []

    def _on_capabilities(self, _now: float, event: CapabilitiesFound) -> list[Effect]:
        self._capabilities = event.capabilities
        self._consent.can_run(event.capabilities)
        return []

    def _on_sampled(self, now: float, event: MachineSampled) -> list[Effect]:
        self._headroom.sampled(now, event.signals)
        return []

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
        phase, reason = derive(self._signals())
        if phase != "lending" or self._capabilities is None:
            outcome: Outcome = "refused" if phase == "unconsented" else "evicted"
            return self._leases.hand_back(now, delivery, lease, outcome, f"{phase}: {reason}")
        rules = Rules(
            consent=self._consent.consent,
            capabilities=self._capabilities,
            workloads=self._config.workloads,
            slots_total=self._slots_total,
            memory_free_bytes=self._headroom.memory_free_bytes(),
        )
        plan = admit(now, lease, event.work_class, rules)
        if isinstance(plan, Refused):
            return self._leases.hand_back(now, delivery, lease, "refused", plan.reason)
        limits = plan.spec.limits
        if limits.cpu > self._slots_free() or limits.memory_bytes > self._memory_free_bytes:
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
