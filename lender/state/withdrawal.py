"""Withdraws grants: at once for every reader, durably once nothing runs, then what was kept.

`lender revoke` does this with the owner's own hands, with or without a daemon; lenderd does it
where it has heard the owner's word by MQTT. Standard library only. Three calls, because all that
runs is killed between the first two: on a busy disk it takes seconds until a power cut is outlived.
"""

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from lender.core.consent import Grant
from lender.state.attempt_records import AttemptRecord
from lender.state.consent_files import (
    load_consent,
    sync_tombstones,
    withdraw_grants,
    write_tombstones,
)
from lender.state.folder import StateFolder
from lender.state.grant_claims import GrantClaim, claims
from lender.state.grant_file import GRANT_ID_PATTERN
from lender.state.purge import kept_submitters, purge


@dataclass(frozen=True, slots=True)
class Selection:
    """What to withdraw; several restrictions narrow it."""

    everything: bool = False
    submitters: frozenset[str] | None = None
    workload: str | None = None
    grant: str | None = None

    def ends(self, grant: Grant) -> bool:
        """Whether this grant is among them."""
        return self._matches(grant.id, grant.submitter, grant.workload)

    def stops(self, attempt: AttemptRecord) -> bool:
        """Whether this attempt is, also where its grant's file is gone."""
        return self._matches(attempt.grant, attempt.submitter, attempt.workload)

    def may_end(self, claim: GrantClaim) -> bool:
        """Whether a faulty grant is among them, or can't be shown to be another's."""
        return self.everything or (
            (self.grant is None or self.grant in claim.ids)
            and (self.submitters is None or claim.submitter in {"", *self.submitters})
            and self.workload in {None, claim.workload or self.workload}
        )

    def is_sure_of(self, claim: GrantClaim) -> bool:
        """Whether all that was asked for is known of a faulty grant."""
        asks = (self.submitters is not None, self.workload is not None)
        return self.everything or all(
            said or not asked
            for said, asked in zip((claim.submitter, claim.workload), asks, strict=True)
        )

    def _matches(self, grant: str, submitter: str, workload: str) -> bool:
        return self.everything or (
            self.grant in (None, grant)
            and (self.submitters is None or submitter in self.submitters)
            and self.workload in (None, workload)
        )


EVERYTHING: Final = Selection(everything=True)


class Withdrawal(NamedTuple):
    """What was withdrawn.

    Attributes:
        grants: their ids.
        submitters: whose they are.
        unclear: files of grants that don't count and don't say whose they are: withdrawn too.
        not_withdrawn: what may hold a grant and was not, and why.
        not_saved: why no tombstone is durable; empty if they all are, or that was not tried yet.
        set_aside: grants whose file was put out of the way instead.
    """

    grants: tuple[str, ...] = ()
    submitters: frozenset[str] = frozenset()
    unclear: tuple[str, ...] = ()
    not_withdrawn: tuple[str, ...] = ()
    not_saved: str = ""
    set_aside: tuple[str, ...] = ()


def withdraw(state: StateFolder, selection: Selection, now: float) -> Withdrawal:
    """Withdraw for every reader, with tombstones or, on a full disk, without the grants' files.

    Raises nothing. `save` has it outlive a power cut, and is to follow.
    """
    reading = load_consent(state)
    ended = [grant for grant in reading.consent.grants if selection.ends(grant)]
    kept = {grant.id for grant in reading.consent.grants} - {grant.id for grant in ended}
    ids = {grant.id for grant in ended}
    submitters = {grant.submitter for grant in ended} | (selection.submitters or frozenset())
    unclear, left = [], []
    # A faulty grant file might be mended later: what it would allow then is withdrawn too.
    for fault, claim in claims(state, reading):
        if not selection.may_end(claim):
            continue
        ids |= claim.ids - kept
        submitters |= {claim.submitter} - {""}
        if not claim.ids:
            left.append(f"{fault.path} ({fault.reason})")
        elif not selection.is_sure_of(claim):
            unclear.append(f"{fault.path} ({fault.reason})")
    if any(fault.path == state.grants for fault in reading.ignored):
        ids |= {selection.grant or ""}
    grants = tuple(sorted(one for one in ids if re.fullmatch(GRANT_ID_PATTERN, one)))
    done = Withdrawal(grants, frozenset(submitters), tuple(unclear), tuple(left))
    try:
        write_tombstones(state, grants, now)
    except OSError as error:
        return _set_aside(state, done, error)
    return done


def save(state: StateFolder, withdrawal: Withdrawal) -> Withdrawal:
    """Make a withdrawal outlive a power cut; tells what became of it. Raises nothing.

    It waits for the disk: to be called once nothing runs any more.
    """
    if withdrawal.not_saved:
        return withdrawal
    try:
        sync_tombstones(state, withdrawal.grants)
    except OSError as error:
        return _set_aside(state, withdrawal, error)
    return withdrawal


def forget(
    state: StateFolder, selection: Selection, submitters: Iterable[str], now: float
) -> tuple[int, list[str]]:
    """Delete what is kept of those who may do nothing here any more.

    Args:
        state: of the machine.
        selection: what was withdrawn; of everything, what is kept of anybody goes.
        submitters: whose it was.
        now: seconds since the epoch.

    Returns the disk space freed, and what could not be deleted and why.
    """
    doomed = kept_submitters(state)
    if not selection.everything:
        held = load_consent(state).consent.valid(now)
        doomed &= set(submitters) - {grant.submitter for grant in held}
    return purge(state, sorted(doomed))


def _set_aside(state: StateFolder, withdrawal: Withdrawal, error: OSError) -> Withdrawal:
    """Go without tombstones, and say which grants hold still."""
    reason, set_aside = error.strerror or str(error), tuple[str, ...]()
    with contextlib.suppress(OSError):
        set_aside = withdraw_grants(state, withdrawal.grants)
    after = load_consent(state).consent
    still = {grant.id for grant in after.grants} - after.revoked
    left = [f"{state.grants / one}.toml ({reason})" for one in withdrawal.grants if one in still]
    return withdrawal._replace(
        not_withdrawn=(*withdrawal.not_withdrawn, *left), not_saved=reason, set_aside=set_aside
    )
