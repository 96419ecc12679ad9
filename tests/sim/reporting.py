"""Lenderd's reports, each lease's in order until it is answered, as `lender.daemon.reporter`."""

from collections import deque
from typing import TYPE_CHECKING

from sim.disk import DiskFullError, Spooled
from sim.network import Fault

from lender.core.events import ReportAnswered
from lender.protocol import subjects
from lender.protocol.codec import decode, encode
from lender.protocol.lease import Done, DoneReply

if TYPE_CHECKING:
    from sim.lender_shell import LenderShell

DONE_TIMEOUT_S = 5.0
RETRY_S_MIN = 0.1
RETRY_S_MAX = 2.0


class Reporter:
    """One queue per lease with unanswered reports."""

    def __init__(self, shell: "LenderShell") -> None:
        self._shell = shell
        self._disk = shell.machine.disk
        self._waiting: dict[str, deque[Spooled]] = {}
        self._delay_s: dict[str, float] = {}
        self._turns: dict[str, int] = {}

    @property
    def idle(self) -> bool:
        """Whether everything was answered."""
        return not self._waiting

    def resume(self) -> None:
        """Send what an earlier life left behind."""
        for report in self._disk.pending():
            self._queue(report)

    def send(self, lease: str, number: int, report: Done) -> None:
        """Spool a report and see it answered."""
        spooled = Spooled(report.submitter, lease, number, encode(report))
        try:
            self._disk.put(spooled)
        except DiskFullError:
            self._shell.world.stats["reports not spooled"] += 1
        self._queue(spooled)

    def purge(self, submitter: str) -> None:
        """Drop a submitter's results that were not answered; the last word is still said."""
        self._disk.purge(submitter)
        for lease, waiting in list(self._waiting.items()):
            if not waiting or waiting[0].submitter != submitter:
                continue
            del self._waiting[lease]
            self._turns[lease] = self._turns.get(lease, 0) + 1
            last = waiting[-1]
            report = decode(Done, last.payload)
            if report.final:
                outcome = "revoked" if report.outcome == "finished" else report.outcome
                emptied = report.model_copy(update={"results": (), "outcome": outcome})
                self._queue(last._replace(payload=encode(emptied)))

    def _queue(self, report: Spooled) -> None:
        waiting = self._waiting.setdefault(report.lease, deque())
        waiting.append(report)
        if len(waiting) == 1:
            self._delay_s[report.lease] = RETRY_S_MIN
            self._ask(report.lease, self._turns.setdefault(report.lease, 0))

    def _ask(self, lease: str, turn: int) -> None:
        if self._turns.get(lease) != turn:
            return
        report = self._waiting[lease][0]
        shell = self._shell
        shell.line.request(
            subjects.done(shell.lender),
            report.payload,
            lambda answer: self._take(lease, turn, report, answer),
            DONE_TIMEOUT_S,
        )

    def _take(self, lease: str, turn: int, report: Spooled, answer: object) -> None:
        if self._turns.get(lease) != turn:
            return  # purged meanwhile
        if isinstance(answer, Fault):
            delay_s = self._delay_s[lease]
            self._delay_s[lease] = min(2 * delay_s, RETRY_S_MAX)
            self._shell.after(delay_s, self._ask, lease, turn)
            return
        assert isinstance(answer, bytes)
        reply = decode(DoneReply, answer)
        waiting = self._waiting[lease]
        waiting.popleft()
        self._disk.spool.pop((lease, report.number), None)
        if waiting:
            self._delay_s[lease] = RETRY_S_MIN
            self._shell.after(0.0, self._ask, lease, turn)
        else:
            del self._waiting[lease], self._delay_s[lease], self._turns[lease]
        accepted = reply.verdict == "committed"
        self._shell.post(ReportAnswered(lease, report.number, accepted, reply.reason))
