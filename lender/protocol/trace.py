"""Which trace of the submitter's a job belongs to: W3C Trace Context, `traceparent`.

Source: https://www.w3.org/TR/trace-context/
"""

import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

TRACEPARENT_PATTERN = r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
TRACEPARENT_VARIABLE = "TRACEPARENT"
"""In the environment: of whoever submits, and of the task."""

_VALID = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def is_traceparent(text: str) -> bool:
    """Tell whether it has the form that version 00 gives it, and names a trace and a span."""
    return _VALID.fullmatch(text) is not None


def _check(text: str) -> str:
    if not is_traceparent(text):
        raise ValueError("names no trace: the version ff, or an id of nothing but zeros")
    return text


Traceparent = Annotated[str, StringConstraints(pattern=TRACEPARENT_PATTERN), AfterValidator(_check)]
