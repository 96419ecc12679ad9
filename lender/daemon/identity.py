"""The lender's own key: made at the first start, never leaves the machine."""

import os
from pathlib import Path

from lender.protocol.signature import Signer, seed_from_entropy
from lender.service.places import check_private
from lender.state import durable


def load_or_create(path: Path) -> Signer:
    """Return the signer of the seed in `path`, made with mode 0600 if there is none.

    Raises:
        ProtocolError: the file holds no seed.
        OSError: it can't be read or made.
    """
    try:
        return Signer(path.read_bytes())
    except FileNotFoundError:
        pass
    seed = seed_from_entropy(os.urandom(32))
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        check_private(descriptor)
        file.write(seed + b"\n")
        file.flush()
        durable.sync(file.fileno())
    draft.replace(path)
    durable.sync_folder(path.parent)
    return Signer(seed)
