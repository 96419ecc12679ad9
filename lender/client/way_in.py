"""Which server, by which key and credentials: as the caller says, the environment, or enrolment."""

import asyncio
import contextlib
import os
import time
from pathlib import Path

from lender.client.errors import ClientError, KeyFault, NotAdmitted, Unreachable
from lender.client.keys import default_key_path, named_path, read_key
from lender.link.connection import ConnectError, Connection, StrangerError, connect
from lender.link.credentials import CredentialsError, without_credentials
from lender.link.errors import LinkError
from lender.link.membership import Membership, MembershipError, submitters_folder
from lender.protocol.signature import Signer

_LOOK_EVERY_S = 86_400.0
_LOOK_S = 5.0
_KEEP_AFTER_S = 3600.0

DEFAULT_URL = "nats://127.0.0.1:4222"


class WayIn:
    """A submitter's.

    Attributes:
        url: of the NATS server.
        credentials: file that it lets us in by.
        ca: certificates of who may vouch for it; None: any.
    """

    def __init__(
        self, url: str | None, key: Path | None, credentials: Path | None, ca: Path | None
    ) -> None:
        """Choose, of each the first that is said: see `Client`. Nothing is opened yet."""
        self._key = key or default_key_path(os.environ)
        url = url or os.environ.get("LENDER_URL")
        enrolled = Membership.read(submitters_folder(self._key))
        if enrolled is not None and url not in (None, enrolled.url):
            enrolled = None  # that is in another fleet
        self.url = url or (enrolled.url if enrolled else DEFAULT_URL)
        credentials = credentials or named_path(os.environ, "LENDER_CREDS")
        self.credentials = credentials or (enrolled.credentials if enrolled else self._key)
        ca = ca or named_path(os.environ, "LENDER_CA")
        self.ca = ca or (enrolled.ca if enrolled else None)
        ours = enrolled is not None and self.ca == enrolled.ca
        self._membership = submitters_folder(self._key) if ours else None
        """Whose word on who vouches for the server is followed, where it has one."""

    def signer(self) -> Signer:
        """Return the submitter's key.

        Raises:
            KeyFault: it can't be read.
        """
        return read_key(self._key)

    async def connect(self, public_key: str, timeout_s: float) -> Connection:
        """Reach the server within `timeout_s`, as this submitter.

        Raises:
            KeyFault: the credentials can't be read.
            NotAdmitted: the server does not let us in.
            Unreachable: nobody is there.
        """
        try:
            connection = await connect(
                self.url,
                name="lender-client",
                credentials=self.credentials,
                ca=self.ca,
                inbox_prefix=f"_INBOX_{public_key}",
                timeout_s=timeout_s,
            )
        except CredentialsError as error:
            raise KeyFault(str(error), "or name another file by --creds") from error
        except ConnectError as error:
            raise self._fault(error, public_key) from error
        await self._look_who_vouches(connection, public_key)
        return connection

    async def keep(self, connection: Connection, public_key: str) -> None:
        """Follow the fleet's word on who vouches for its servers, until cancelled."""
        if self._membership is not None and self.ca is not None:
            await asyncio.sleep(_KEEP_AFTER_S)
            from lender.link import vouching  # noqa: PLC0415 - most commands end before

            await vouching.keep(connection, self._membership, self.url, public_key)

    async def _look_who_vouches(self, connection: Connection, public_key: str) -> None:
        """Do so once, if the last time is a day ago: most commands end before the hour."""
        if self._membership is None or self.ca is None:
            return
        with contextlib.suppress(LinkError, MembershipError, OSError):  # TimeoutError is one
            if abs(time.time() - self.ca.stat().st_mtime) < _LOOK_EVERY_S:
                return
            from lender.link import vouching  # noqa: PLC0415 - most commands don't

            async with asyncio.timeout(_LOOK_S):
                await vouching.renew(connection, self._membership, self.url, public_key)
            self.ca.touch()

    def _fault(self, error: ConnectError, public_key: str) -> ClientError:
        text, place = str(error).lower(), without_credentials(self.url)
        if isinstance(error, StrangerError):
            return NotAdmitted(
                f"the server at {place} does not know this key",
                f"ask to be let in: `lender enroll {place} --role submitter`",
            )
        # The server resets the connection right behind its refusal, which may then be lost.
        if "authorization" in text or "reset by peer" in text:
            if self.credentials != self._key:
                return NotAdmitted(
                    f"the server at {place} does not take {self.credentials}",
                    "ask its operator for others",
                )
            return NotAdmitted(
                f"the server at {place} does not know this key",
                f"have its operator run `lender-broker allow NAME {public_key}`",
            )
        return Unreachable(
            f"no NATS server at {place}",
            "start one (`lender-broker serve --embedded`), or name another by --url or LENDER_URL",
        )
