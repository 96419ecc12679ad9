"""The owner's consent on disk: a file per grant, a tombstone per revoked grant, the intent.

Standard library only: the owner's verbs read and write it without the daemon, and the daemon
itself never writes a grant. Reading fails closed: a grant file with any fault counts as absent, a
tombstone counts by its name alone, tombstones that can't be listed or told apart count as a
revocation of everything, an unreadable intent as a pause.
"""

import hashlib
import json
import os
import re
import stat
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lender.core.consent import Consent, Grant, Intent
from lender.daemon.durable import sync_folder, write_whole
from lender.daemon.intent_file import StoredIntent, read_stored, write_stored
from lender.daemon.state import StateFolder

# The same as in lender.protocol.ids (a test holds them together), which imports pydantic.
SUBMITTER_PATTERN = r"U[A-Z2-7]{55}"
WORKLOAD_PATTERN = r"[a-z][a-z0-9-]{0,31}"
SHA256_PATTERN = r"[0-9a-f]{64}"

GRANT_ID_PATTERN = r"[A-Za-z0-9_-]{1,64}"
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9@._-]{0,63}"

_GRANT_FILE_BYTES_MAX = 64 * 1024
_GRANT_KEYS = {
    "id": "str",
    "submitter": "str",
    "name": "str",
    "workload": "str",
    "digest": "str",
    "not_after": "datetime",
    "granted_at": "datetime",
    "granted_by_uid": "int",
    "text_shown_sha256": "str",
    "limits": "dict",
}
_OPTIONAL_KEYS = {"name", "digest"}
_LIMIT_KEYS = {"cpu", "memory_bytes"}


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
        names: what the owner calls a submitter, by public key.
        ignored: files with a fault.
        ban: why every grant counts as revoked; empty where none does.
    """

    consent: Consent
    names: dict[str, str] = field(default_factory=dict)
    ignored: tuple[IgnoredFile, ...] = ()
    ban: str = ""


class _FaultError(Exception):
    """Why a file of the consent can't be used."""


def read_consent(state: StateFolder) -> Consent:
    """What the owner allows; see `load_consent` for the files that were ignored."""
    return load_consent(state).consent


def load_consent(state: StateFolder) -> ConsentReading:
    """Read all grants and tombstones. Raises nothing: whatever can't be read allows nothing."""
    grants: list[Grant] = []
    names: dict[str, str] = {}
    ignored: list[IgnoredFile] = []
    try:
        paths = _listed(state.grants, ".toml")
        if paths:
            _check_owner(state.grants.stat(), "its folder")
    except FileNotFoundError:
        paths = []
    except (OSError, _FaultError) as error:
        paths = []
        ignored.append(IgnoredFile(state.grants, _reason(error)))
    for path in paths:
        try:
            grant, name = _read_grant(path)
        except FileNotFoundError:
            continue  # withdrawn while we looked
        except (OSError, _FaultError) as error:
            ignored.append(IgnoredFile(path, _reason(error)))
            continue
        grants.append(grant)
        if name:
            names[grant.submitter] = name
    revoked, bans = _read_tombstones(state, any_grant=bool(paths))
    if bans:
        revoked |= {grant.id for grant in grants}
    consent = Consent(tuple(grants), frozenset(revoked))
    ban = f"{bans[0].path.name}: {bans[0].reason}" if bans else ""
    return ConsentReading(consent, names, (*ignored, *bans), ban)


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
        "not_after": grant.not_after,
        "granted_at": grant.granted_at,
    }


def write_grant(
    state: StateFolder,
    grant: Grant,
    text_shown: str,
    name: str = "",
    granted_by_uid: int | None = None,
) -> Path:
    """Write the owner's agreement to `text_shown`, durably. Only for the owner's verb `grant`.

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
    lines = [
        f"# Ends with: lender revoke --grant {grant.id}",
        f"id = {_quoted(grant.id)}",
        f"submitter = {_quoted(grant.submitter)}",
        f"name = {_quoted(name)}" if name else "",
        f"workload = {_quoted(grant.workload)}",
        f"digest = {_quoted(grant.digest)}" if grant.digest else "",
        f"not_after = {_moment(grant.not_after)}",
        f"granted_at = {_moment(grant.granted_at)}",
        f"granted_by_uid = {uid}",
        f"text_shown_sha256 = {_quoted(hashlib.sha256(text_shown.encode()).hexdigest())}",
        "\n[limits]",
        f"cpu = {grant.cpu}",
        f"memory_bytes = {grant.memory_bytes}",
    ]
    content = "\n".join(line for line in lines if line) + "\n"
    try:
        _decode_grant(_parse(content))
    except _FaultError as error:
        raise ValueError(str(error)) from error
    write_whole(path, content.encode())
    return path


def write_tombstones(state: StateFolder, grant_ids: Iterable[str], now: float) -> None:
    """Withdraw these grants, durably and for good.

    On a full disk a tombstone without content is made: its name is what counts.

    Raises:
        OSError: not all of them could be made durable; all were tried.
    """
    state.tombstones.mkdir(mode=0o700, exist_ok=True)
    content = json.dumps({"v": 1, "revoked_at": now, "revoked_by_uid": os.getuid()}).encode()
    fault: OSError | None = None
    for grant_id in grant_ids:
        try:
            write_whole(state.tombstone(grant_id), content)
        except OSError:
            try:
                state.tombstone(grant_id).touch(0o600)
            except OSError as error:
                fault = error
    sync_folder(state.tombstones)
    if fault is not None:
        raise fault


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
    fields = (intent.paused, intent.paused_at, intent.until, intent.finish_by)
    write_stored(state, StoredIntent(*fields))


def _read_tombstones(state: StateFolder, *, any_grant: bool) -> tuple[set[str], list[IgnoredFile]]:
    try:
        paths = _listed(state.tombstones, "")
    except OSError as error:
        # Without a single grant file a missing folder is just one that was not made yet.
        return set(), [IgnoredFile(state.tombstones, _reason(error))] if any_grant else []
    strange = [p for p in paths if re.fullmatch(GRANT_ID_PATTERN, p.name) is None]
    bans = [IgnoredFile(path, "names no grant: remove it if it is not yours") for path in strange]
    return {path.name for path in paths}, bans


def _listed(folder: Path, suffix: str) -> list[Path]:
    paths = sorted(folder.iterdir())
    return [p for p in paths if p.name.endswith(suffix) and not p.name.startswith(".")]


def _read_file(path: Path) -> bytes:
    """Content of a plain file that is no link; the owner's other files stay out of reach."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _FaultError("is no plain file")
        content = file.read(_GRANT_FILE_BYTES_MAX + 1)
    if len(content) > _GRANT_FILE_BYTES_MAX:
        raise _FaultError(f"is larger than {_GRANT_FILE_BYTES_MAX} bytes")
    return content


def _read_grant(path: Path) -> tuple[Grant, str]:
    _check_owner(path.lstat(), "it")
    try:
        table = _parse(_read_file(path).decode())
    except UnicodeDecodeError as error:
        raise _FaultError(f"is not TOML: {error}") from error
    grant = _decode_grant(table)
    if path.name != f"{grant.id}.toml":
        raise _FaultError(f"holds grant {grant.id}: its name should be {grant.id}.toml")
    return grant, table.get("name", "")


def _parse(content: str) -> dict[str, Any]:
    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise _FaultError(f"is not TOML: {error}") from error


def _check_owner(status: os.stat_result, what: str) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise _FaultError(f"{what} belongs to uid {status.st_uid}: chown it to the owner")
    if status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode):
        raise _FaultError(f"{what} can be written by others: chmod go-w")


def _decode_grant(table: dict[str, Any]) -> Grant:
    """Check everything; a key that is not known may restrict, so it makes the grant unusable."""
    unknown = table.keys() - _GRANT_KEYS.keys()
    if unknown:
        raise _FaultError(f"has an unknown key {min(unknown)!r}")
    missing = _GRANT_KEYS.keys() - table.keys() - _OPTIONAL_KEYS
    if missing:
        raise _FaultError(f"lacks {min(missing)!r}")
    for key, value in table.items():
        if type(value).__name__ != _GRANT_KEYS[key]:
            raise _FaultError(f"{key} is no {_GRANT_KEYS[key]}")
    limits = table["limits"]
    if limits.keys() != _LIMIT_KEYS:
        raise _FaultError(f"limits are exactly {sorted(_LIMIT_KEYS)}")
    for key, value in limits.items():
        if type(value) is not int or value < 1:
            raise _FaultError(f"limits.{key} is no positive whole number")
    _check_pattern(table, "id", GRANT_ID_PATTERN)
    _check_pattern(table, "submitter", SUBMITTER_PATTERN)
    _check_pattern(table, "workload", WORKLOAD_PATTERN)
    _check_pattern(table, "name", NAME_PATTERN)
    _check_pattern(table, "digest", SHA256_PATTERN)
    return Grant(
        id=table["id"],
        submitter=table["submitter"],
        workload=table["workload"],
        digest=table.get("digest"),
        cpu=limits["cpu"],
        memory_bytes=limits["memory_bytes"],
        not_after=_timestamp(table, "not_after"),
        granted_at=_timestamp(table, "granted_at"),
    )


def _check_pattern(table: dict[str, Any], key: str, pattern: str) -> None:
    if key in table and re.fullmatch(pattern, table[key]) is None:
        raise _FaultError(f"{key} has not the form {pattern}")


def _timestamp(table: dict[str, Any], key: str) -> float:
    if table[key].tzinfo is None:
        raise _FaultError(f"{key} has no time zone: end it with Z for UTC")
    timestamp: float = table[key].timestamp()
    return timestamp


def _moment(timestamp: float) -> str:
    """An RFC 3339 date and time with microseconds, in UTC."""
    try:
        seconds, microseconds = divmod(round(timestamp * 1_000_000), 1_000_000)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{microseconds:06d}Z"
    except (OverflowError, OSError) as error:
        raise ValueError(f"{timestamp} is no time") from error


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__
