"""Writes the owner's agreement down: the one place that makes a grant.

For the owner's verb `grant`. lenderd imports nothing that leads here, and a contract of the imports
holds that: what it runs, and what it hears from outside, finds no code that widens consent.
"""

import os
from pathlib import Path

from lender.core.consent import Grant
from lender.state.durable import write_whole
from lender.state.folder import StateFolder
from lender.state.grant_file import encode_grant


def write_grant(
    state: StateFolder,
    grant: Grant,
    text_shown: str,
    name: str = "",
    granted_by_uid: int | None = None,
) -> Path:
    """Write the owner's agreement to `text_shown`, durably.

    Args:
        state: where.
        grant: its id names the file.
        text_shown: exactly what the owner read and agreed to; its SHA-256 is kept.
        name: what the owner calls the submitter.
        granted_by_uid: who agreed; None: the user of this process.

    Raises:
        FileExistsError: the id is taken.
        ValueError: a field that `load_consent` would refuse.
        OSError: it could not be made durable.
    """
    path = state.grants / f"{grant.id}.toml"
    if path.exists():
        raise FileExistsError(f"grant {grant.id} exists")
    uid = os.getuid() if granted_by_uid is None else granted_by_uid
    write_whole(path, encode_grant(grant, text_shown, name, uid))
    return path
