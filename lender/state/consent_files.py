"""The owner's consent on disk: a file per grant, a tombstone per revoked grant, the intent.

Standard library only: the owner's verbs read and write it without the daemon. Nothing here makes a
grant: that is `grant_writing`'s, which the daemon may not import. Reading fails closed: a grant
file with any fault counts as absent, a tombstone counts by its name alone, tombstones that can't
be listed or told apart count as a revocation of everything, an unreadable intent as a pause.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lender.core.consent import Consent, Grant, Intent
from lender.state.durable import sync_file, sync_folder, write_whole
from lender.state.folder import StateFolder
from lender.state.grant_file import (
    GRANT_ID_PATTERN,
    GrantFaultError,
    check_owner,
    read_grant,
)
from lender.state.intent_file import StoredIntent, read_stored, write_stored

_GRANT_ID = re.compile(GRANT_ID_PATTERN)


@dataclass(frozen=True, slots=True)
class IgnoredFile:
    """A file of the consent with a fault: a grant that does not count, a tombstone for all."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class ConsentReading:
    """What the files say.

    Attributes:
        consent: what holds.
        names: what the owner calls a submitter, by public key; also of withdrawn grants.
        ignored: files with a fault.
        ban: why every grant counts as revoked; empty where none does.
    """

    consent: Consent
    names: dict[str, str] = field(default_factory=dict)
    ignored: tuple[IgnoredFile, ...] = ()
    ban: str = ""


def read_consent(state: StateFolder) -> Consent:
    """What the owner allows; see `load_consent` for the files that were ignored."""
    return load_consent(state).consent


def load_consent(state: StateFolder) -> ConsentReading:
    """Read all grants and tombstones. Raises nothing: whatever can't be read allows nothing."""
    grants: list[Grant] = []
    names: dict[str, str] = {}
    ignored: list[IgnoredFile] = []
    paths, faults = _grant_files(state)
    ignored.extend(faults)
    for path in paths:
        try:
            grant, name = read_grant(path)
        except FileNotFoundError:
            continue  # withdrawn while we looked
        except (OSError, GrantFaultError) as error:
            ignored.append(IgnoredFile(path, _reason(error)))
            continue
        grants.append(grant)
        if name:
            names[grant.submitter] = name
    revoked, bans = _read_tombstones(state, any_grant=bool(paths or faults))
    if bans:
        revoked |= {grant.id for grant in grants}
    consent = Consent(tuple(grants), frozenset(revoked))
    ban = f"{bans[0].path.name}: {bans[0].reason}" if bans else ""
    return ConsentReading(consent, names, (*ignored, *bans), ban)


def is_revoked(state: StateFolder, grant_id: str) -> bool:
    """Whether a grant was withdrawn, as `read_consent` says of it, by the tombstones alone."""
    revoked, bans = _read_tombstones(state, any_grant=True)
    return bool(bans) or grant_id in revoked


def grant_fields(grant: Grant, name: str) -> dict[str, Any]:
    """Return a grant as JSON values, with what the owner calls its submitter."""
    return {
        "id": grant.id,
        "submitter": grant.submitter,
        "name": name,
        "workload": grant.workload,
        "digest": grant.digest,
        "cpu": grant.cpu,
        "memory_bytes": grant.memory_bytes,
        "vram_bytes": grant.vram_bytes,
        "net": ",".join(grant.net) or "none",
        "net_metered": grant.net_metered,
        "devices": list(grant.devices),
        "when": str(grant.when),
        "budget": [{**asdict(bound), "text": bound.text} for bound in grant.budget],
        "not_after": grant.not_after,
        "granted_at": grant.granted_at,
    }


def write_tombstones(state: StateFolder, grant_ids: Iterable[str], now: float) -> None:
    """Withdraw these grants for good: at once for every reader, durably after `sync_tombstones`.

    On a full disk a tombstone without content is made: its name is what counts.

    Raises:
        OSError: not all of them could be made; all were tried.
    """
    state.tombstones.mkdir(mode=0o700, exist_ok=True)
    content = json.dumps({"v": 1, "revoked_at": now, "revoked_by_uid": os.getuid()}).encode()
    fault: OSError | None = None
    for grant_id in grant_ids:
        try:
            write_whole(state.tombstone(grant_id), content, durable=False)
        except OSError:
            try:
                state.tombstone(grant_id).touch(0o600)
            except OSError as error:
                fault = error
    if fault is not None:
        raise fault


def sync_tombstones(state: StateFolder, grant_ids: Iterable[str]) -> None:
    """Have the tombstones of these grants survive a power cut.

    Raises:
        OSError: not all of them are known to.
    """
    for grant_id in grant_ids:
        sync_file(state.tombstone(grant_id))
    sync_folder(state.tombstones)


def withdraw_grants(state: StateFolder, grant_ids: Iterable[str]) -> tuple[str, ...]:
    """Set grant files aside where no tombstone could be written: a rename needs no room.

    Returns the ids of the grants whose file is out of the way.

    Raises:
        OSError: the folder could not be synced: the renames may not survive a power cut.
    """
    done = []
    for grant_id in grant_ids:
        path = state.grants / f"{grant_id}.toml"
        try:
            path.rename(path.with_suffix(".revoked"))
        except OSError:
            continue
        done.append(grant_id)
    sync_folder(state.grants)
    return tuple(done)


def read_intent(state: StateFolder) -> Intent:
    """The owner's last word on lending at all; one that can't be read counts as a pause."""
    return Intent(*read_stored(state))


def write_intent(state: StateFolder, intent: Intent) -> None:
    """Keep the owner's last word, durably.

    Raises:
        OSError: it could not be made durable.
    """
    fields = (getattr(intent, name) for name in StoredIntent._fields)
    write_stored(state, StoredIntent(*fields))


def _grant_files(state: StateFolder) -> tuple[list[Path], list[IgnoredFile]]:
    """The files to read; those that a fault of their folder makes not count, each by its name."""
    try:
        paths = _listed(state.grants, ".toml")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [IgnoredFile(state.grants, _reason(error))]
    try:
        check_owner(state.grants.stat(), "its folder")
    except (OSError, GrantFaultError) as error:
        return [], [IgnoredFile(path, _reason(error)) for path in paths]
    return paths, []


def _read_tombstones(state: StateFolder, *, any_grant: bool) -> tuple[set[str], list[IgnoredFile]]:
    try:
        found = sorted(os.listdir(state.inside("tombstones")))  # noqa: PTH208 - a task waits for this
    except OSError as error:
        # Without a single grant file a missing folder is just one that was not made yet.
        return set(), [IgnoredFile(state.tombstones, _reason(error))] if any_grant else []
    names = [name for name in found if not name.startswith(".")]
    strange = [state.tombstones / name for name in names if not _GRANT_ID.fullmatch(name)]
    bans = [IgnoredFile(path, "names no grant: remove it if it is not yours") for path in strange]
    return set(names), bans


def _listed(folder: Path, suffix: str) -> list[Path]:
    paths = sorted(folder.iterdir())
    return [p for p in paths if p.name.endswith(suffix) and not p.name.startswith(".")]


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__
