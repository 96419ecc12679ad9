"""Every lease that this lender holds: those being worked on, and those waiting for an answer."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from lender.core.admission import Plan
from lender.core.attempt import AttemptState
from lender.core.attempts import Attempts
from lender.core.effects import AbandonCheckpoint, Effect, KeepJobDone, PurgeSubmitter
from lender.core.events import CheckpointSaved, PreparationFailed
from lender.core.hold import Hold
from lender.core.jobs_done import JobsDone
from lender.core.lease_report import LeaseReport
from lender.core.lease_run import LeaseRun
from lender.core.metering import EnergyRate
from lender.protocol.lease import (
    PREPARE_FIELD,
    HeldLease,
    Lease,
    LeaseState,
    Outcome,
    TaskCheckpoint,
)
from lender.protocol.result import TaskResult

HELD_MAX = 256
"""Leases held at once, unanswered ones included; beyond it nothing is taken."""

LET_GO_MAX = 4096
"""Ids of leases that were acked or cancelled, remembered so that none is run twice."""

OVER: Final = "it was over here before it came again"

SAVE_S: Final = 60.0
"""For the upload of a checkpoint: its lease is held, and its tasks wait, for no longer."""

ENDED_BY_OTHERS: Final = Hold(
    "something on the machine asked its task to end", told="its task was asked to end"
)


class Saving(NamedTuple):
    """An attempt that is over but for its checkpoint, which is on its way to the store.

    Attributes:
        run: the attempt.
        told: why it ended, for the broker.
        until: the checkpoint is given up then.
    """

    run: LeaseRun
    told: str
    until: float


class Leases:
    """Held leases by id. A lease is held until its final report is answered.

    Each is run at most once, has at most one final report, and ends in one ack.

    Attributes:
        attempts: those that are worked on.
        jobs_done: how much of each job was done in those that are let go.
    """

    def __init__(self) -> None:
        self._reports: dict[str, LeaseReport] = {}
        self._savings: dict[str, Saving] = {}
        self._let_go: dict[str, None] = {}
        self.attempts = Attempts()
        self.jobs_done = JobsDone()

    def __len__(self) -> int:
        return len(self._reports)

    def held(self) -> tuple[HeldLease, ...]:
        """Return what an offer says of them: nothing of those that go back as they came."""
        return tuple(
            HeldLease(
                lease=lease,
                job=report.lease.job,
                submitter=report.lease.submitter,
                state=self.attempts.state_of(lease),
                ready=self.attempts.is_ready(lease),
            )
            for lease, report in self._reports.items()
            if report.spec is not None
        )

    @property
    def saving(self) -> tuple[LeaseRun, ...]:
        """Those that are over but for their checkpoints, which are on their way."""
        return tuple(one.run for one in self._savings.values())

    def states(self) -> tuple[tuple[str, LeaseState, bool], ...]:
        """Return each lease with its state: what a change of an offer is judged by."""
        attempts = self.attempts
        return tuple(
            (lease, attempts.state_of(lease), attempts.is_ready(lease)) for lease in self._reports
        )

    def delivered_again(self, now: float, delivery: int, lease: Lease) -> list[Effect] | None:
        """Take up a delivery of a lease that is held or was let go; None: it is a new one.

        One that was let go is handed back, not just taken off its queue: a broker that has begun
        anew may have found it there, know nothing of its end, and count on it.
        """
        if lease.lease in self._reports:
            return [self._reports[lease.lease].redelivered(delivery)]
        if lease.lease not in self._let_go:
            return None
        return self.hand_back(now, delivery, lease, "evicted", OVER)

    def replayed(self, plan: Plan, lease: Lease) -> str | None:
        """Tell why an admitted lease is more of its job than was signed for; None: it is not."""
        spec = plan.spec
        in_work = sum(
            one.lease.task_count
            for one in self._reports.values()
            if one.spec and (one.spec.submitter, one.spec.id) == (spec.submitter, spec.id)
        )
        return self.jobs_done.fault(spec, lease.task_count, in_work)

    def start(self, now: float, delivery: int, run: LeaseRun, free_bytes: int) -> list[Effect]:
        """Work on an admitted lease; `free_bytes` as in `Attempts.begin`."""
        report = LeaseReport(now, delivery, run.lease, run.plan.spec)
        self._reports[run.lease.lease] = report
        return self.attempts.begin(run, free_bytes)

    def hand_back(
        self, now: float, delivery: int, lease: Lease, outcome: Outcome, reason: str
    ) -> list[Effect]:
        """Hand a lease back that is not begun, with a reason."""
        report = self._reports[lease.lease] = LeaseReport(now, delivery, lease)
        return [report.finish(now, outcome, reason=reason)]

    def prepared(self, lease: str) -> list[Effect]:
        """Take up that a sandbox stands."""
        run = self.attempts.get(lease)
        return run.prepared() if run else []

    def gathered(self, leases: Iterable[str]) -> list[Effect]:
        """Take up that the gangs of these leases are complete; they need not be ours any more."""
        runs = [run for lease in leases if (run := self.attempts.get(lease)) is not None]
        return [effect for run in runs for effect in run.gathered()]

    def preparation_failed(self, now: float, event: PreparationFailed) -> list[Effect]:
        """Tell the broker whose fault it is: the job's, or this machine's."""
        run = self.attempts.get(event.lease)
        if run is None:
            return []
        if event.invalid:
            outcome: Outcome = "invalid"
            close = self.attempts.close(now, run, "failed", f"{event.field}: {event.reason}")
        else:
            outcome = "refused"
            ended = f"could not be prepared: {event.reason}"
            close = self.attempts.close(now, run, "evicted", ended)
        report = self._reports[event.lease]
        return [close, report.finish(now, outcome, event.field, event.reason), run.receipt()]

    def hand_back_unprepared(self, now: float) -> list[Effect]:
        """Refuse what has been preparing for longer than its job allows."""
        effects: list[Effect] = []
        for run in [one for one in self.attempts if now >= one.prepare_by]:
            limit_s = run.plan.spec.limits.prepare_s
            reason = f"it was not prepared within {limit_s:g} s ({PREPARE_FIELD})"
            failed = PreparationFailed(run.lease.lease, False, PREPARE_FIELD, reason)
            effects += self.preparation_failed(now, failed)
        return effects

    def tasks_ended(
        self,
        now: float,
        lease: str,
        results: Sequence[TaskResult],
        rate: EnergyRate,
        *,
        keep: bool,
    ) -> list[Effect]:
        """Pass results on; after the last one the lease is finished.

        With `keep` its sandbox then waits for more of the job, if all went well in it.
        """
        run = self.attempts.get(lease)
        if run is None:
            return []
        report = self._reports[lease]
        effects = report.add(now, run.take(results, rate))
        if run.tasks_left:
            return effects
        failed = run.tasks_failed
        ended = f"finished, {failed} of its tasks failed" if failed else "finished"
        state: AttemptState = "failed" if failed else "succeeded"
        close = self.attempts.close(now, run, state, ended, keep=keep and run.may_be_kept)
        return [*effects, report.finish(now, "finished"), close, run.receipt()]

    def evict(
        self, now: float, runs: Iterable[tuple[LeaseRun, Hold]], *, save: bool = True
    ) -> list[Effect]:
        """Stop these, each for its reason; their results are reported, other tasks handed back.

        A task that leaves a checkpoint may take the hold's grace to end by itself, and the report
        waits for its upload; without `save` it is killed as well, and nothing is uploaded. Every
        sandbox is closed before anything is written or reported.
        """
        closed: list[Effect] = []
        told: list[Effect] = []
        for run, hold in list(runs):
            if save and hold.grace_s > 0 and run.may_end_softly:
                closed += run.ask_to_end(now, hold)
                continue
            saves = save and run.leaves_checkpoint
            closed.append(self.attempts.close(now, run, "evicted", hold.reason, save=saves))
            saving = Saving(run, hold.told, now + SAVE_S)
            if saves:
                self._savings[run.lease.lease] = saving
            else:
                told += self._hand_back_rest(now, saving)
        return closed + told

    def terminated(self, now: float, lease: str) -> list[Effect]:
        """Take up that a task ended because it was asked to, be it by somebody else."""
        run = self.attempts.get(lease)
        why = run.ending if run and run.ending else ENDED_BY_OTHERS
        return self.evict(now, [(run, why.at_once())]) if run else []

    def saved(self, now: float, event: CheckpointSaved) -> list[Effect]:
        """Report what an attempt has left, and hand its tasks back."""
        saving = self._savings.pop(event.lease, None)
        if saving is None:
            return []
        saving.run.meter.saved(sum(blob.size_bytes for _, blob in event.checkpoints))
        self.attempts.count(saving.run)
        return self._hand_back_rest(now, saving, event.checkpoints)

    def give_up_saving(self, now: float, *, whatever: bool = False) -> list[Effect]:
        """Hand back without a checkpoint what takes too long to save, or all of it."""
        effects: list[Effect] = []
        for lease, saving in list(self._savings.items()):
            if whatever or now >= saving.until:
                del self._savings[lease]
                effects += [AbandonCheckpoint(lease), *self._hand_back_rest(now, saving)]
        return effects

    def revoke(self, now: float, withdrawn: Callable[[float, Plan], str | None]) -> list[Effect]:
        """Stop whatever consent is `withdrawn` for, and drop its results.

        Every sandbox is closed before anything is written or reported; no checkpoint leaves.
        """
        closed = self.attempts.kept.close(unless=lambda one: withdrawn(now, one.plan) is None)
        told: list[Effect] = []
        for run in list(self.attempts):
            reason = withdrawn(now, run.plan)
            if reason is not None:
                closed.append(self.attempts.close(now, run, "revoked", reason))
                told += self._disown(now, run, reason)
        for lease, saving in list(self._savings.items()):
            reason = withdrawn(now, saving.run.plan)
            if reason is not None:
                del self._savings[lease]
                closed.append(AbandonCheckpoint(lease))
                told += self._disown(now, saving.run, reason)
        return closed + told

    def forget_expired(self, now: float, reason: str) -> list[Effect]:
        """Stop all work whose leases may have ended while nobody looked.

        Whether they did, only the broker knows: it may never have heard whose they are, and would
        wait for them without end. So each is reported, and acked when that is answered.
        """
        closed: list[Effect] = []
        told = self.give_up_saving(now, whatever=True)
        for run in list(self.attempts):
            closed.append(self.attempts.close(now, run, "lost", reason))
            told += self._hand_back_rest(now, Saving(run, reason, now))
        return closed + told

    def sandbox_gone(self, now: float, lease: str, reason: str) -> list[Effect]:
        """Hand back what a dead sandbox has not done."""
        run, ended = self.attempts.get(lease), f"the sandbox died: {reason}"
        return self.evict(now, [(run, Hold(ended, told=ended))]) if run else []

    def answered(
        self, now: float, lease: str, number: int, *, accepted: bool, reason: str
    ) -> list[Effect]:
        """Take up the broker's answer to a report; one that is not accepted ends the lease."""
        report = self._reports.get(lease)
        if report is None:
            return []
        if accepted:
            report.accepted(number)
            return self._release(lease) if report.is_final(number) else []
        return self.drop(now, lease, f"the broker did not accept a report: {reason}")

    def drop(self, now: float, lease: str, reason: str) -> list[Effect]:
        """Stop a lease that is no longer ours, without a report; it need not have come yet."""
        run, saving = self.attempts.get(lease), self._savings.pop(lease, None)
        ended: list[Effect] = []
        if run is not None:
            self._reports[lease].run += run.is_at_work
            ended = [self.attempts.close(now, run, "lost", reason), run.receipt()]
        elif saving is not None:
            ended = [AbandonCheckpoint(lease), saving.run.receipt()]
        return [*ended, *self._release(lease)]

    def purge(self, submitter: str) -> PurgeSubmitter:
        """Delete what is kept of a submitter, unanswered results included."""
        for report in self._reports.values():
            if report.lease.submitter == submitter:
                report.disclaim()
        return PurgeSubmitter(submitter)

    def due(self, now: float) -> list[Effect]:
        """Send what has waited long enough."""
        return [effect for report in self._reports.values() for effect in report.due(now)]

    def next_deadline(self, frozen_handback_s: float) -> float | None:
        """Return when something here has waited long enough."""
        deadlines = [report.next_deadline() for report in self._reports.values()]
        deadlines += [saving.until for saving in self._savings.values()]
        attempts = self.attempts.next_deadline(frozen_handback_s)
        return min([*deadlines, attempts] if attempts is not None else deadlines, default=None)

    def _hand_back_rest(
        self, now: float, saving: Saving, checkpoints: tuple[TaskCheckpoint, ...] = ()
    ) -> list[Effect]:
        report = self._reports[saving.run.lease.lease]
        final = report.finish(now, "evicted", reason=saving.told, checkpoints=checkpoints)
        return [final, saving.run.receipt()]

    def _disown(self, now: float, run: LeaseRun, reason: str) -> list[Effect]:
        report = self._reports[run.lease.lease]
        report.drop_results()
        return [report.finish(now, "revoked", reason=reason), run.receipt()]

    def _release(self, lease: str) -> list[Effect]:
        self._let_go[lease] = None
        if len(self._let_go) > LET_GO_MAX:
            del self._let_go[next(iter(self._let_go))]
        report = self._reports.pop(lease, None)
        if report is None:
            return []
        if report.spec is None or not (report.run or report.taken):
            return [report.ack()]
        done = self.jobs_done.count(report.spec, taken=report.taken, run=report.run)
        return [KeepJobDone(done), report.ack()]
