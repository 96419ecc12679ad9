"""nats-py's client, proof against bytes that a hostile publisher may put on the wire.

The server passes on subjects and header blocks that are no UTF-8. nats-py decodes them in its
read loop, where a UnicodeDecodeError ends the loop: one such message would leave a connection
deaf, and in a stream it would do so again after every restart.
"""

from nats.aio.client import Client
from nats.aio.msg import Msg


class HardenedClient(Client):
    """Replaces what can't be decoded by U+FFFD, which no valid id contains."""

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        return self.msg_class(
            _client=self,
            subject=subject.decode(errors="replace"),
            reply=reply.decode(errors="replace"),
            data=data,
            headers=headers,
            _sid=sid,
        )

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        try:
            parsed: dict[str, str] | None = await super()._process_headers(headers)
        except (UnicodeDecodeError, IndexError):
            return None
        return parsed
