"""Which server, by which key and credentials: as the caller says, the environment, or enrolment."""

import os
from pathlib import Path

from lender.client.errors import ClientError, KeyFault, NotAdmitted, Unreachable
from lender.client.keys import default_key_path, named_path, read_key
from lender.link.connection import ConnectError, Connection, StrangerError, connect
from lender.link.credentials import CredentialsError, without_credentials
from lender.link.membership import Membership, submitters_folder
from lender.protocol.signature import Signer

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
            return await connect(
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
