"""Lenderd's side of the work queues, as `lender.daemon.work_queues` and `lender.link.puller`."""

from typing import TYPE_CHECKING

from sim.jetstream import Delivered, PullExpired
from sim.network import Fault
from sim.server import Server

from lender.core import effects
from lender.core.effects import Effect
from lender.core.events import LeaseDelivered, LeaseMalformed, PullEnded
from lender.protocol import codec, subjects
from lender.protocol.errors import ProtocolError
from lender.protocol.lease import Lease

if TYPE_CHECKING:
    from sim.lender_shell import LenderShell

PULL_AGAIN_S = 0.2
GRACE_S = 2.0


class _Pull:
    def __init__(self, work_class: str, wanted: int) -> None:
        self.work_class = work_class
        self.wanted = wanted


class Queues:
    """Pulls under way, and the messages that were delivered and not answered."""

    def __init__(self, shell: "LenderShell", server: Server) -> None:
        self._shell = shell
        self._server = server
        self._pulls: dict[int, _Pull] = {}
        self._numbers = 0
        self._deliveries: dict[int, Delivered] = {}
        self._handles = 0

    @property
    def unanswered(self) -> int:
        """How many deliveries are remembered."""
        return len(self._deliveries)

    def perform(self, effect: Effect) -> None:
        """Carry out an effect that concerns the queues."""
        js, world = self._server.js, self._shell.world
        match effect:
            case effects.SendOffer():
                shell = self._shell
                shell.line.publish(subjects.offer(shell.lender), codec.encode(effect.offer))
            case effects.PullWork():
                self._pull(effect)
            case effects.AckLease():
                one = self._deliveries.pop(effect.delivery)
                self._say(js.ack, one.consumer, one.message.sequence)
            case effects.ReturnLease():
                one = self._deliveries.pop(effect.delivery)
                delay_s = effect.delay_s
                self._say(lambda: js.nak(world.now, one.consumer, one.message.sequence, delay_s))
            case effects.ForgetDelivery():
                del self._deliveries[effect.delivery]
            case effects.ExtendLease():
                one = self._deliveries[effect.delivery]
                self._say(lambda: js.in_progress(world.now, one.consumer, one.message.sequence))
            case _:
                raise AssertionError(f"no effect of the queues: {effect}")

    def on_down(self) -> None:
        """The line broke: every pull is over."""
        for number in list(self._pulls):
            self._end(number)

    def _say(self, word: object, *args: object) -> None:
        self._shell.line.up("word", self._server.say, word, *args)

    def _pull(self, effect: effects.PullWork) -> None:
        shell = self._shell
        if not shell.line.connected:
            shell.after(PULL_AGAIN_S, shell.post, PullEnded(effect.work_class, refused=False))
            return
        self._numbers += 1
        number = self._numbers
        self._pulls[number] = _Pull(effect.work_class, effect.batch)
        shell.line.up(
            "pull",
            self._server.pull,
            shell.line,
            effect.work_class,
            number,
            effect.batch,
            effect.expires_s,
            lambda sent: self._on_sent(number, sent),
        )
        shell.after(effect.expires_s + GRACE_S, self._end, number)

    def _on_sent(self, number: int, sent: object) -> None:
        pull = self._pulls.get(number)
        if pull is None:
            return  # given up: its queue delivers again
        match sent:
            case Delivered():
                pull.wanted -= 1
                self._deliver(pull.work_class, sent, ends_pull=not pull.wanted)
                if not pull.wanted:
                    del self._pulls[number]
            case PullExpired():
                self._end(number)
            case Fault.NO_RESPONDERS:
                self._end(number, refused=True)
            case _:
                raise AssertionError(sent)

    def _deliver(self, work_class: str, sent: Delivered, *, ends_pull: bool) -> None:
        self._handles += 1
        self._deliveries[self._handles] = sent
        try:
            lease = codec.decode(Lease, sent.message.payload)
        except ProtocolError as error:
            self._shell.post(LeaseMalformed(work_class, self._handles, str(error)))
            if ends_pull:
                self._shell.post(PullEnded(work_class, refused=False))
        else:
            delivered = LeaseDelivered(work_class, self._handles, lease, ends_pull=ends_pull)
            self._shell.post(delivered)

    def _end(self, number: int, *, refused: bool = False) -> None:
        pull = self._pulls.pop(number, None)
        if pull is not None:
            self._shell.post(PullEnded(pull.work_class, refused))
