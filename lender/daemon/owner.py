"""What lenderd answers on its control socket: the owner's verbs, carried out by the shell."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from lender.core.consent import Intent
from lender.core.events import ConsentLoaded, DrainRequested, IntentLoaded
from lender.core.lender import Lender
from lender.core.status import LenderStatus
from lender.daemon.consent_files import grant_fields, load_consent, read_intent, write_intent
from lender.daemon.control import Handler, Peer
from lender.daemon.shell import Shell
from lender.daemon.state import StateFolder
from lender.daemon.today import Today

Answer = Mapping[str, Any]


class OwnerVerbs:
    """The handlers of the control socket; each returns when what was asked for has happened."""

    def __init__(
        self,
        state: StateFolder,
        core: Lender,
        shell: Shell,
        today: Today,
        facts: Callable[[], Answer],
        clock: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            state: where consent and intent are read from.
            core: asked for its status.
            shell: takes the events.
            today: what ran today.
            facts: what the core does not know: connection, URL, runtimes.
            clock: the daemon's.
        """
        self._state = state
        self._core = core
        self._shell = shell
        self._today = today
        self._facts = facts
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of each verb."""
        return {
            "status": self.status,
            "pause": self.pause,
            "resume": self.reload,
            "reload": self.reload,
            "drain": self.drain,
        }

    def load(self) -> None:
        """Read consent and intent, and carry out what follows from them."""
        self._shell.post(ConsentLoaded(load_consent(self._state).consent))
        self._shell.post(IntentLoaded(read_intent(self._state)))

    def status(self, _request: dict[str, Any], _peer: Peer) -> Answer:
        """Say what is lent, to whom, and what is not and why."""
        reading = load_consent(self._state)
        now = self._clock()
        grants = [
            grant_fields(grant, reading.names.get(grant.submitter, ""))
            for grant in reading.consent.valid(now)
        ]
        ignored = [{"path": str(one.path), "reason": one.reason} for one in reading.ignored]
        return {
            **_lending(self._core.status(now)),
            **self._facts(),
            "grants": grants,
            "ignored_grants": ignored,
            "today": self._today.summary(),
        }

    def pause(self, _request: dict[str, Any], _peer: Peer) -> Answer:
        """Keep the intent durably and freeze everything; tells what stands still."""
        intent = Intent(paused=True, paused_at=time.time())
        jobs = len(self._shell.executions)
        # First what the owner sees: a full disk must not keep anything running.
        self._shell.post(IntentLoaded(intent))
        write_intent(self._state, intent)
        stopped = self._shell.stopped
        report = {
            "verified": all(one.verified for one in stopped),
            "processes": sum(one.processes for one in stopped),
            "jobs": jobs,
            "duration_s": sum(one.duration_s for one in stopped),
        }
        return {"report": report}

    def reload(self, _request: dict[str, Any], _peer: Peer) -> Answer:
        """Read consent and intent again."""
        self.load()
        return {}

    def drain(self, request: dict[str, Any], _peer: Peer) -> Answer:
        """Take no new work; end by the deadline."""
        self._shell.post(DrainRequested(float(request["deadline"])))
        return {}


def _lending(status: LenderStatus) -> dict[str, Any]:
    running = [
        {
            "lease": one.lease,
            "job": one.job,
            "job_name": one.job_name,
            "submitter": one.submitter,
            "workload": one.workload,
            "runtime": one.runtime,
            "state": one.state,
            "tasks_done": one.tasks_total - one.tasks_left,
            "tasks_total": one.tasks_total,
            "since": one.started_at,
        }
        for one in status.attempts
    ]
    headroom = {"cpu": status.cpu_free, "memory_bytes": status.memory_free_bytes}
    return {
        "phase": status.phase,
        "reason": status.reason,
        "slots_total": status.slots_total,
        "slots_free": status.slots_free,
        "running": running,
        "headroom": headroom,
    }
