"""Withdraws every grant, where the daemon itself has heard the owner's word to do so.

`lender revoke` does this from outside, with or without a daemon; the files, their meaning and their
order are the same: tombstones count at once, that they outlive a power cut comes after the kill.
"""

import contextlib
from typing import NamedTuple

from lender.state.consent_files import (
    load_consent,
    sync_tombstones,
    withdraw_grants,
    write_tombstones,
)
from lender.state.folder import StateFolder
from lender.state.grant_claims import claims
from lender.state.purge import kept_submitters, purge


class Withdrawal(NamedTuple):
    """What was withdrawn.

    Attributes:
        grants: their ids.
        faults: what could not be, and why, in words.
    """

    grants: tuple[str, ...]
    faults: tuple[str, ...]


def withdraw_everything(state: StateFolder, now: float) -> Withdrawal:
    """Withdraw all grants, and what files at fault might allow once they are mended.

    Raises nothing: where no tombstone can be made, the files of the grants are set aside.
    """
    reading = load_consent(state)
    ids, faults = {grant.id for grant in reading.consent.grants}, []
    for fault, claim in claims(state, reading):
        ids |= claim.ids
        if not claim.ids:
            faults.append(f"{fault.path}: {fault.reason}")
    try:
        write_tombstones(state, ids, now)
    except OSError as error:
        faults.append(f"{state.tombstones}: {error.strerror or error}")
        with contextlib.suppress(OSError):
            withdraw_grants(state, ids)
    return Withdrawal(tuple(sorted(ids)), tuple(faults))


def settle(state: StateFolder, withdrawal: Withdrawal) -> tuple[str, ...]:
    """Have it survive a power cut, and delete what is kept of submitters; tells faults.

    To be called once nothing runs any more. It waits for the disk.
    """
    faults = []
    try:
        sync_tombstones(state, withdrawal.grants)
    except OSError as error:
        faults.append(f"{state.tombstones}: {error.strerror or error}")
    _, left = purge(state, sorted(kept_submitters(state)))
    return (*faults, *left)
