"""The broker's hand on the work queues, as `broker.service.feeder` has it."""

from collections import deque
from typing import TYPE_CHECKING

from sim.jetstream import Record, Stored
from sim.network import Fault

from broker.core.effects import DeleteWork, FeedWork
from broker.core.events import FeedFailed, LeaseFed
from lender.protocol import subjects
from lender.protocol.streams import WORK, consumer_config

if TYPE_CHECKING:
    from sim.serving import Service

STORED_WITHIN_S = 10.0
PAUSE_S = 0.05
PAUSE_MAX_S = 2.0


class Feeder:
    """Carries out FeedWork and DeleteWork, each in order; a broken line only delays it."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._server = service.server
        self._feeds: deque[FeedWork] = deque()
        self._deletions: deque[DeleteWork] = deque()
        self._queues: dict[str, None] = {}
        self._making = False
        self._deleting = False
        self._pause_s = PAUSE_S

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self._feeds and not self._deletions

    def feed(self, effect: FeedWork) -> None:
        """Queue a lease."""
        self._feeds.append(effect)
        self._pump()

    def delete(self, effect: DeleteWork) -> None:
        """Queue a deletion."""
        self._deletions.append(effect)
        if not self._deleting:
            self._deleting = True
            self._delete_first()

    def on_state(self, up: bool) -> None:  # noqa: FBT001 - a callback
        """Take up that the line broke or is back."""
        if up:
            self._pump()
        else:
            self._queues.clear()  # the server may come back on another store

    def _pump(self) -> None:
        while self._feeds and not self._making and self._service.line.connected:
            token = self._feeds[0].class_token
            if token not in self._queues:
                self._making = True
                config = consumer_config(token)
                self._service.call(
                    "feed",
                    lambda config=config: self._server.js.ensure_consumer(config),
                    lambda answer, token=token: self._made(token, answer),
                )
                return
            self._publish(self._feeds.popleft())

    def _made(self, token: str, answer: object) -> None:
        self._making = False
        if isinstance(answer, Fault):
            self._tell(FeedFailed(self._feeds.popleft().lease_id, answer.value))
        else:
            self._queues[token] = None
        self._pump()

    def _publish(self, effect: FeedWork) -> None:
        record = Record(subjects.work(effect.class_token), effect.payload, effect.headers)
        lease = effect.lease_id

        def settle(answer: object) -> None:
            if isinstance(answer, Stored):
                self._tell(LeaseFed(lease, answer.sequence))
            else:
                self._tell(FeedFailed(lease, str(answer)))

        self._service.call(
            "feed", lambda: self._server.store(WORK, [record]), settle, STORED_WITHIN_S
        )

    def _delete_first(self) -> None:
        sequence = self._deletions[0].sequence

        def settle(answer: object) -> None:
            if isinstance(answer, Fault):
                self._service.after(self._pause_s, self._delete_first)
                self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)
                return
            self._pause_s = PAUSE_S
            self._deletions.popleft()
            self._deleting = bool(self._deletions)
            if self._deleting:
                self._delete_first()

        self._service.call("delete", lambda: self._server.js.delete(WORK, sequence), settle)

    def _tell(self, event: LeaseFed | FeedFailed) -> None:
        self._service.after(0.0, self._service.handle, event)
