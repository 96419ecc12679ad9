"""What submitters ask, on its way to the core: as `broker.service.submissions` and `.intake` do it.

Lanes and pages are far shorter than theirs, and each message takes its time, so that lanes fill.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sim.jetstream import Message

from broker.core.events import CancelRequested, JobSubmitted
from broker.core.intake.arrivals import Arrivals
from broker.core.intake.lanes import Lanes
from lender.protocol import streams
from lender.protocol.subjects import parse_job_subject

if TYPE_CHECKING:
    from sim.serving import Service

LANE_MAX = 6
LAG_MAX = 16
PAGE = 8
OWN_PAGE = 4
TAKES_S = 0.004
PAUSE_S = 0.05

_CANCEL = "cancel."


class Intake:
    """One reader of all, which passes by what finds no room; and a lane for each submitter."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._jobs = service.server.js.streams[streams.JOBS]
        self._arrivals = Arrivals()
        self._lanes: Lanes[tuple[str, Message]] = Lanes()
        self._busy = self._catches_up = self._lags = False

    @property
    def position(self) -> int:
        """Sequence of the last message that was read."""
        return self._arrivals.position

    @property
    def idle(self) -> bool:
        """Whether all that was read was also taken up."""
        return not (self._busy or len(self._lanes) or self._arrivals.behind)

    def replayed(self, message: Message, *, put_off: bool) -> None:
        """Note a message that the core has had in its replay, or wants to have later."""
        arrivals, who = self._arrivals, _submitter(message)
        arrivals.position = message.sequence
        if put_off or (_cancels(message) and who in arrivals.behind):
            arrivals.put_off(who, message.sequence)
        else:
            arrivals.took_one(who)

    def put_off(self, message: Message) -> None:
        """Note a message that the core has not taken, though it has had later ones."""
        arrivals, who = self._arrivals, _submitter(message)
        arrivals.took_one(who)
        arrivals.put_off(who, message.sequence)
        arrivals.took_one(who)

    def read(self) -> None:
        """Read the ledger on to its end."""

        def op() -> tuple[list[Message], int]:
            return self._jobs.page(self.position + 1, PAGE), self._jobs.last_sequence

        def done(answer: object) -> None:
            if not isinstance(answer, tuple):
                return
            page, last = answer
            for message in page:
                if message.sequence > self.position:  # else it was read twice at once
                    self._came(message)
            self._lags = last - self.position > LAG_MAX
            if (self._lags or self._arrivals.behind) and not self._catches_up:
                self._catches_up = True
                self._catch_up()
            if len(page) == PAGE:
                self.read()

        self._service.call("jobs", op, done)

    def _came(self, message: Message) -> None:
        who = _submitter(message)
        if self._arrivals.came(who, message.sequence):
            if self._has_room(who):
                self._put(who, message)
                return
            self._arrivals.put_off(who, message.sequence)
        if _cancels(message) and self._has_room(f"!{who}"):
            self._put(f"!{who}", message)

    # what was passed by

    def _catch_up(self) -> None:
        wanted = dict.fromkeys(self._arrivals.behind)
        if self._lags:
            wanted |= dict.fromkeys(sorted(self._service.core.state.submitters))
        if not wanted:
            self._catches_up = False
            return
        self._read_own([who for who in wanted if self._is_low(who)], brought=0)

    def _read_own(self, submitters: list[str], *, brought: int) -> None:
        if not submitters:
            if brought:
                self._catch_up()
            else:
                self._service.after(PAUSE_S, self._catch_up)
            return
        who, *others = submitters
        first = self._arrivals.wanted_from(who)

        def op() -> list[Message]:
            held = self._jobs.messages.items()
            own = (one for sequence, one in held if sequence >= first and _submitter(one) == who)
            return [one for one, _ in zip(own, range(OWN_PAGE), strict=False)]

        def done(page: object) -> None:
            taken = self._take_page(who, page) if isinstance(page, list) else 0
            self._read_own(others, brought=brought + taken)

        self._service.call("own jobs", op, done)

    def _take_page(self, who: str, page: Iterable[Message]) -> int:
        arrivals, taken, message = self._arrivals, 0, None
        for message in page:
            if arrivals.wants(who, message.sequence):
                if not self._has_room(who):
                    break
                self._put(who, message)
                taken += 1
            arrivals.took(who, message.sequence)
        if message is None and who in arrivals.behind:
            arrivals.took(who, self.position)
        return taken

    # the lanes

    def _has_room(self, lane: str) -> bool:
        return self._lanes.waiting(lane)[0] < LANE_MAX

    def _is_low(self, lane: str) -> bool:
        return self._lanes.waiting(lane)[0] <= LANE_MAX // 2

    def _put(self, lane: str, message: Message) -> None:
        self._lanes.put(lane, (lane, message), len(message.payload))
        self._service.shell.watch.waits(self._service, lane)
        self._take_first()

    def _take_first(self) -> None:
        first = None if self._busy else self._lanes.take()
        if first is None:
            return
        self._busy = True
        lane, message = first
        self._service.shell.watch.served(self._service, lane)
        self._service.handle(
            CancelRequested(message.subject)
            if _cancels(message)
            else JobSubmitted(message.subject, message.headers, message.payload)
        )
        self._service.after(TAKES_S, self._taken)

    def _taken(self) -> None:
        self._lanes.charge(TAKES_S)
        self._busy = False
        self._take_first()


def _submitter(message: Message) -> str:
    return parse_job_subject(message.subject).submitter


def _cancels(message: Message) -> bool:
    return message.subject.startswith(_CANCEL)
