"""What became of a call, read from a stranger's bytes. Pure."""

import builtins
import pickle
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lender.client.errors import ContentFault
from lender.client.values import decode


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
        case {"printed": str(printed), "value": value}:
            return Outcome(printed, value)
        case {"printed": str(printed), "raised": dict(raised)}:
            try:
                return Outcome(printed, error=_error(_Raised.model_validate(raised), trust=trust))
            except ValidationError:
                pass
    raise ContentFault("the call's outcome is of no known form", "update this client")


def _error(raised: _Raised, *, trust: bool) -> BaseException:
    error = _unpickled(raised.pickle) if trust else None
    error = error or _builtin(raised) or RemoteError(f"{raised.module}.{raised.name}", raised.text)
    error.__cause__ = RemoteTraceback(raised.traceback)
    return error


def _unpickled(content: bytes) -> BaseException | None:
    try:
        found = pickle.loads(content)  # noqa: S301 - the caller says so
    except Exception:  # noqa: BLE001 - whatever its classes raise; it is told in words then
        return None
    return found if isinstance(found, BaseException) else None


def _builtin(raised: _Raised) -> BaseException | None:
    """One of Python's own, of plain arguments: to make it runs nothing of anybody's."""
    kind = getattr(builtins, raised.name, None) if raised.module == "builtins" else None
    if raised.args is None or not (isinstance(kind, type) and issubclass(kind, Exception)):
        return None
    try:
        return kind(*raised.args)
    except Exception:  # noqa: BLE001 - of arguments that are not its own
        return None
