"""Calls as the tasks of one array: what is sent, and what runs on a lender.

What runs there is nested in functions, so that it is pickled by value: lenders have no `lender` to
import for tasks, nor anything but the standard library for sure.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lender.client.functions import pickled


class Call(NamedTuple):
    """One call, pickled: alone, or with many of the same function beside it.

    Attributes:
        content: (function, arguments, keyword arguments), or (arguments, keyword arguments).
        function: the function, where it is not in there.
    """

    content: bytes
    function: bytes | None = None


def calls_of(function: Callable[..., Any]) -> Callable[[tuple[Any, ...]], Call]:
    """Return what makes calls of one function: whatever it holds is pickled and sent once.

    What is returned raises Rejected where something can't be pickled.
    """
    once: bytes | None = None

    def call(arguments: tuple[Any, ...]) -> Call:
        nonlocal once
        if once is None:
            once = pickled(function)
        return Call(pickled((arguments, {})), once)

    return call


def program(calls: Sequence[Call], output_bytes: int) -> bytes:
    """Return the program of an array whose tasks are these calls.

    A task's value is a dict: `printed`, what it wrote to sys.stdout, and either `value` or
    `raised`, which `outcomes.outcome` reads.

    Args:
        calls: as they were made.
        output_bytes: of a task at most; what is printed takes a third of it, an exception the rest.
    """
    printed_bytes_max = output_bytes // 4  # they travel as base64
    told = _teller(output_bytes)
    contents = [one.content for one in calls]
    functions = list(dict.fromkeys(one.function for one in calls))
    places = {function: place for place, function in enumerate(functions)}
    function_of = [places[one.function] for one in calls]
    opened: dict[int, Any] = {}

    def call(task: int) -> dict[str, Any]:
        import contextlib  # noqa: PLC0415 - on the lender
        import io  # noqa: PLC0415 - on the lender
        import pickle  # noqa: PLC0415 - on the lender

        written = io.BytesIO()
        text = io.TextIOWrapper(written, "utf-8", "backslashreplace", write_through=True)
        came: dict[str, Any]
        with contextlib.redirect_stdout(text):
            try:
                called = pickle.loads(contents[task])  # noqa: S301 - the submitter's own
                shared = functions[place := function_of[task]]
                if shared is not None:
                    if place not in opened:
                        opened[place] = pickle.loads(shared)  # noqa: S301 - as above
                    called = opened[place], *called
                function, arguments, named = called
                came = {"value": function(*arguments, **named)}
            except SystemExit:
                raise  # it was asked to end, or ends itself: the task has no outcome
            except BaseException as error:  # noqa: BLE001 - whatever the function raises is told
                came = {"raised": told(error)}
        content = written.getvalue()
        printed = content[:printed_bytes_max]
        if len(content) > printed_bytes_max:
            printed += b"\n[%d more bytes]\n" % (len(content) - printed_bytes_max)
        return {"printed": printed, **came}

    return pickled(call)


def _teller(output_bytes: int) -> Callable[[BaseException], dict[str, Any]]:
    """Return what tells of an exception, in about two thirds of the output limit."""
    characters_max = output_bytes // 128  # a character takes up to twelve bytes
    pickle_bytes_max = output_bytes // 4

    plain_arguments = _taker_of_arguments(characters_max)

    def cut(text: str) -> str:
        half = characters_max // 2
        if len(text) <= 2 * half:
            return text
        return f"{text[:half]}\n[{len(text) - 2 * half} more characters]\n{text[-half:]}"

    def told(error: BaseException) -> dict[str, Any]:
        import sys  # noqa: PLC0415 - on the lender
        import traceback  # noqa: PLC0415 - on the lender

        kind = type(error)
        try:
            content = sys.modules["cloudpickle"].dumps(error)
        except Exception:  # noqa: BLE001 - whatever its own methods raise
            content = b""
        try:
            text = str(error)
        except Exception:  # noqa: BLE001 - so may this
            text = "it can't be put in words"
        lines = traceback.TracebackException.from_exception(error)
        del lines.stack[:1]
        return {
            "module": kind.__module__,
            "name": kind.__qualname__,
            "text": cut(text),
            "args": plain_arguments(error),
            "traceback": cut("".join(lines.format())),
            "pickle": content if len(content) <= pickle_bytes_max else b"",
        }

    return told


def _taker_of_arguments(characters_max: int) -> Callable[[BaseException], list[Any] | None]:
    """Return what says of what plain data one of Python's own exceptions is made."""

    def plain_size(tree: object) -> float:
        """Roughly of how many characters it is; infinite, where it is not plain data."""
        if isinstance(tree, (tuple, list)):
            return 1 + sum(map(plain_size, tree))
        if type(tree) in {str, bytes}:
            return len(tree)  # type: ignore[arg-type] # see above
        if type(tree) is int:
            return tree.bit_length() / 3
        return 1 if tree is None or type(tree) in {bool, float} else float("inf")

    def plain_arguments(error: BaseException) -> list[Any] | None:
        """What it is made of: of an OSError that is more than its `args`, the names of files."""
        if type(error).__module__ != "builtins":
            return None
        try:
            arguments = list(error.__reduce__()[1])
            return arguments if plain_size(arguments) < characters_max else None
        except Exception:  # noqa: BLE001 - it may hold itself
            return None

    return plain_arguments
