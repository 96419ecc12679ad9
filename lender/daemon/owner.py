"""What lenderd answers on its control socket: the owner's verbs, carried out by the shell."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from lender.core.consent import Intent
from lender.core.events import ConsentLoaded, IntentLoaded, WallClockRead
from lender.core.lender import Lender
from lender.daemon.agent_reports import AgentReports, ReportError
from lender.daemon.clock import Clock
from lender.daemon.control import Handler, MalformedError
from lender.daemon.peer import Peer
from lender.daemon.receipt_head import HeadPublisher
from lender.daemon.receipt_writer import ReceiptWriter
from lender.daemon.sampling import Sampler
from lender.daemon.shell import Shell
from lender.daemon.status_view import lending
from lender.daemon.today import Today
from lender.protocol.bounds import ENROL_CLASSES_MAX
from lender.sandbox.processes.tree import StopReport
from lender.state.consent_files import grant_fields, load_consent, read_intent, write_intent
from lender.state.folder import StateFolder
from lender.state.intent_file import moment
from lender.state.marks import Mark, marks

Answer = Mapping[str, Any]

_NOT_APPROVED = (
    "the operator has not approved this machine for them; ask for: lender-broker bound {} --add {}"
)
_NOT_ASKED = (
    f"more is granted than what lets this machine in can name ({ENROL_CLASSES_MAX} kinds of work); "
    "revoke what you need not grant"
)


class OwnerVerbs:
    """The handlers of the control socket; each returns when what was asked for has happened."""

    def __init__(
        self,
        state: StateFolder,
        core: Lender,
        shell: Shell,
        today: Today,
        agents: AgentReports,
        sampler: Sampler,
        receipts: ReceiptWriter,
        head: HeadPublisher,
        machine: Answer,
        facts: Callable[[], Answer],
        clock: Clock,
    ) -> None:
        """Prepare.

        Args:
            state: where consent and intent are read from.
            core: asked for its status.
            shell: takes the events.
            today: what ran today.
            agents: takes up what agents of sessions say.
            sampler: asked for sensors at fault.
            receipts: asked for its fault.
            head: asked for what was published.
            machine: its cores and memory.
            facts: what the core does not know: connection, URL, runtimes.
            clock: the daemon's.
        """
        self._state = state
        self._core = core
        self._shell = shell
        self._today = today
        self._agents = agents
        self._sampler = sampler
        self._receipts = receipts
        self._head = head
        self._unsaved: tuple[Intent, Intent] | None = None
        """A pause that could not be saved, after the word that is stored instead."""
        self._marks: tuple[Mark, ...] = ()
        self._machine = machine
        self._facts = facts
        self._clock = clock
        self._behind_s = 0.0

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of each verb."""
        return {
            "status": self.status,
            "pause": self.pause,
            "resume": self.reload,
            "reload": self.reload,
            "presence": self.presence,
            "head": self.head,
        }

    def load(self) -> None:
        """Read consent and intent, and carry out what follows from them.

        A pause that could not be saved holds until a later word.
        """
        self._marks = marks(self._state)
        self._follow_clock()
        self._shell.post(ConsentLoaded(load_consent(self._state).consent))
        self._shell.post(IntentLoaded(self.word()))

    def word(self) -> Intent:
        """Return the word that counts: what is stored, or a pause that could not be."""
        intent = read_intent(self._state)
        if self._unsaved is not None and self._unsaved[0] == intent:
            return self._unsaved[1]
        return intent

    def load_changed(self) -> None:
        """Read them again if the files have changed since: whoever changed them may not tell us.

        Nor does who sets the clock.
        """
        self._follow_clock()
        if marks(self._state) != self._marks:
            self.load()

    def _follow_clock(self) -> None:
        """Have the core hear it if the wall clock was set back: the owner's words go by it."""
        behind_s = self._clock.behind_s()
        if behind_s != self._behind_s:
            self._behind_s = behind_s
            self._shell.post(WallClockRead(behind_s))

    def status(self, _request: dict[str, Any], _peer: Peer) -> Answer:
        """Say what is lent, to whom, and what is not and why."""
        reading = load_consent(self._state)
        now = self._clock()
        grants = [
            grant_fields(grant, reading.names.get(grant.submitter, ""))
            for grant in reading.consent.valid(now)
        ]
        ignored = [{"path": str(one.path), "reason": one.reason} for one in reading.ignored]
        status = self._core.status(now)
        facts = self._facts()
        for grant in grants:
            grant["now"] = status.closed.get(grant["id"], "")
            if (grant["submitter"], grant["workload"]) in facts["not_approved"]:
                grant["now"] = _NOT_APPROVED.format(facts["lender"], grant["submitter"])
            elif (grant["submitter"], grant["workload"]) in facts["not_asked"]:
                grant["now"] = _NOT_ASKED
        held = {grant["submitter"] for grant in grants}
        gone = {
            grant.submitter
            for grant in reading.consent.grants
            if grant.id in reading.consent.revoked and grant.submitter not in held
        }
        return {
            **lending(status, now, self._machine),
            **facts,
            "grants": grants,
            "withdrawn": [
                {"submitter": key, "name": reading.names.get(key, "")} for key in sorted(gone)
            ],
            "ignored_grants": ignored,
            "today": self._today.summary(),
            "budgets": self._core.budgets(now),
            "receipts": {"fault": self._receipts.fault},
            "faults": list(self._sampler.faults),
        }

    def pause(self, request: dict[str, Any], peer: Peer) -> Answer:
        """Keep the intent durably and freeze everything; tells what stands still.

        The owner may say when it ends and what may finish; from anyone else it is a pause, and
        adds nothing to one without an end.
        """
        stored = read_intent(self._state)
        if peer.uid in (0, self._state.owner_uid()):
            intent = Intent(paused=True, paused_at=time.time())
            if "intent" in request:
                intent = _intent(request["intent"])
            # Not by MQTT, whose pause may have been written in the same moment.
            later = not stored.by_mqtt and intent.paused_at < stored.paused_at
            if later and stored.paused_at <= time.time():
                # It waited while we stood still; the owner has said something since.
                self.load()
                return {"report": _report([], 0), "overtaken": True}
        elif stored == Intent(True, stored.paused_at, said_by=stored.said_by):
            intent = stored  # it has no end already, and is the machine's to lift
        else:
            intent = Intent(paused=True, paused_at=time.time(), said_by=peer.uid)
        return {"report": self.obey(intent)}

    def obey(self, intent: Intent) -> Answer:
        """Carry a pause out, then keep it durably; tells what stands still.

        Raises:
            OSError: it holds, but could not be saved.
        """
        stored = read_intent(self._state)
        jobs = sum(not one.idle for one in self._shell.executions.values())
        # First what the owner sees: a full disk must not keep anything running.
        self._unsaved = stored, intent
        self._follow_clock()
        self._shell.post(IntentLoaded(intent))
        stopped = self._shell.freeze_all() if intent.stops(time.time()) else []
        if read_intent(self._state) != intent:
            write_intent(self._state, intent)
        self._unsaved = None
        return _report(stopped, jobs)

    def resume(self, intent: Intent) -> None:
        """Keep that lending goes on, and carry it out as a `lender resume` is.

        Raises:
            OSError: it could not be saved; nothing has changed.
        """
        write_intent(self._state, intent)
        self.load()

    def reload(self, _request: dict[str, Any], _peer: Peer) -> Answer:
        """Read consent and intent again."""
        self.load()
        return {}

    def presence(self, request: dict[str, Any], peer: Peer) -> Answer:
        """Take up what a session's agent says of its user."""
        try:
            self._agents.told(request, peer.uid, time.monotonic())
        except ReportError as error:
            raise MalformedError(str(error)) from error
        return {}

    async def head(self, _request: dict[str, Any], _peer: Peer) -> Answer:
        """Say what was published of the log of receipts."""
        return await self._head.answer()


def _report(stopped: list[StopReport], jobs: int) -> Answer:
    return {
        "verified": all(one.verified for one in stopped),
        "processes": sum(one.processes for one in stopped),
        "jobs": jobs,
        "duration_s": sum(one.duration_s for one in stopped),
    }


def _intent(fields: Any) -> Intent:  # noqa: ANN401 - whatever was sent
    try:
        return Intent(
            paused=True,
            paused_at=moment(fields["paused_at"]),
            until=None if fields.get("until") is None else moment(fields["until"]),
            finish_by=None if fields.get("finish_by") is None else moment(fields["finish_by"]),
        )
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise MalformedError("intent is no object of times in seconds") from error
