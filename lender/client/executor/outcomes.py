"""What became of a call, read from a stranger's bytes. Pure."""

import builtins
import pickle
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lender.client.errors import ContentFault
from lender.client.values import decode
from lender.protocol.strangers_text import visible

_COLUMN_MAX = 10_000
"""Of what a syntax error points at: whoever prints it draws a line so long."""


class RemoteTraceback(Exception):  # noqa: N818 - what CPython calls its own
    """Where an exception came from, on the lender: the `__cause__` of what a future raises."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class RemoteError(Exception):
    """An exception that can't be rebuilt here without a pickle, in words.

    Attributes:
        type_name: of the exception, with its module.
    """

    def __init__(self, type_name: str, text: str) -> None:
        super().__init__(f"{type_name}: {text}")
        self.type_name = type_name


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one call.

    Attributes:
        printed: what it wrote to sys.stdout.
        value: what it returned.
        error: what it raised instead.
    """

    printed: str
    value: Any = None
    error: BaseException | None = None


class _Raised(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    module: str
    name: str
    text: str
    args: list[Any] | None
    traceback: str
    pickle: bytes


def outcome(content: bytes, *, trust: bool) -> Outcome:
    """Read what `program` has left as a task's value.

    Args:
        content: the task's value.
        trust: open pickles, of values and of exceptions.

    Raises:
        UntrustedValue: it is a pickle, and is not trusted.
        ContentFault: it is none of these.
    """
    came = decode(content, trust=trust)
    match came:
        case {"printed": bytes(printed), "value": value}:
            return Outcome(_text(printed), value)
        case {"printed": bytes(printed), "raised": dict(raised)}:
            try:
                error = _error(_Raised.model_validate(raised), trust=trust)
            except ValidationError:
                pass
            else:
                return Outcome(_text(printed), error=error)
    raise ContentFault("the call's outcome is of no known form", "update this client")


def _text(printed: bytes) -> str:
    return printed.decode(errors="backslashreplace")


def _error(raised: _Raised, *, trust: bool) -> BaseException:
    error = _unpickled(raised.pickle) if trust else None
    error = error or _builtin(raised) or _in_words(raised)
    # Whoever does not catch it has it printed.
    error.__cause__ = RemoteTraceback(raised.traceback if trust else visible(raised.traceback))
    return error


def _in_words(raised: _Raised) -> RemoteError:
    return RemoteError(visible(f"{raised.module}.{raised.name}"), visible(raised.text))


def _unpickled(content: bytes) -> BaseException | None:
    try:
        found = pickle.loads(content)  # noqa: S301 - the caller says so
    except Exception:  # noqa: BLE001 - whatever its classes raise; it is told in words then
        return None
    return found if isinstance(found, BaseException) else None


def _builtin(raised: _Raised) -> BaseException | None:
    """One of Python's own, of plain arguments: to make it, and to print it, runs nothing."""
    kind = getattr(builtins, raised.name, None) if raised.module == "builtins" else None
    if raised.args is None or not (isinstance(kind, type) and issubclass(kind, Exception)):
        return None
    shown = [visible(one) if isinstance(one, str) else one for one in raised.args]
    for args in (raised.args, shown):
        error = _made(kind, args)
        if error is not None and not _steers(error):
            return error
    return None


def _made(kind: type[Exception], args: Sequence[Any]) -> Exception | None:
    try:
        error = kind(*args)
    except Exception:  # noqa: BLE001 - of arguments that are not its own
        return None
    return error if _is_sound(error) else None


def _is_sound(error: Exception) -> bool:
    """Tell whether it can be printed: CPython takes the positions in it as they are.

    Up to 3.12.7 it reads memory at that of a UnicodeError, and ends where there is none.
    """
    match error:
        case UnicodeEncodeError() | UnicodeDecodeError() | UnicodeTranslateError():
            return 0 <= error.start <= error.end <= len(error.object)
        case SyntaxError():
            numbers = (error.lineno, error.offset, error.end_lineno, error.end_offset)
            return (
                all(one is None or isinstance(one, int) for one in numbers)
                and all(-1 <= (one or 0) <= _COLUMN_MAX for one in numbers[1::2])
                and all(isinstance(one, str | None) for one in (error.filename, error.text))
            )
    return True


def _steers(error: Exception) -> bool:
    """Tell whether it would steer a terminal that it is printed on."""
    try:
        text = "".join(traceback.format_exception_only(error))
    except Exception:  # noqa: BLE001 - of arguments that it can't be printed with
        return True
    return visible(text) != text
