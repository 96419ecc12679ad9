"""Tries whether a server lets us in, by a connection of its own: before anything depends on it."""

import contextlib
import os
import secrets
from pathlib import Path

from lender.link.connection import ConnectError, connect
from lender.link.membership import Membership, MembershipError
from lender.service.places import make_folder

_TRY_S = 5.0


async def lets_in(known: Membership, public_key: str) -> bool:
    """Tell whether the server lets a key in by what is kept.

    Raises:
        CredentialsError: the file can't be used.
    """
    try:
        connection = await connect(
            known.url,
            name="lender enroll",
            credentials=known.credentials,
            ca=known.ca,
            inbox_prefix=f"_INBOX_{public_key}",
            timeout_s=_TRY_S,
        )
    except ConnectError:
        return False
    await connection.close()
    return True


async def lets_in_by(
    credentials: str, folder: Path, url: str, ca: Path | None, public_key: str
) -> bool:
    """Tell whether it would by these, which are kept in `folder` only while it is tried.

    Raises:
        CredentialsError: the certificates can't be used.
        MembershipError: the folder can't be written.
    """
    path = folder / f".try.{secrets.token_hex(4)}.creds"
    try:
        _write(path, credentials)
        return await lets_in(Membership(url, path, ca), public_key)
    except OSError as error:
        raise MembershipError(f"can't write {error.filename}: {error.strerror}") from error
    finally:
        _remove(path)


async def lets_in_vouched_by(authorities: str, known: Membership, public_key: str) -> bool:
    """Tell whether the server would let us in, were it these that had to vouch for it.

    Raises:
        CredentialsError: the credentials can't be used.
        MembershipError: the folder can't be written.
    """
    folder = known.credentials.parent
    path = folder / f".try.{secrets.token_hex(4)}.pem"
    try:
        _write(path, authorities)
        return await lets_in(Membership(known.url, known.credentials, path), public_key)
    except OSError as error:
        raise MembershipError(f"can't write {error.filename}: {error.strerror}") from error
    finally:
        _remove(path)


def _write(path: Path, text: str) -> None:
    make_folder(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
