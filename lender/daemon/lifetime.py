"""One run of lenderd: brings the parts up in order, and takes them down again."""

import asyncio
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lender.core.events import (
    Capabilities,
    CapabilitiesFound,
    DrainRequested,
    Event,
    JobsRecalled,
    ReportAnswered,
    UsageRecalled,
)
from lender.core.lender import Lender
from lender.core.schedule import week_s
from lender.daemon import devices, leftovers
from lender.daemon.agent_reports import AgentReports
from lender.daemon.background import Background
from lender.daemon.capabilities import Trials
from lender.daemon.catalogue import read_catalogue
from lender.daemon.clock import Clock
from lender.daemon.control import ControlServer, Handler
from lender.daemon.core_config import StartError, catalogue_folder, core_config, machine_cores
from lender.daemon.disk_space import DiskSpace
from lender.daemon.footing import footing
from lender.daemon.identity import load_or_create
from lender.daemon.inputs import InputCache
from lender.daemon.jobs_done_file import JobsDoneFile
from lender.daemon.joining import join
from lender.daemon.machinery import Machinery, OnLog
from lender.daemon.owner import OwnerVerbs
from lender.daemon.receipt_head import HeadPublisher
from lender.daemon.receipt_writer import ReceiptWriter
from lender.daemon.reporter import Reporter
from lender.daemon.results import ResultMaker
from lender.daemon.sampling import Sampler
from lender.daemon.seals import Seals
from lender.daemon.settings import DaemonSettings
from lender.daemon.shell import Shell
from lender.daemon.signal_history import SignalHistory
from lender.daemon.sleep_grace import SleepGrace
from lender.daemon.spool import Spool
from lender.daemon.task_logs import TaskLogs
from lender.daemon.today import Today
from lender.daemon.token_keeper import TokenKeeper
from lender.daemon.uploads import Uploads
from lender.daemon.usage_recall import used_since
from lender.daemon.work_queues import WorkQueues
from lender.link import vouching
from lender.link.blobs import Blobs
from lender.link.connection import Closed, Connection, State
from lender.link.credentials import without_credentials
from lender.link.membership import Membership
from lender.protocol.errors import ProtocolError
from lender.protocol.lease import DoneReply
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import SandboxPlan
from lender.sandbox.port import RecordRoots
from lender.sensors import memory
from lender.sensors.machine import MachineSensors
from lender.sensors.presence import PresenceSensors, machine_sources
from lender.service.build import revision
from lender.service.notify import ask_for_time, feed_watchdog, notify
from lender.state.attempt_records import AttemptRecords
from lender.state.consent_files import load_consent
from lender.state.folder import StateFolder, default_state_path
from lender.state.purge import kept_submitters, purge
from lender.state.receipts import ReceiptLog

if TYPE_CHECKING:
    from lender.daemon.home import Home
    from lender.daemon.metrics import DaemonMetrics

log = logging.getLogger(__name__)

REPORT_GRACE_S = 2.0
"""After the drain's deadline: for the last reports to be answered."""

TAKE_DOWN_S = 20.0
"""After that: to end what still runs, and write down what it was."""


class Lifetime:
    """Owns every part. `run` returns after `stop`, or raises what ended it."""

    def __init__(self, settings: DaemonSettings) -> None:
        self._settings = settings
        self._state = StateFolder(Path(settings.state or default_state_path()).absolute())
        self._disk = DiskSpace(self._state.scratch)
        # Of what runs, also once something else was installed over it.
        self._revision = revision()
        self._clock = Clock()
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()
        self._background = Background()
        found_by = devices.adapters(settings, devices.ROOT)
        self._devices = devices.DeviceWatch(found_by, self._post, devices.PACE_S)
        self._connection: Connection | None = None
        self._agents = AgentReports()
        self._metrics: DaemonMetrics | None = None
        self._make_metrics: type[DaemonMetrics] | None = None
        if settings.metrics is not None:
            # Only now, since it is to cost nothing else; not later, when we may be somebody who
            # can't read it.
            from lender.daemon import metrics  # noqa: PLC0415

            self._make_metrics = metrics.DaemonMetrics
        self._home: Home | None = None
        if settings.mqtt is not None:
            from lender.daemon import home  # noqa: PLC0415 - for the same reasons

            self._home = home.Home(
                *(settings.mqtt, settings.name, self._state, self._clock),
                lambda: self._core.status(self._clock()),
            )

    def stop(self) -> None:
        """Hand the work back and end; a second call does not wait for running work."""
        if self._stopping.is_set():
            self._hurried.set()
        self._stopping.set()

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            PrivilegeError, AlreadyRunning, CatalogueError, StartError: what to mend.
        """
        async with footing(self._settings, self._state) as (self._launcher, self._cgroups):
            await self._serve()

    async def _serve(self) -> None:
        try:
            signer = load_or_create(self._state.identity)
        except ProtocolError as error:
            mend = "restore it, or remove it: the machine then enrols under a new key"
            raise StartError(f"{self._state.identity}: {error.reason}; {mend}") from error
        self._public_key = signer.public_key
        self._seals = Seals(signer, self._state.scratch)
        self._workloads = read_catalogue(
            catalogue_folder(self._settings), *self._settings.added_workloads
        )
        log_of_receipts = ReceiptLog(self._state.receipts, signer)
        counted_s = {} if self._cgroups is None else self._cgroups.left_cpu_s
        leftovers.clear(self._state, log_of_receipts, time.time(), counted_s)
        self._receipts = ReceiptWriter(log_of_receipts)
        self._head = HeadPublisher(log_of_receipts, self._receipts, signer, self._clock)
        today = Today(log_of_receipts.read_back())
        self._core = Lender(core_config(self._settings, signer.public_key, self._workloads))
        self._queues = WorkQueues(signer.public_key, self._post)
        self._reporter = Reporter(Spool(self._state), self._queues.ask_commit, self._on_answer)
        self._jobs_done = JobsDoneFile(self._state.jobs_done)
        self._shell = Shell(
            self._core,
            self._clock,
            self._queues,
            self._reporter,
            self._receipts,
            today,
            self._jobs_done,
            signer,
        )
        sampler = self._sampler()
        self._keeper = TokenKeeper(
            *(signer, self._state.identity.read_bytes().strip(), self._settings.name),
            *(lambda: self._core.classes_granted, self._post),
        )
        self._owner = OwnerVerbs(
            self._state,
            self._core,
            self._shell,
            today,
            self._agents,
            sampler,
            self._receipts,
            self._head,
            {"cores": machine_cores(), "memory_bytes": memory.total_bytes()},
            self._facts,
            self._clock,
        )
        control = ControlServer(
            self._state.control_socket, self._handlers(), self._state.owner_uid()
        )
        self._trials = Trials(
            *(self._launcher, self._state.scratch, self._cgroups, self._settings.runtimes)
        )
        await self._trials.tell(self._tell_capabilities)
        self._recall_usage(log_of_receipts)
        self._post(JobsRecalled(tuple(self._jobs_done.read())))
        self._owner.load()
        self._purge_strangers()
        await control.start()
        sleep = SleepGrace(self._post, self._clock).watch
        self._shell.let_sleep = sleep.release
        try:
            self._background.spawn(self._trials.tell_later(self._tell_capabilities))
            self._background.spawn(sampler.run())
            self._background.spawn(self._devices.run())
            self._background.spawn(sleep.run())
            self._background.spawn(self._join_fleet())
            self._background.spawn(self._keeper.run())
            self._background.spawn(self._end_when_out())
            if self._home is not None:
                self._background.spawn(self._home.run(self._owner))
            self._background.spawn(self._watch())
            notify("READY=1")
            log.info("lender %s serves %s", signer.public_key, self._state.path)
            await self._until_stopped()
        finally:
            notify("STOPPING=1")
            await self._take_down(control)

    def _handlers(self) -> dict[str, Handler]:
        """Return the owner's verbs; where metrics are asked for, with what counts them."""
        handlers = self._owner.handlers()
        if self._settings.metrics is not None and self._make_metrics is not None:
            slots = core_config(self._settings, self._public_key, self._workloads).slots
            self._metrics = self._make_metrics(self._state.metrics, self._core, self._clock, slots)
            self._shell.watch = self._metrics.watch
            self._background.spawn(self._metrics.serve(self._settings.metrics))
            handlers |= self._metrics.timed(handlers)
        return handlers

    async def _until_stopped(self) -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        failure = self._background.failure
        waiting: set[asyncio.Future[Any]] = {stopping, failure}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if failure.done():
            stopping.cancel()
            failure.result()
        drain_s = self._settings.drain_s
        log.info("stopping; running work has %.0f s", drain_s)
        ask_for_time(drain_s + REPORT_GRACE_S + TAKE_DOWN_S)
        self._post(DrainRequested(self._clock() + drain_s))
        ends = [asyncio.create_task(one.wait()) for one in (self._shell.finished, self._hurried)]
        await asyncio.wait(
            ends, timeout=drain_s + REPORT_GRACE_S, return_when=asyncio.FIRST_COMPLETED
        )
        for end in ends:
            end.cancel()

    async def _take_down(self, control: ControlServer) -> None:
        # systemd waits for the next of these words until we are gone.
        feeding = asyncio.create_task(feed_watchdog())
        await self._background.close()
        await self._shell.close()
        await self._reporter.close()
        self._jobs_done.close()
        if self._metrics is not None:
            self._metrics.save()
        await control.close()
        await self._queues.close()
        await self._head.publish_now()
        if self._connection:
            await self._connection.close()
        feeding.cancel()

    async def _join_fleet(self) -> None:
        """Connect, however long it takes: the owner's verbs don't wait for it."""
        self._shell.on_consent = self._keeper.look
        self._connection = connection = await join(
            *(self._settings, self._state.membership, self._public_key, self._keeper),
            *(self._on_connection, self._heed),
        )
        blobs = Blobs(connection, self._public_key)
        logs = TaskLogs(self._public_key)
        self._disk.inputs = await InputCache.open(self._state, blobs, self._settings.cache_bytes)
        machinery = Machinery(
            open_sandbox=self._open_sandbox,
            state=self._state,
            records=AttemptRecords(self._state.attempts),
            inputs=self._disk.inputs,
            results=ResultMaker(Uploads(blobs)),
            seals=self._seals,
            receipts=self._receipts,
            logs=logs,
            post=self._post,
            reread_consent=self._owner.load,
            devices=self._devices.views,
        )
        self._shell.equip(machinery)
        await self._queues.start(connection)
        self._background.spawn(self._head.run(connection))
        self._background.spawn(logs.run(connection))
        enrolled = Membership.read(self._state.membership)
        if enrolled is not None and enrolled.ca == self._settings.ca:  # none of the owner's own
            fleet = (self._state.membership, self._settings.url, self._public_key)
            self._background.spawn(vouching.keep(connection, *fleet))
        if left := self._reporter.resume():
            log.info("%d reports of an earlier run are sent again", left)

    def _tell_capabilities(self, found: Capabilities) -> None:
        self._post(CapabilitiesFound(found))

    async def _watch(self) -> None:
        """Feed systemd's watchdog from this very loop; end with the launcher."""
        self._background.spawn(feed_watchdog())
        await self._launcher.gone.wait()
        dead = "the launcher died, and every sandbox with it; restart lenderd"
        self._background.fail(StartError(dead))

    def _facts(self) -> dict[str, Any]:
        return {
            "name": self._settings.name,
            "lender": self._public_key,
            "revision": self._revision,
            "connected": self._queues.connected,
            "url": without_credentials(self._settings.url),
            "not_approved": sorted(self._keeper.not_approved),
            "not_asked": sorted(self._keeper.not_asked),
            "runtimes": self._trials.told,
            "workloads": {name: entry.sha256 for name, entry in self._workloads.items()},
            "devices": self._devices.facts(),
            "cgroup": str(self._cgroups.path) if self._cgroups else "",
            **({"home": self._home.facts()} if self._home is not None else {}),
        }

    def _sampler(self) -> Sampler:
        settings = self._settings
        history = SignalHistory(self._state.path / "signals", days=settings.policy.history_days)
        machine = MachineSensors(settings.exclusive_programs, settings.watts_per_core)
        presence = PresenceSensors(machine_sources(), self._state.owner_uid())
        return Sampler(
            self._shell,
            machine,
            presence,
            self._agents,
            history,
            self._launcher.pid,
            self._clock,
            lambda: self._owner.load_changed(),  # noqa: PLW0108 - it is made with this
            self._disk,
            self._home.outside if self._home is not None else tuple,
        )

    def _recall_usage(self, receipts: ReceiptLog) -> None:
        """Budgets outlive a restart: the log tells what this week has used up."""
        offset_s = time.localtime().tm_gmtoff
        monday = time.time() - week_s(time.time(), offset_s)
        used = tuple(used_since(monday, receipts.read_back()))
        self._post(UsageRecalled(used, offset_s))

    def _purge_strangers(self) -> None:
        """Consent that ended while lenderd was off leaves nothing behind either."""
        held = load_consent(self._state).consent.valid(time.time())
        purge(self._state, kept_submitters(self._state) - {grant.submitter for grant in held})

    def _open_sandbox(
        self, plan: SandboxPlan, record: RecordRoots, tombstone: Path, on_log: OnLog
    ) -> LeaseSandbox:
        network = plan.network and plan.network._replace(barred=self._settings.hosts)
        plan = plan._replace(packages=tuple(self._settings.python_packages), network=network)
        cgroups, places = self._cgroups, self._state.scratch
        return LeaseSandbox(plan, self._launcher, record, (tombstone,), cgroups, on_log, places)

    def _heed(self, settings: DaemonSettings) -> None:
        self._settings = settings

    def _post(self, event: Event) -> None:
        self._shell.post(event)

    def _on_answer(self, lease: str, number: int, reply: DoneReply) -> None:
        accepted = reply.verdict == "committed"
        self._post(ReportAnswered(lease, number, accepted, reply.reason))

    def _on_connection(self, state: State) -> None:
        self._keeper.on_state(state)
        if isinstance(state, Closed) and state.reason:
            self._end_refused(state.reason)

    async def _end_when_out(self) -> None:
        self._end_refused(await self._keeper.out)

    def _end_refused(self, reason: str) -> None:
        error = StartError(f"the NATS server closed the connection for good: {reason}")
        self._background.fail(error)
