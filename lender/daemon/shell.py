"""The shell around the core: takes events in, carries the effects out, in order."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping

from lender.core import effects
from lender.core.effects import Effect
from lender.core.events import (
    ConsentLoaded,
    DrainRequested,
    Event,
    IntentLoaded,
    LeasesCancelled,
    MachineSampled,
    SleepAnnounced,
    StandstillSeen,
    TimeAdvanced,
)
from lender.core.lender import Lender
from lender.daemon.execution import Execution
from lender.daemon.jobs_done_file import JobsDoneFile
from lender.daemon.machinery import Machinery
from lender.daemon.receipt_writer import ReceiptWriter
from lender.daemon.reporter import Reporter
from lender.daemon.result_signing import signed_report
from lender.daemon.today import Today
from lender.daemon.work_queues import WorkQueues
from lender.protocol.lease import Lease
from lender.protocol.signature import Signer
from lender.sandbox.processes import stopping, tree
from lender.state.consent_files import read_intent

log = logging.getLogger(__name__)


_ENDING = (ConsentLoaded, IntentLoaded, LeasesCancelled, SleepAnnounced)
"""Events that may end an attempt between two readings of the machine."""

_LOOKING = (IntentLoaded, MachineSampled)
"""Events before which the core hears what stands still: others may stop a sandbox, too."""

_GRAIN_S = 0.001
"""uvloop counts in whole milliseconds: a timer that ends in the one before has to be set again, and
again, until it has passed."""


class Shell:
    """Owns the executions and the timer; everything else is a part that it is given.

    An event is handled, and all its effects are carried out, before the next one: when `post`
    returns to a caller outside of the shell, a freeze or a kill that the event asked for has
    been verified. `stopped` holds the reports of the stops that the last `post` led to;
    `let_sleep` is called when everything was handed back before a sleep; `opened` is set with
    every sandbox that is opened. `watch`, if there is one, is told of each event and what
    came of it, once that has been carried out. `on_consent` is called when consent was read anew.
    """

    def __init__(
        self,
        core: Lender,
        clock: Callable[[], float],
        queues: WorkQueues,
        reporter: Reporter,
        receipts: ReceiptWriter,
        today: Today,
        jobs_done: JobsDoneFile,
        signer: Signer,
    ) -> None:
        self._core = core
        self._clock = clock
        self._queues = queues
        self._reporter = reporter
        self._receipts = receipts
        self._today = today
        self._jobs_done = jobs_done
        self._signer = signer
        self._machinery: Machinery | None = None
        self._executions: dict[str, Execution] = {}
        self._saving: dict[str, Execution] = {}
        self._cleaning: set[asyncio.Task[None]] = set()
        self._events: deque[Event] = deque()
        self._handling = False
        self._still: frozenset[str] = frozenset()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self.stopped: list[tree.StopReport] = []
        self.let_sleep: Callable[[], None] = lambda: None
        self.on_consent: Callable[[], None] = lambda: None
        self.watch: Callable[[Event, list[Effect]], None] | None = None
        self.opened = asyncio.Event()
        self.finished = asyncio.Event()

    @property
    def executions(self) -> Mapping[str, Execution]:
        """The sandboxes that stand, by lease; one that is idle by the last it had."""
        return self._executions

    def equip(self, machinery: Machinery) -> None:
        """Give the parts that sandboxes are made with; before the first lease."""
        self._machinery = machinery

    def post(self, event: Event) -> None:
        """Handle `event`; one that comes up meanwhile is handled after it."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        self.stopped = []
        try:
            while self._events:
                happened = self._events.popleft()
                if isinstance(happened, _ENDING):
                    self._meter()
                if isinstance(happened, _LOOKING):
                    self._look()
                self._handle(happened)
                if isinstance(happened, ConsentLoaded):
                    self.on_consent()
        finally:
            self._handling = False
            self._arm()

    def _handle(self, event: Event) -> None:
        """Carry out every effect, whatever becomes of one: the core counts on all of them."""
        _tell(event)
        fault: Exception | None = None
        wanted = self._core.handle(self._clock(), event)
        for effect in wanted:
            _tell(effect)
            try:
                self._perform(effect)
            except Exception as error:  # noqa: BLE001 - raised below
                log.error("%s could not be carried out: %s", type(effect).__name__, error)  # noqa: TRY400
                fault = fault or error
        if self.watch is not None:
            self.watch(event, wanted)
        if fault is not None:
            raise fault

    def _meter(self) -> None:
        """Take the last reading of what may be about to end; some microseconds each."""
        for execution in list(self._executions.values()):
            if (usage := execution.last_metered()) is not None:
                self._handle(usage)

    def _look(self) -> None:
        """Tell what stands still, while anything does; one small file each."""
        still = frozenset(
            lease for lease, one in self._executions.items() if stopping.stands_still(one)
        )
        if still or self._still:
            self._handle(StandstillSeen(still))
        self._still = still

    async def close(self) -> None:
        """Kill every sandbox that is left, see the receipts written, wait for the clean-up."""
        # Through the core, so that each attempt gets its receipt and the broker its report.
        self.post(DrainRequested(self._clock()))
        if self._timer:
            self._timer.cancel()
            self._timer = None
        await self._receipts.close()
        for fault in await asyncio.gather(*self._cleaning, return_exceptions=True):
            if fault is not None:
                log.error("a sandbox could not be cleaned up: %s", fault)

    def _arm(self) -> None:
        """Have the core called at its deadline. One that moves on is looked at when it was due."""
        deadline = self._core.next_deadline()
        if self._timer is not None and deadline is not None and deadline >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer_at = deadline
            left_s = deadline - self._clock()
            delay_s = left_s + _GRAIN_S if left_s > 0 else 0.0
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        deadline = self._core.next_deadline()
        if deadline is not None and self._clock() < deadline:
            self._arm()
        else:
            self.post(TimeAdvanced())

    def _perform(self, effect: Effect) -> None:
        match effect:
            case effects.SendReport():
                report = signed_report(self._signer, effect)
                self._reporter.send(effect.lease, effect.number, report)
            case effects.WriteReceipt():
                receipt = _receipt(effect)
                self._receipts.append(receipt)
                self._today.count(receipt)
            case effects.KeepJobDone():
                self._jobs_done.append(effect.done)
            case effects.PurgeSubmitter():
                self._purge(effect.submitter)
            case effects.AbandonCheckpoint():
                if effect.lease in self._saving:
                    self._saving[effect.lease].abandon()
            case effects.LetSleep():
                self.let_sleep()
            case effects.Exit():
                self.finished.set()
            case _ if isinstance(effect, effects.SandboxEffect):
                self._perform_on_sandbox(effect)
            case _:
                self._queues.perform(effect)

    def _perform_on_sandbox(self, effect: effects.SandboxEffect) -> None:
        match effect:
            case effects.OpenSandbox():
                self._open(effect)
            case effects.RunTasks():
                self._executions[effect.lease].run(effect.tasks)
            case effects.AllowNetwork():
                self._executions[effect.lease].allow_network(effect.moved_bytes)
            case effects.FreezeSandbox():
                self._freeze(effect.lease)
            case effects.ThawSandbox():
                self._thaw(effect.lease)
            case effects.TerminateSandbox():
                self._executions[effect.lease].terminate()
            case effects.KeepSandbox():
                self._executions[effect.lease].keep()
            case effects.CloseSandbox():
                self._close(effect.lease, save=effect.save)

    def _open(self, effect: effects.OpenSandbox) -> None:
        assert self._machinery is not None, "leases come over the connection"
        execution = None
        if effect.reuse is not None and self._executions[effect.reuse].stands:
            execution = self._executions.pop(effect.reuse)
            execution.take_over(effect)
        elif effect.reuse is not None:
            self._close(effect.reuse)  # it died while it waited
        execution = execution or Execution(self._machinery, effect)
        self._executions[effect.lease.lease] = execution
        self.opened.set()

    def freeze_all(self) -> list[tree.StopReport]:
        """Make every sandbox stand still, whatever it did before, and tell what was verified."""
        return [self._freeze(lease) for lease in self._executions]

    def _freeze(self, lease: str) -> tree.StopReport:
        report = self._executions[lease].freeze()
        if not report.verified:
            told = (lease, report.remaining)
            log.error("lease %s: processes %s do not stand still", *told, extra={"lease": lease})
        self.stopped.append(report)
        return report

    def _thaw(self, lease: str) -> None:
        """Let it go on, unless the owner paused meanwhile and we have not been told yet."""
        assert self._machinery is not None, "there is a sandbox"
        word = read_intent(self._machinery.state)
        if word.stops(time.time()):
            self._events.append(IntentLoaded(word))
        else:
            self._executions[lease].thaw()

    def _purge(self, submitter: str) -> None:
        if self._machinery is not None:
            self._machinery.inputs.purge(submitter)
        self._reporter.purge(submitter)

    def _close(self, lease: str, *, save: bool = False) -> None:
        execution = self._executions.pop(lease)
        report, cleaning = execution.close(save=save)
        if save:
            self._saving[lease] = execution
            cleaning.add_done_callback(lambda _done: self._saving.pop(lease))
        self.stopped.append(report)
        if not report.verified:
            told = (lease, report.remaining)
            log.error("lease %s: processes %s did not die", *told, extra={"lease": lease})
        self._cleaning.add(cleaning)
        cleaning.add_done_callback(self._cleaning.discard)


def _tell(said: Event | Effect) -> None:
    """Log what happens by its name and ids: the rest of it may be a submitter's secret."""
    if not log.isEnabledFor(logging.DEBUG):
        return
    ids: dict[str, object] = {}
    given = getattr(said, "lease", None)
    if isinstance(given, Lease):
        ids = {"job": given.job, "attempt": given.attempt, "lease": given.lease}
    elif isinstance(given, str):
        ids = {"lease": given}
    if isinstance(said, effects.WriteReceipt):
        ids |= {"job": said.job, "attempt": said.attempt}
    log.debug(" ".join(map(str, (type(said).__name__, *ids.values()))), extra=ids)


def _receipt(effect: effects.WriteReceipt) -> dict[str, object]:
    return {name: getattr(effect, name) for name in effect.__slots__}
