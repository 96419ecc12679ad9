"""Lenderd: carries the core's effects out as `lender.daemon` does, against the model.

What it knows is lost when it dies; its machine's disk is what it starts from.
"""

from collections import deque
from collections.abc import Callable
from math import inf

from sim.machine import Machine, Sandbox
from sim.pulling import Queues
from sim.reporting import Reporter
from sim.server import Server
from sim.world import EPOCH, Actor, World

from lender.core import effects
from lender.core.config import Config
from lender.core.consent import Intent
from lender.core.effects import Effect
from lender.core.events import (
    BrokerConnected,
    BrokerDisconnected,
    BrokerGreeted,
    Capabilities,
    CapabilitiesFound,
    ClassesOpened,
    ConsentLoaded,
    DevicesFound,
    DiskSampled,
    DrainRequested,
    Event,
    GangGathered,
    IntentLoaded,
    JobsRecalled,
    LeasesCancelled,
    MachineSampled,
    PreparationFailed,
    SandboxGone,
    SleepAnnounced,
    StandstillSeen,
    TimeAdvanced,
    UsageRecalled,
    WallClockRead,
    WokenUp,
)
from lender.core.lender import Lender
from lender.protocol import subjects
from lender.protocol.bounds import OFFERED_BLOB_BYTES_MIN
from lender.protocol.codec import decode
from lender.protocol.lease import Control

BUSY_SAMPLE_S = 1.0
IDLE_SAMPLE_S = 5.0
SETTLE_S = 0.5
CONNECT_S = (0.05, 0.5)
REPORT_GRACE_S = 2.0
SENT_S = 0.1
"""What was said last is let out before the end."""
RESTART_S = (0.5, 2.0)
DISK_FREE_BYTES = 1 << 40


class Watch:
    """What a lender's shell tells whoever checks it."""

    def handled(self, shell: "LenderShell", event: Event, decided: list[Effect]) -> None:
        """An event was handled; its effects are about to be carried out."""


class LenderShell(Actor):
    """One lenderd, over all its lives."""

    core: Lender

    def __init__(
        self,
        world: World,
        server: Server,
        machine: Machine,
        config: Config,
        capabilities: Capabilities,
        watch: Watch,
    ) -> None:
        super().__init__(world, f"d{machine.name}")
        self.lender = config.lender
        self.pools = config.pools
        self.machine = machine
        self.alive = False
        self.wanted = False
        """Whether it is started again when it ends."""
        self.draining = False
        self.on_let_sleep: Callable[[], None] = lambda: None
        machine.shell = self
        self._still_since = 0.0
        self._server = server
        self._config = config
        self._capabilities = capabilities
        self._watch = watch
        self._rng = world.rng(self.name)
        self.line = server.line(self, self._on_state)

    # its life

    def start(self) -> None:
        """Begin a new life, unless one is under way."""
        self.wanted = True
        if self.alive:
            return
        self.alive = True
        self.suspended = False
        self.draining = self._joined = self._handling = False
        self.core = Lender(self._config)
        self.queues = Queues(self, self._server)
        self.reporter = Reporter(self)
        self._ahead_s = self.machine.wall_ahead_s
        self._behind_s = 0.0
        self._marks = -1
        self._unsaved: tuple[Intent, Intent] | None = None
        self._events: deque[Event] = deque()
        self._still: frozenset[str] = frozenset()
        self._timer_at = inf
        self._sample_turn = 0
        self._resting = False
        for name in (self.lender, subjects.ALL_LENDERS):
            self._server.subscribe(self.line, subjects.control(name), self._on_control)
        self.world.note(self.name, "starts")
        self.post(CapabilitiesFound(self._capabilities))
        self.post(DevicesFound(self.machine.devices))
        self.post(UsageRecalled((), 0))
        self.post(JobsRecalled(tuple(self.machine.disk.jobs_done.values())))
        self.load()
        self.after(SETTLE_S, self._sample, 0)
        self.after(self._rng.uniform(*CONNECT_S), self.line.open)

    def crash(self) -> None:
        """Be killed; the sandboxes die with it. It is started again if it is wanted."""
        self.world.note(self.name, "ends")
        self.die()
        self.line.close()
        self._server.unsubscribe(self.line)
        self.machine.end_all()
        pause_s = self._rng.uniform(*RESTART_S)
        self.world.at(self.world.now + pause_s, self.world.fate, self._start_again)

    def _start_again(self) -> None:
        if self.wanted and not self.machine.asleep:
            self.start()
        elif self.wanted:
            self.world.at(self.world.now + 1.0, self.world.fate, self._start_again)

    def drain(self, within_s: float) -> None:
        """End in good order, and be started again."""
        self.draining = True
        self.post(DrainRequested(self.now() + within_s))
        self.after(within_s + REPORT_GRACE_S, self._end_drain)

    def _end_drain(self) -> None:
        if self.draining:
            self.crash()

    def suspend(self) -> None:
        """Stand still."""
        super().suspend()
        self._still_since = self.world.now

    def resume(self) -> None:
        """Go on; a clock that was set meanwhile is news only now."""
        if self.suspended and self.machine.clock_set_at >= self._still_since:
            self.machine.clock_set_at = self.world.now
        super().resume()

    # its clock: never going back

    def now(self) -> float:
        """Return the core's time."""
        return EPOCH + self.world.now + self._ahead_s

    def _follow_clock(self) -> None:
        self._ahead_s = max(self._ahead_s, self.machine.wall_ahead_s)
        behind_s = round(max(0.0, self._ahead_s - self.machine.wall_ahead_s), 1)
        if behind_s != self._behind_s:
            self._behind_s = behind_s
            self.post(WallClockRead(behind_s))

    # the owner's words

    def load(self) -> None:
        """Read consent and intent."""
        disk = self.machine.disk
        self._marks = disk.marks
        self._follow_clock()
        self.post(ConsentLoaded(disk.consent))
        intent = disk.intent
        if self._unsaved is not None and self._unsaved[0] == intent:
            intent = self._unsaved[1]
        self.post(IntentLoaded(intent))

    def pause(self, intent: Intent) -> None:
        """Take up the owner's pause, as the control socket brings it."""
        disk = self.machine.disk
        if intent.paused_at < disk.intent.paused_at <= self.machine.wall():
            self.load()
            return
        self._unsaved = disk.intent, intent
        self._follow_clock()
        self.post(IntentLoaded(intent))
        if intent.stops(self.machine.wall()):
            self.machine.freeze_all()
        if disk.intent != intent:
            disk.keep_intent(intent)
        self._unsaved = None

    # the machine

    def announce_sleep(self) -> None:
        """The machine is about to sleep."""
        self.post(SleepAnnounced())

    def woken(self, slept_s: float) -> None:
        """It slept."""
        self._ahead_s = max(self._ahead_s, self.machine.wall_ahead_s)
        self.post(WokenUp(slept_s))

    def sample(self) -> None:
        """Take a reading now, beside those that come by themselves."""
        self._follow_clock()
        if self._marks != self.machine.disk.marks:
            self.load()
        if self.machine.disk.blobs:
            self.post(DiskSampled(DISK_FREE_BYTES, tuple(self.machine.disk.blobs)))
        self.post(MachineSampled(self.machine.signals()))

    def _sample(self, turn: int) -> None:
        if turn != self._sample_turn:
            return
        self.sample()
        self._resting = not self.machine.sandboxes
        self._sample_in(IDLE_SAMPLE_S if self._resting else BUSY_SAMPLE_S)

    def _sample_in(self, wait_s: float) -> None:
        self._sample_turn += 1
        self.after(wait_s, self._sample, self._sample_turn)

    def told(self, box: Sandbox, event: Event) -> None:
        """Take up what a sandbox says, unless it was closed."""
        if box.closed:
            return
        if isinstance(event, SandboxGone | PreparationFailed):
            self.load()
            if box.closed:
                return
        self.post(event)

    # NATS

    def _on_state(self, up: bool) -> None:  # noqa: FBT001 - a callback
        if up:
            self.post(BrokerConnected())
            if not self._joined:
                self._joined = True
                self.reporter.resume()
        else:
            self.post(BrokerDisconnected())
            self.queues.on_down()

    def _on_control(self, _subject: str, payload: bytes, _reply_to: str) -> None:
        control = decode(Control, payload)
        match control.kind:
            case "open":
                self.post(ClassesOpened(control.classes, control.stand_s))
            case "cancel":
                self.post(LeasesCancelled(control.leases))
            case "start":
                self.post(GangGathered(control.leases))
            case "hello":
                self.post(BrokerGreeted())

    # the core

    def post(self, event: Event) -> None:
        """Handle an event; one that comes up meanwhile is handled after it."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events and self.alive:
                happened = self._events.popleft()
                if isinstance(happened, IntentLoaded | MachineSampled):
                    self._look()
                self._handle(happened)
        finally:
            self._handling = False
        if self.alive:
            self._arm()

    def _look(self) -> None:
        still = self.machine.standing()
        if still or self._still:
            self._handle(StandstillSeen(still))
        self._still = still

    def _handle(self, event: Event) -> None:
        self.world.note(self.name, type(event).__name__)
        decided = self.core.handle(self.now(), event)
        self._watch.handled(self, event, decided)
        for effect in decided:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case effects.SendReport():
                report = effect.report
                word = report.outcome if report.final else "goes on"
                results = len(report.results)
                self.world.note(self.name, f"reports {effect.lease}: {results} results, {word}")
                self.reporter.send(effect.lease, effect.number, effect.report)
            case effects.WriteReceipt():
                pass  # `watch` counts them
            case effects.KeepJobDone():
                self.machine.disk.keep_job_done(effect.done)
            case effects.PurgeSubmitter():
                self.reporter.purge(effect.submitter)
            case effects.AbandonCheckpoint():
                self.machine.abandon(effect.lease)
            case effects.LetSleep():
                self.on_let_sleep()
            case effects.Exit():
                self.after(SENT_S, self._end_drain)
            case _ if isinstance(effect, effects.SandboxEffect):
                self._perform_on_sandbox(effect)
            case _:
                self.queues.perform(effect)

    def _perform_on_sandbox(self, effect: effects.SandboxEffect) -> None:
        machine = self.machine
        match effect:
            case effects.OpenSandbox():
                self.world.note(self.name, f"opens {effect.lease.lease}")
                self._open(effect)
            case effects.RunTasks():
                machine.run(effect.lease, effect.tasks)
            case effects.FreezeSandbox():
                machine.freeze(effect.lease)
            case effects.ThawSandbox():
                self._thaw(effect.lease)
            case effects.TerminateSandbox():
                machine.terminate(effect.lease)
            case effects.KeepSandbox():
                machine.keep(effect.lease)
            case effects.CloseSandbox():
                machine.close(effect.lease, save=effect.save)
            case effects.AllowNetwork():
                raise AssertionError(f"no job here has a network: {effect}")

    def _open(self, effect: effects.OpenSandbox) -> None:
        self.machine.open(effect)
        program = effect.spec.program
        if program is not None and program.size_bytes >= OFFERED_BLOB_BYTES_MIN:
            self.machine.disk.blobs[program.sha256] = None
        if self._resting:
            self._resting = False
            self._sample_in(BUSY_SAMPLE_S)

    def _thaw(self, lease: str) -> None:
        """Let it go on, unless the owner paused meanwhile and we have not been told yet."""
        word = self.machine.disk.intent
        if word.stops(self.machine.wall()):
            self._events.append(IntentLoaded(word))
        else:
            self.machine.thaw(lease)

    def _arm(self) -> None:
        deadline = self.core.next_deadline()
        if deadline is None:
            return
        at = self.world.now + max(0.0, deadline - self.now())
        if at < self._timer_at:
            self._timer_at = at
            self.after(at - self.world.now, self._on_timer, at)

    def _on_timer(self, at: float) -> None:
        if at != self._timer_at:
            return
        self._timer_at = inf
        deadline = self.core.next_deadline()
        if deadline is not None and deadline <= self.now() + 1e-9:
            self.post(TimeAdvanced())
        else:
            self._arm()
