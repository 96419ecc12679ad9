"""One subscription for all replies to a connection, told apart by an integer token."""

from collections.abc import Callable

from nats.aio.msg import Msg

from lender.link.hardened import HardenedClient

Handler = Callable[[int, Msg], None]
"""Called with the token and the message; must neither block nor raise."""


class Inbox:
    """Routes replies to handlers: a dictionary look-up per message, no task, no timer."""

    def __init__(self, nc: HardenedClient) -> None:
        self.subject = nc.new_inbox()
        self.id = self.subject.rpartition(".")[2]
        """Unique among all connections (a NUID); with a token, a unique name for anything."""
        self._nc = nc
        self._skip = len(self.subject) + 1
        self._handlers: dict[int, Handler] = {}
        self._last_token = 0

    async def open(self) -> None:
        """Subscribe; nats-py subscribes again by itself after a reconnect."""
        subscription = await self._nc.subscribe(f"{self.subject}.*", cb=self._route)
        self._nc.handle_at_once(subscription, self._handle)

    def add(self, handler: Handler) -> tuple[int, str]:
        """Register a handler; returns its token and the reply subject that leads to it."""
        self._last_token = token = self._last_token + 1
        self._handlers[token] = handler
        return token, f"{self.subject}.{token}"

    def drop(self, token: int) -> None:
        """Forget a handler; replies that still come are dropped."""
        self._handlers.pop(token, None)

    async def _route(self, msg: Msg) -> None:
        self._handle(msg)

    def _handle(self, msg: Msg) -> None:
        # JetStream's deliveries keep their own subject and so have no place here.
        token = int(msg.subject[self._skip :])
        handler = self._handlers.get(token)
        if handler is not None:
            handler(token, msg)
