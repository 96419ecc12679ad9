"""The form of a grant file: one agreement of the owner's in TOML, checked key by key.

Standard library only. A file of an earlier version means what it meant when the owner agreed to
it: without `when` at any time, without `budget` no bound, without `vram_bytes` no GPU, without
`net` no network, without `net_metered` none that is paid by volume, without `devices` no device. A
key that is not known may restrict, so it makes the grant unusable; so does a `net` that an earlier
version does not know.
"""

import hashlib
import json
import math
import os
import re
import stat
import time
import tomllib
from pathlib import Path
from typing import Any

from lender.core.budget import Bound, Budget, Measure, Period
from lender.core.consent import Grant
from lender.core.schedule import ALWAYS, When, parse_when
from lender.protocol.devices import check_device, devices_of
from lender.protocol.reach import parse_reach

# The same as in lender.protocol.ids (a test holds them together), which imports pydantic.
SUBMITTER_PATTERN = r"U[A-Z2-7]{55}"
WORKLOAD_PATTERN = r"[a-z][a-z0-9-]{0,31}"
SHA256_PATTERN = r"[0-9a-f]{64}"

GRANT_ID_PATTERN = r"[A-Za-z0-9_-]{1,64}"
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9@._-]{0,63}"

_FILE_BYTES_MAX = 64 * 1024
_AMOUNT_MAX = 1 << 53
_BOUND_MAX = 1e24
_DEVICES_MAX = 16
_KEYS = {
    "id": "str",
    "submitter": "str",
    "name": "str",
    "workload": "str",
    "digest": "str",
    "net": "str",
    "net_metered": "bool",
    "devices": "list",
    "when": "str",
    "not_after": "datetime",
    "granted_at": "datetime",
    "granted_by_uid": "int",
    "text_shown_sha256": "str",
    "limits": "dict",
    "budget": "dict",
}
_OPTIONAL_KEYS = {"name", "digest", "net", "net_metered", "devices", "when", "budget"}
_LIMIT_KEYS = {"cpu", "memory_bytes"}
_OPTIONAL_LIMIT_KEYS = {"vram_bytes"}
_MEASURES: tuple[Measure, ...] = ("cpu_s", "moved_bytes", "energy_wh")
_PERIODS: tuple[Period, ...] = ("day", "week")
_BOUNDS = {f"{measure}_per_{per}": (measure, per) for measure in _MEASURES for per in _PERIODS}


class GrantFaultError(Exception):
    """Why a grant file can't be used, and what to do about it."""


def encode_grant(grant: Grant, text_shown: str, name: str, granted_by_uid: int) -> bytes:
    """Return the file that says what the owner agreed to by reading `text_shown`.

    Raises:
        ValueError: a field that `read_grant` would refuse.
    """
    lines = [
        f"# Ends with: lender revoke --grant {grant.id}",
        f"id = {_quoted(grant.id)}",
        f"submitter = {_quoted(grant.submitter)}",
        f"name = {_quoted(name)}" if name else "",
        f"workload = {_quoted(grant.workload)}",
        f"digest = {_quoted(grant.digest)}" if grant.digest else "",
        f"net = {_quoted(','.join(grant.net) or 'none')}",
        "net_metered = true" if grant.net_metered else "",
        f"devices = [{', '.join(map(_quoted, grant.devices))}]" if grant.devices else "",
        f"when = {_quoted(str(grant.when))}",
        f"not_after = {_moment(grant.not_after)}",
        f"granted_at = {_moment(grant.granted_at)}",
        f"granted_by_uid = {granted_by_uid}",
        f"text_shown_sha256 = {_quoted(hashlib.sha256(text_shown.encode()).hexdigest())}",
        "\n[budget]" if grant.budget else "",
        *(f"{one.measure}_per_{one.per} = {one.amount!r}" for one in grant.budget),
        # What must be there comes last: a file that lost its end is none.
        "\n[limits]",
        f"vram_bytes = {grant.vram_bytes}",
        f"cpu = {grant.cpu}",
        f"memory_bytes = {grant.memory_bytes}",
    ]
    content = "\n".join(line for line in lines if line) + "\n"
    try:
        _decode(_parse(content.encode()))
    except GrantFaultError as error:
        raise ValueError(str(error)) from error
    return content.encode()


def read_grant(path: Path) -> tuple[Grant, str]:
    """Return the grant in a file, and what the owner calls its submitter.

    Raises:
        GrantFaultError: its content, owner or mode allows nothing.
        OSError: it can't be read.
    """
    table = _parse(_content(path))
    grant = _decode(table)
    if path.name != f"{grant.id}.toml":
        raise GrantFaultError(f"holds grant {grant.id}: its name should be {grant.id}.toml")
    return grant, table.get("name", "")


def check_owner(status: os.stat_result, what: str) -> None:
    """Refuse what somebody else than this user and root could have written.

    Raises:
        GrantFaultError: somebody could.
    """
    if status.st_uid not in (0, os.geteuid()):
        raise GrantFaultError(f"{what} belongs to uid {status.st_uid}: chown it to the owner")
    if status.st_mode & 0o022:
        raise GrantFaultError(f"{what} can be written by others: chmod go-w")


def _content(path: Path) -> bytes:
    """Content of a plain file of the owner's that is no link: what is checked is what is read."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise GrantFaultError("is no plain file")
        check_owner(status, "it")
        content = file.read(_FILE_BYTES_MAX + 1)
    if len(content) > _FILE_BYTES_MAX:
        raise GrantFaultError(f"is larger than {_FILE_BYTES_MAX} bytes")
    return content


def _parse(content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # a number too long, brackets too deep
        raise GrantFaultError(f"is not TOML: {error}") from error


def _decode(table: dict[str, Any]) -> Grant:
    _check_keys("", table, _KEYS.keys() - _OPTIONAL_KEYS, _OPTIONAL_KEYS)
    for key, value in table.items():
        if type(value).__name__ != _KEYS[key]:
            raise GrantFaultError(f"{key} is no {_KEYS[key]}")
    _check_pattern(table, "id", GRANT_ID_PATTERN)
    _check_pattern(table, "submitter", SUBMITTER_PATTERN)
    _check_pattern(table, "workload", WORKLOAD_PATTERN)
    _check_pattern(table, "name", NAME_PATTERN)
    _check_pattern(table, "digest", SHA256_PATTERN)
    limits = table["limits"]
    _check_keys("limits.", limits, _LIMIT_KEYS, _OPTIONAL_LIMIT_KEYS)
    return Grant(
        id=table["id"],
        submitter=table["submitter"],
        workload=table["workload"],
        digest=table.get("digest"),
        cpu=_whole(limits, "cpu", 1),
        memory_bytes=_whole(limits, "memory_bytes", 1),
        not_after=_timestamp(table, "not_after"),
        granted_at=_timestamp(table, "granted_at"),
        vram_bytes=_whole(limits, "vram_bytes", 0),
        when=_when(table),
        budget=_budget(table.get("budget", {})),
        net=_net(table),
        net_metered=table.get("net_metered", False),
        devices=_devices(table.get("devices", [])),
    )


def _check_keys(prefix: str, table: dict[str, Any], required: set[str], optional: set[str]) -> None:
    unknown = table.keys() - required - optional
    if unknown:
        raise GrantFaultError(f"has an unknown key {prefix + min(unknown)!r}")
    missing = required - table.keys()
    if missing:
        raise GrantFaultError(f"lacks {prefix + min(missing)!r}")


def _check_pattern(table: dict[str, Any], key: str, pattern: str) -> None:
    if key in table and re.fullmatch(pattern, table[key]) is None:
        raise GrantFaultError(f"{key} has not the form {pattern}")


def _whole(limits: dict[str, Any], key: str, least: int) -> int:
    value = limits.get(key, 0)
    if type(value) is not int or not least <= value <= _AMOUNT_MAX:
        raise GrantFaultError(f"limits.{key} is no whole number from {least} to 2^53")
    return value


def _when(table: dict[str, Any]) -> When:
    if "when" not in table:
        return ALWAYS
    try:
        return parse_when(table["when"])
    except ValueError as error:
        raise GrantFaultError(f"when: {error}") from error


def _net(table: dict[str, Any]) -> tuple[str, ...]:
    try:
        return parse_reach(table.get("net", "none"))
    except ValueError as error:
        raise GrantFaultError(f"net: {error}") from error


def _devices(names: list[Any]) -> tuple[str, ...]:
    if len(names) > _DEVICES_MAX or not all(type(name) is str for name in names):
        raise GrantFaultError(f"devices is no list of at most {_DEVICES_MAX} names")
    try:
        return devices_of(map(check_device, names))
    except ValueError as error:
        raise GrantFaultError(f"devices: {error}") from error


def _budget(table: dict[str, Any]) -> Budget:
    _check_keys("budget.", table, set(), set(_BOUNDS))
    for key, amount in table.items():
        if type(amount) not in (int, float) or not 0 < amount < _BOUND_MAX:
            raise GrantFaultError(f"budget.{key} is no positive number")
    return tuple(
        Bound(measure, float(amount), per)
        for key, amount in table.items()
        for measure, per in (_BOUNDS[key],)
    )


def _timestamp(table: dict[str, Any], key: str) -> float:
    if table[key].tzinfo is None:
        raise GrantFaultError(f"{key} has no time zone: end it with Z for UTC")
    timestamp: float = table[key].timestamp()
    return timestamp


def _moment(timestamp: float) -> str:
    """An RFC 3339 date and time with microseconds, in UTC."""
    try:
        # By parts: a far date times a million would lose its last digits.
        whole = math.floor(timestamp)
        microseconds = whole * 1_000_000 + round((timestamp - whole) * 1_000_000)
        seconds, microseconds = divmod(microseconds, 1_000_000)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{microseconds:06d}Z"
    except (OverflowError, OSError) as error:
        raise ValueError(f"{timestamp} is no time") from error


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
