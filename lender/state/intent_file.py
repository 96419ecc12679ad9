"""The owner's last word on lending, on disk: the one file that pause, drain and resume write.

Plain values and light imports: a pause must not wait for what reading grants needs. See
`consent_files` for the same in the core's words.
"""

import json
import os
import stat
from typing import Any, NamedTuple

from lender.state.durable import write_whole
from lender.state.folder import INTENT, StateFolder

_BYTES_MAX = 64 * 1024
_YEAR_10000 = 253_402_300_800


class StoredIntent(NamedTuple):
    """The fields of `lender.core.consent.Intent`, in its order, without what that imports."""

    paused: bool = False
    paused_at: float = 0.0
    until: float | None = None
    finish_by: float | None = None
    said_by: int | None = None
    by_mqtt: bool = False

    def holds(self, now: float) -> bool:
        """Tell whether nothing new may be taken at `now`."""
        return self.paused and (self.until is None or now < self.until)


def write_stored(state: StateFolder, intent: StoredIntent) -> None:
    """Keep the owner's last word, durably.

    Raises:
        OSError: it could not be made durable.
    """
    write_whole(state.inside(INTENT), json.dumps({"v": 1, **intent._asdict()}).encode())


def read_stored(state: StateFolder) -> StoredIntent:
    """The owner's last word; what can't be read counts as a pause without an end."""
    try:
        content = json.loads(_read(state.inside(INTENT)))
        if content["v"] == 1:  # a later version may mean more
            until, finish_by = (
                None if content.get(end) is None else moment(content[end]) for end in _ENDS
            )
            return StoredIntent(
                content["paused"] is not False,
                moment(content["paused_at"]),
                until,
                finish_by,
                _uid(content.get("said_by")),
                # A word whose way is not told is the machine's own: MQTT must not end it.
                content.get("by_mqtt") is True,
            )
    except FileNotFoundError:
        return StoredIntent()
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        pass
    return StoredIntent(paused=True)


_ENDS = ("until", "finish_by")


def _uid(value: Any) -> int | None:  # noqa: ANN401 - whatever the file holds
    """Who said it; a file that does not tell is the owner's.

    Raises:
        ValueError: it is no uid.
    """
    if value is not None and (type(value) is not int or value < 0):
        raise ValueError("no uid")
    return value


def _read(path: str) -> bytes:
    """Content of a plain file: whatever else stands there must not hold us up.

    Raises:
        OSError: it can't be read.
        ValueError: it is no plain file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("no plain file")
        return os.read(handle, _BYTES_MAX)
    finally:
        os.close(handle)


def moment(value: Any) -> float:  # noqa: ANN401 - whatever the file holds
    """Seconds since the epoch, before the year 10000.

    Raises:
        TypeError, ValueError, OverflowError: it is none.
    """
    if isinstance(value, bool) or not 0 <= value < _YEAR_10000:
        raise ValueError("no time")
    return float(value)
