"""Every lease that this lender holds: those being worked on, and those waiting for an answer."""

from collections.abc import Callable, Iterable

from lender.core.admission import Plan
from lender.core.attempt import AttemptState
from lender.core.budget import Usage
from lender.core.effects import AckLease, Effect
from lender.core.events import PreparationFailed
from lender.core.hold import Hold
from lender.core.lease_report import LeaseReport
from lender.core.lease_run import LeaseRun
from lender.core.metering import EnergyRate
from lender.protocol.lease import HeldLease, Lease, LeaseState, Outcome
from lender.protocol.result import TaskResult

HELD_MAX = 256
"""Leases held at once, unanswered ones included; beyond it nothing is taken."""

STOPPED = Hold("something stopped it without a word, as a pause does that is cut off")

LET_GO_MAX = 4096
"""Ids of leases that were acked or cancelled, remembered so that none is run twice."""


class Leases:
    """Held leases by id. A lease is held until its final report is answered.

    Each is run at most once, has at most one final report, and ends in one ack.
    """

    def __init__(self) -> None:
        self._reports: dict[str, LeaseReport] = {}
        self._runs: dict[str, LeaseRun] = {}
        self._let_go: dict[str, None] = {}
        self._spent: list[tuple[str, Usage]] = []
        self.cpu_committed = 0
        self.memory_committed_bytes = 0

    def __len__(self) -> int:
        return len(self._reports)

    @property
    def runs(self) -> Iterable[LeaseRun]:
        """The leases that have a sandbox, oldest first."""
        return self._runs.values()

    @property
    def any_run(self) -> bool:
        """Whether any lease has a sandbox."""
        return bool(self._runs)

    def held(self) -> tuple[HeldLease, ...]:
        """Return what an offer says of them."""
        return tuple(
            HeldLease(
                lease=lease,
                job=report.lease.job,
                submitter=report.lease.submitter,
                state=self._state_of(lease),
            )
            for lease, report in self._reports.items()
        )

    def states(self) -> tuple[tuple[str, LeaseState], ...]:
        """Return each lease with its state: what a change of an offer is judged by."""
        return tuple((lease, self._state_of(lease)) for lease in self._reports)

    def delivered_again(self, delivery: int, lease: str) -> list[Effect] | None:
        """Take up a delivery of a lease that is held or was let go; None: it is a new one."""
        if lease in self._reports:
            self._reports[lease].redelivered(delivery)
            return []
        return [AckLease(delivery)] if lease in self._let_go else None

    def start(self, now: float, delivery: int, lease: Lease, plan: Plan) -> list[Effect]:
        """Work on an admitted lease."""
        run = LeaseRun(now, lease, plan)
        self._reports[lease.lease] = LeaseReport(now, delivery, lease)
        self._runs[lease.lease] = run
        self.cpu_committed += plan.spec.limits.cpu
        self.memory_committed_bytes += plan.spec.limits.memory_bytes
        return [run.open()]

    def hand_back(
        self, now: float, delivery: int, lease: Lease, outcome: Outcome, reason: str
    ) -> list[Effect]:
        """Hand a lease back that is not begun, with a reason."""
        report = self._reports[lease.lease] = LeaseReport(now, delivery, lease)
        return [report.finish(now, outcome, reason=reason)]

    def prepared(self, lease: str) -> list[Effect]:
        """Take up that a sandbox stands."""
        run = self._runs.get(lease)
        return run.prepared() if run else []

    def preparation_failed(self, now: float, event: PreparationFailed) -> list[Effect]:
        """Tell the broker whose fault it is: the job's, or this machine's."""
        run = self._runs.get(event.lease)
        if run is None:
            return []
        if event.invalid:
            outcome: Outcome = "invalid"
            close, receipt = self._close(now, run, "failed", f"{event.field}: {event.reason}")
        else:
            outcome = "refused"
            ended = f"could not be prepared: {event.reason}"
            close, receipt = self._close(now, run, "evicted", ended)
        report = self._reports[event.lease]
        return [close, report.finish(now, outcome, event.field, event.reason), receipt]

    def tasks_ended(
        self, now: float, lease: str, results: tuple[TaskResult, ...], rate: EnergyRate
    ) -> list[Effect]:
        """Pass results on; after the last one the lease is finished."""
        run = self._runs.get(lease)
        if run is None:
            return []
        report = self._reports[lease]
        effects = report.add(now, run.take(results, rate))
        if run.tasks_left:
            return effects
        failed = run.tasks_failed
        ended = f"finished, {failed} of its tasks failed" if failed else "finished"
        state: AttemptState = "failed" if failed else "succeeded"
        return [*effects, report.finish(now, "finished"), *self._close(now, run, state, ended)]

    def evict(self, now: float, runs: Iterable[tuple[LeaseRun, Hold]]) -> list[Effect]:
        """Stop these, each for its reason; their results are reported, other tasks handed back.

        Every sandbox is closed before anything is written or reported.
        """
        closed: list[Effect] = []
        told: list[Effect] = []
        for run, hold in list(runs):
            close, receipt = self._close(now, run, "evicted", hold.reason)
            report = self._reports[run.lease.lease]
            closed.append(close)
            told += [report.finish(now, "evicted", reason=hold.told), receipt]
        return closed + told

    def revoke(
        self, now: float, withdrawn: Callable[[float, LeaseRun], str | None]
    ) -> list[Effect]:
        """Stop whatever consent is `withdrawn` for, and drop its results.

        Every sandbox is closed before anything is written or reported.
        """
        closed: list[Effect] = []
        told: list[Effect] = []
        for run in list(self._runs.values()):
            reason = withdrawn(now, run)
            if reason is not None:
                close, receipt = self._close(now, run, "revoked", reason)
                report = self._reports[run.lease.lease]
                report.drop_results()
                closed.append(close)
                told += [report.finish(now, "revoked", reason=reason), receipt]
        return closed + told

    def forget_expired(self, now: float, reason: str) -> list[Effect]:
        """Stop all work whose leases ended while nobody looked; the broker gave them away."""
        effects: list[Effect] = []
        for lease in list(self._runs):
            effects += self.drop(now, lease, reason)
        return effects

    def sandbox_gone(self, now: float, lease: str, reason: str) -> list[Effect]:
        """Hand back what a dead sandbox has not done."""
        run, ended = self._runs.get(lease), f"the sandbox died: {reason}"
        return self.evict(now, [(run, Hold(ended, told=ended))]) if run else []

    def answered(
        self, now: float, lease: str, number: int, *, accepted: bool, reason: str
    ) -> list[Effect]:
        """Take up the broker's answer to a report; one that is not accepted ends the lease."""
        report = self._reports.get(lease)
        if report is None:
            return []
        if accepted:
            return self._release(lease) if report.is_final(number) else []
        return self.drop(now, lease, f"the broker did not accept a report: {reason}")

    def drop(self, now: float, lease: str, reason: str) -> list[Effect]:
        """Stop a lease that is no longer ours, without a report; it need not have come yet."""
        run = self._runs.get(lease)
        ended = self._close(now, run, "lost", reason) if run else ()
        return [*ended, *self._release(lease)]

    def seen_still(self, now: float, leases: frozenset[str]) -> None:
        """Take up which sandboxes stand still, by whoever's order."""
        for lease, run in self._runs.items():
            run.seen_still(now, still=lease in leases)

    def take_over_stopped(self) -> None:
        """Let what others stopped go on as far as it may."""
        for run in self._runs.values():
            run.take_over()

    def frozen_for(self, now: float, duration_s: float) -> list[tuple[LeaseRun, Hold]]:
        """Return what has stood still for `duration_s` or longer, with the reason."""
        return [
            (run, (run.held or STOPPED).after(f"frozen for {duration_s:g} s"))
            for run in self._runs.values()
            if (since := run.still_since) is not None and now >= since + duration_s
        ]

    def due(self, now: float) -> list[Effect]:
        """Send what has waited long enough."""
        return [effect for report in self._reports.values() for effect in report.due(now)]

    def next_deadline(self, frozen_handback_s: float) -> float | None:
        """Return when something here has waited long enough."""
        deadlines = [report.next_deadline() for report in self._reports.values()]
        deadlines += [
            since + frozen_handback_s
            for run in self._runs.values()
            if (since := run.still_since) is not None
        ]
        return min(deadlines, default=None)

    def run_of(self, lease: str) -> LeaseRun | None:
        """Return the work on a lease, if it has a sandbox."""
        return self._runs.get(lease)

    def take_spent(self) -> list[tuple[str, Usage]]:
        """Return what was used up since the last call, with the grants that pay for it."""
        spent, self._spent = self._spent, []
        spent += [(run.plan.grant.id, run.meter.untold()) for run in self._runs.values()]
        return [(grant, usage) for grant, usage in spent if usage != Usage()]

    def _state_of(self, lease: str) -> LeaseState:
        run = self._runs.get(lease)
        if run is None:
            return "running"
        state = run.state
        assert state in ("preparing", "running", "frozen"), state
        return state

    def _close(
        self, now: float, run: LeaseRun, state: AttemptState, ended: str
    ) -> tuple[Effect, Effect]:
        del self._runs[run.lease.lease]
        self.cpu_committed -= run.plan.spec.limits.cpu
        self.memory_committed_bytes -= run.plan.spec.limits.memory_bytes
        self._spent.append((run.plan.grant.id, run.meter.untold()))
        return run.end(now, state, ended)

    def _release(self, lease: str) -> list[Effect]:
        self._let_go[lease] = None
        if len(self._let_go) > LET_GO_MAX:
            del self._let_go[next(iter(self._let_go))]
        report = self._reports.pop(lease, None)
        return [report.ack()] if report else []
