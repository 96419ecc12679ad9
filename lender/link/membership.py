"""What enrolment leaves behind: which fleet, what lets us in there, and who vouches for it.

A folder beside the key that it is for; credentials hold that key's seed, so nobody else reads it.
"""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lender.service.places import check_private, make_folder

_URL = "url"
_CREDENTIALS = "fleet.creds"
_AUTHORITY = "ca.pem"
_URL_CHARS_MAX = 4096


class MembershipError(Exception):
    """The folder can't be written; says why."""


@dataclass(frozen=True, slots=True)
class Membership:
    """One fleet, as a machine or a submitter was let in there.

    Attributes:
        url: of its NATS server.
        credentials: file with token and seed.
        ca: certificates of who may vouch for the server; None: it was reached without TLS, or
            those of the machine do.
    """

    url: str
    credentials: Path
    ca: Path | None

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return what stands in the folder; None where nobody was let in."""
        credentials, ca = folder / _CREDENTIALS, folder / _AUTHORITY
        try:
            url = (folder / _URL).read_text()[:_URL_CHARS_MAX].strip()
        except (OSError, UnicodeDecodeError):
            return None
        if not url or not credentials.exists():
            return None
        return cls(url, credentials, ca if ca.exists() else None)

    @classmethod
    def write(cls, folder: Path, url: str, credentials: str, ca: bytes | None) -> Self:
        """Keep it in place of an earlier one; the credentials last, without which nothing counts.

        Raises:
            MembershipError: it can't be written.
        """
        try:
            make_folder(folder)
            (folder / _CREDENTIALS).unlink(missing_ok=True)
            (folder / _AUTHORITY).unlink(missing_ok=True)
            if ca is not None:
                _replace(folder / _AUTHORITY, ca)
            _replace(folder / _URL, f"{url}\n".encode())
            _replace(folder / _CREDENTIALS, credentials.encode())
        except OSError as error:
            raise MembershipError(f"can't write {error.filename}: {error.strerror}") from error
        return cls(url, folder / _CREDENTIALS, None if ca is None else folder / _AUTHORITY)

    def renew(self, credentials: str) -> None:
        """Keep others in place of these, all at once: whoever reads them has one or the other.

        Raises:
            MembershipError: they can't be written; those that were there stay.
        """
        try:
            _replace(self.credentials, credentials.encode())
        except OSError as error:
            raise MembershipError(f"can't write {error.filename}: {error.strerror}") from error

    def vouched_by(self, authorities: str) -> None:
        """Keep others who may vouch for the server, in place of those that may by now.

        Raises:
            MembershipError: they can't be written; those that were there stay.
        """
        if self.ca is None:
            raise MembershipError("nobody vouches for the server: there is nobody to be replaced")
        try:
            _replace(self.ca, authorities.encode())
        except OSError as error:
            raise MembershipError(f"can't write {error.filename}: {error.strerror}") from error


def submitters_folder(key: Path) -> Path:
    """Return where a submitter's is, whose key is in that file."""
    return key.with_name(f"{key.name}.fleet")


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            check_private(descriptor)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
