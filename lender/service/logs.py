"""What lenderd and the broker write while they run: lines for people, or JSON for a log store."""

import faulthandler
import json
import logging
import sys
import time
from typing import Annotated, Any, Final

from pydantic import AfterValidator

MESSAGE_CHARS_MAX: Final = 8_192
ID_CHARS_MAX: Final = 256

ALWAYS: Final = {
    "time": "when, UTC, RFC 3339, with milliseconds",
    "level": "debug, info, warning or error",
    "logger": "the module that says it",
    "message": f"what it says, for people, cut after {MESSAGE_CHARS_MAX} characters",
}
"""Keys of every line."""

WHERE_KNOWN: Final = {
    "job": "id of the job that it is about",
    "attempt": "number of the attempt",
    "lease": "id of the lease",
    "task": "number of the task in its job",
    "exception": "the traceback of a fault of ours",
}
"""Keys of a line that is about one, in this order; `extra` of the call has them."""

_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def _known_format(form: str) -> str:
    if form not in ("text", "json"):
        raise ValueError("must be text or json")
    return form


LogFormat = Annotated[str, AfterValidator(_known_format)]
"""`text`, or `json`: an object a line, docs/observability.md."""


class JsonLines(logging.Formatter):
    """One JSON object a line; what a peer has said can't end a line, or add a key."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; of the record's fields none but those that are documented."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:MESSAGE_CHARS_MAX],
        }
        for key in WHERE_KNOWN:
            value = record.__dict__.get(key)
            if isinstance(value, int):
                line[key] = value
            elif isinstance(value, str):
                line[key] = value[:ID_CHARS_MAX]
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up(level: str, form: str) -> None:
    """Have everything that this process logs written to standard error.

    And where it was, should it crash or be ended by SIGABRT, as systemd's watchdog does.
    """
    if not faulthandler.is_enabled() and sys.__stderr__ is not None:
        faulthandler.enable(file=sys.__stderr__)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
