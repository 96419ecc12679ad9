"""The way into a fleet: ask as a stranger, try what was given, keep it."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lender.cli.exits import CommandError, Exit
from lender.link.credentials import credentials
from lender.link.enrolling import Applicant, RefusedError, Wanted, ask, connect_as_stranger
from lender.link.membership import Membership, MembershipError
from lender.link.trying import lets_in
from lender.link.vouching import believed
from lender.protocol.signature import Signer
from lender.protocol.strangers_text import visible
from lender.service.places import make_folder

_CONNECT_S = 10.0
_NOBODY_S = 5.0

Progress = Callable[[str | None, float, str], None]
"""Told the code, for how much longer it is waited, and what is in the way."""


class Applying(NamedTuple):
    """Who asks whom for what, and where the answer is kept."""

    url: str
    ca: Path | None
    signer: Signer
    seed: bytes
    wanted: Wanted
    folder: Path
    wait_s: float


async def apply(applying: Applying, progress: Progress) -> Membership:
    """Ask until we are let in, and keep what lets us in once it has been seen to.

    Raises:
        CommandError: refused, or not approved in time.
        LinkError: the server can't be reached or used.
        MembershipError: it can't be kept.
    """
    ends_at = time.monotonic() + applying.wait_s
    applicant = Applicant(applying.signer, applying.wanted, os.urandom)
    heard_at = time.monotonic()

    def tell() -> None:
        nonlocal heard_at
        code = applicant.code if applicant.waits else None
        if code is not None:
            heard_at = time.monotonic()
        trouble = applicant.why_anew
        if time.monotonic() > heard_at + _NOBODY_S:
            trouble = trouble or "no broker answers yet"
        progress(code, ends_at - time.monotonic(), trouble)

    ca = None if applying.ca is None else _content(applying.ca)
    connect_s = min(_CONNECT_S, applying.wait_s)
    stranger = await connect_as_stranger(applying.url, applying.ca, connect_s)
    async with stranger:
        try:
            async with asyncio.timeout(applying.wait_s):
                while True:
                    answer = await ask(stranger, applicant, tell)
                    text = credentials(answer.token or "", applying.seed)
                    for known in believed(ca, answer.authorities):
                        if await _lets_in(applying, text, known):
                            return Membership.write(applying.folder, applying.url, text, known)
                    # It was revoked since: what is later than that needs another approval.
                    applicant.is_no_good(answer.at)
        except RefusedError as error:
            raise CommandError(Exit.NOT_PERMITTED, visible(str(error))) from error
        except TimeoutError:
            if applicant.code is None:
                raise CommandError(
                    Exit.UNREACHABLE,
                    "no broker answers there: see that `lender-broker serve` runs, and that it "
                    "has a deployment (`lender-broker init`)",
                ) from None
            raise CommandError(
                Exit.FAILED,
                "nobody has approved it in time; run this again for another code",
            ) from None


def vouched_alike(known: Membership, ca: Path | None) -> bool:
    """Tell whether what is kept asks of the server at least what `ca` does.

    Raises:
        CommandError: one of the files can't be read.
    """
    return ca is None or (known.ca is not None and _content(known.ca) == _content(ca))


async def _lets_in(applying: Applying, text: str, authorities: bytes | None) -> bool:
    try:
        make_folder(applying.folder)
        with tempfile.TemporaryDirectory(prefix=".try.", dir=applying.folder) as folder:
            tried = Membership.write(Path(folder), applying.url, text, authorities)
            return await lets_in(tried, applying.signer.public_key)
    except OSError as error:
        raise MembershipError(f"can't write {error.filename}: {error.strerror}") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(Exit.USAGE, f"can't read {path}: {error.strerror}") from error
