"""The daemon's decisions: `handle(now, event)` returns what the shell is to do, in order."""

import math
from collections.abc import Callable
from typing import Any, Final

from lender.core.config import Config
from lender.core.effects import Effect, Exit, LetSleep, ReturnLease
from lender.core.endings import end_overdue
from lender.core.events import (
    BrokerConnected,
    BrokerDisconnected,
    BrokerGreeted,
    CapabilitiesFound,
    CheckpointSaved,
    ClassesOpened,
    ConsentLoaded,
    DevicesFound,
    DiskSampled,
    DrainRequested,
    Event,
    GangGathered,
    IntentLoaded,
    JobsRecalled,
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
    TaskTerminated,
    TimeAdvanced,
    TokenRead,
    UsageMetered,
    UsageRecalled,
    WallClockRead,
    WokenUp,
)
from lender.core.hold import Hold
from lender.core.intake import take_up
from lender.core.network_shares import share_out
from lender.core.offering import OfferPace
from lender.core.pulling import Pulls
from lender.core.regulation import Regulation
from lender.core.restraint import GRACE_S
from lender.core.situation import Situation
from lender.core.status import LenderStatus
from lender.protocol.lease import LEASE_TTL_S

MALFORMED_DELAY_S: Final = 10.0

_ENDS_NOTHING: Final = (ClassesOpened, PullEnded, ReportAnswered, SandboxPrepared, TimeAdvanced)
"""Events that change nothing by which something could have to end now that had not before."""


class Lender:
    """One lender's state. Every rule is level-triggered: it holds after each event, whichever.

    Until consent, intent, capabilities and a first reading of the machine have come, nothing is
    lent.
    """

    def __init__(self, config: Config) -> None:
        situation = self._situation = Situation(config)
        self._consent = situation.consent
        self._restraint = situation.restraint
        self._leases = situation.leases
        self._exited = False
        self._let_sleep = False
        self._regulation = Regulation()
        self._deadline: float | None = None
        self._quiet_until = -math.inf
        self._pulls = Pulls(situation.own_queue)
        self._pace = OfferPace()
        self._handlers: dict[type, Callable[[float, Any], list[Effect]]] = {
            ConsentLoaded: self._on_consent,
            IntentLoaded: self._on_intent,
            CapabilitiesFound: self._on_capabilities,
            DevicesFound: self._on_devices,
            MachineSampled: self._on_sampled,
            DiskSampled: self._on_disk,
            StandstillSeen: self._on_standstill,
            WallClockRead: self._on_wall_clock,
            BrokerConnected: self._on_connected,
            BrokerDisconnected: self._on_disconnected,
            BrokerGreeted: self._on_greeted,
            TokenRead: self._on_token,
            ClassesOpened: self._on_opened,
            LeasesCancelled: self._on_cancelled,
            GangGathered: lambda _, event: self._leases.gathered(event.leases),
            LeaseDelivered: lambda now, event: take_up(now, event, situation, self._pulls),
            LeaseMalformed: self._on_malformed,
            PullEnded: self._on_pull_ended,
            SandboxPrepared: lambda _, event: self._leases.prepared(event.lease),
            PreparationFailed: self._leases.preparation_failed,
            UsageMetered: self._on_metered,
            UsageRecalled: self._on_recalled,
            JobsRecalled: self._on_jobs_recalled,
            SleepAnnounced: self._on_sleep,
            WokenUp: self._on_woken,
            TasksEnded: self._on_tasks_ended,
            TaskTerminated: lambda now, event: self._leases.terminated(now, event.lease),
            CheckpointSaved: self._leases.saved,
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
        effects: list[Effect] = []
        if now >= self._quiet_until:
            # What time has ended ends first: an event can't begin anything under what is over.
            effects += end_overdue(now, self._situation, self._regulation)
        effects += self._handlers[type(event)](now, event)
        self._count_spent(now)
        if not isinstance(event, _ENDS_NOTHING):
            effects += end_overdue(now, self._situation, self._regulation)
        metered = isinstance(event, MachineSampled)
        effects += share_out(now, self._leases.attempts, self._restraint, metered=metered)
        effects += self._settle(now)
        self._look_ahead(now)
        return effects

    def next_deadline(self) -> float | None:
        """Return when time alone changes something; the shell then tells `TimeAdvanced`."""
        return self._deadline

    def status(self, now: float) -> LenderStatus:
        """Return the view that `lender status` shows."""
        return self._situation.status(now)

    @property
    def classes_granted(self) -> tuple[str, ...] | None:
        """What the owner's grants name, also closed ones; None: not known yet."""
        consent = self._situation.consent
        return None if self._situation.capabilities is None else consent.granted

    def budgets(self, now: float) -> list[dict[str, object]]:
        """Return every bound that holds, and what of it is used up: `lender status`."""
        return self._restraint.budgets(now, self._consent.grants)

    # What holds after every event.

    def _look_ahead(self, now: float) -> None:
        """Find when time alone changes something."""
        situation = self._situation
        soft_ends = [at - GRACE_S for at, _ in situation.ends(now)]
        deadlines = (
            *(at for at in soft_ends if at > now),
            self._consent.until,
            situation.drain_deadline,
            self._restraint.next_deadline(now),
            self._regulation.next_deadline,
            self._leases.next_deadline(situation.config.frozen_handback_s),
            self._pulls.next_deadline(),
            self._pace.next_deadline() if situation.online else None,
        )
        at = min(one for one in deadlines if one is not None)
        self._deadline = None if self._exited or math.isinf(at) else at
        # Near a known end each task that begins may have to end again; of hours and budgets only
        # a look tells when they end.
        looks = bool(soft_ends) or self._restraint.by_the_clock
        self._quiet_until = -math.inf if looks else at

    def _settle(self, now: float) -> list[Effect]:
        restraint, situation = self._restraint, self._situation
        effects = self._regulation.settle(
            now,
            self._leases.attempts,
            restraint.holds(now),
            restraint.cores,
            Hold(restraint.comfort.verdict.reason),
        )
        effects += self._leases.due(now)
        state = situation.state(now)
        effects += situation.offer(now, self._pace, state)
        effects += self._pulls.next(now, situation.queues, situation.slots_free(state))
        if restraint.asleep and not self._let_sleep and not self._leases:
            self._let_sleep = True
            effects.append(LetSleep())
        if situation.drain_deadline is not None and not self._exited:
            self._exited = not self._leases or situation.drained(now)
            effects += [Exit()] if self._exited else []
        return effects

    def _count_spent(self, now: float) -> None:
        for grant, usage in self._leases.attempts.take_spent():
            self._restraint.spending.count(grant, now, usage, self._restraint.utc_offset_s)

    # What each event changes by itself.

    def _on_consent(self, _now: float, event: ConsentLoaded) -> list[Effect]:
        self._consent.loaded(event.consent)
        return []

    def _on_intent(self, _now: float, event: IntentLoaded) -> list[Effect]:
        if event.intent != self._restraint.intent:
            # Whatever was stopped before this word stands or goes on by this word.
            self._leases.attempts.take_over_stopped()
        self._restraint.hear(event.intent)
        return []

    def _on_wall_clock(self, _now: float, event: WallClockRead) -> list[Effect]:
        self._restraint.follow(event.behind_s)
        return []

    def _on_capabilities(self, _now: float, event: CapabilitiesFound) -> list[Effect]:
        self._situation.capabilities = event.capabilities
        self._consent.can_run(event.capabilities)
        return []

    def _on_devices(self, _now: float, event: DevicesFound) -> list[Effect]:
        self._situation.found = event.labels
        return []

    def _on_sampled(self, now: float, event: MachineSampled) -> list[Effect]:
        """The meters were read just before: see `lender.daemon.sampling`."""
        self._restraint.sampled(now, event.signals)
        return []

    def _on_disk(self, _now: float, event: DiskSampled) -> list[Effect]:
        self._situation.disk = event
        return []

    def _on_standstill(self, now: float, event: StandstillSeen) -> list[Effect]:
        self._leases.attempts.seen_still(now, event.leases)
        return []

    def _on_tasks_ended(self, now: float, event: TasksEnded) -> list[Effect]:
        if event.used is not None:
            self._on_metered(now, event.used)
        run = self._leases.attempts.get(event.lease)
        keep = run is not None and self._situation.may_keep(now, run.plan)
        rate = self._restraint.energy_rate
        return self._leases.tasks_ended(now, event.lease, event.results, rate, keep=keep)

    def _on_metered(self, _now: float, event: UsageMetered) -> list[Effect]:
        run = self._leases.attempts.get(event.lease)
        if run is not None:
            run.meter.metered(event, self._restraint.energy_rate)
        return []

    def _on_recalled(self, _now: float, event: UsageRecalled) -> list[Effect]:
        for grant, at, usage in event.entries:
            self._restraint.spending.count(grant, at, usage, event.utc_offset_s)
        return []

    def _on_jobs_recalled(self, _now: float, event: JobsRecalled) -> list[Effect]:
        self._leases.jobs_done.recall(event.done)
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
        self._situation.connected = True
        self._pace.ask()
        return []

    def _on_disconnected(self, _now: float, _event: BrokerDisconnected) -> list[Effect]:
        self._situation.connected = False
        return []

    def _on_greeted(self, _now: float, _event: BrokerGreeted) -> list[Effect]:
        self._pace.ask()
        return []

    def _on_token(self, _now: float, event: TokenRead) -> list[Effect]:
        self._situation.token_classes = event.classes
        return []

    def _on_opened(self, now: float, event: ClassesOpened) -> list[Effect]:
        self._pulls.opened(now, event.classes, self._situation.queues, event.stand_s)
        return []

    def _on_cancelled(self, now: float, event: LeasesCancelled) -> list[Effect]:
        return [
            effect
            for lease in event.leases
            for effect in self._leases.drop(now, lease, "the broker cancelled it")
        ]

    def _on_malformed(self, now: float, event: LeaseMalformed) -> list[Effect]:
        # Not ours to destroy: the broker, or a newer lender, may make something of it.
        self._pulls.brought(now, event.work_class)
        return [ReturnLease(event.delivery, MALFORMED_DELAY_S)]

    def _on_pull_ended(self, now: float, event: PullEnded) -> list[Effect]:
        self._pulls.ended(now, event.work_class, refused=event.refused)
        return []

    def _on_drain(self, _now: float, event: DrainRequested) -> list[Effect]:
        self._situation.drain_deadline = event.deadline
        return []
