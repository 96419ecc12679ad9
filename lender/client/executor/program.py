"""Calls as the tasks of one array: what is sent, and what runs on a lender.

What runs there is nested in functions, so that it is pickled by value: lenders have no `lender` to
import for tasks, nor anything but the standard library for sure.
"""

from collections.abc import Callable, Sequence
from typing import Any

from lender.client.functions import pickled


def program(calls: Sequence[bytes], output_bytes: int) -> bytes:
    """Return the program of an array whose tasks are these calls.

    A task's value is a dict: `printed`, what it wrote to sys.stdout, and either `value` or
    `raised`, which `outcomes.outcome` reads.

    Args:
        calls: a pickle of (function, arguments, keyword arguments) each.
        output_bytes: of a task at most; what is printed takes a third of it, an exception the rest.
    """
    printed_bytes_max = output_bytes // 4  # they travel as base64
    told = _teller(output_bytes)

    def call(task: int) -> dict[str, Any]:
        import contextlib  # noqa: PLC0415 - on the lender
        import io  # noqa: PLC0415 - on the lender
        import pickle  # noqa: PLC0415 - on the lender

        written = io.BytesIO()
        text = io.TextIOWrapper(written, "utf-8", "backslashreplace", write_through=True)
        came: dict[str, Any]
        with contextlib.redirect_stdout(text):
            try:
                function, arguments, named = pickle.loads(calls[task])  # noqa: S301 - the submitter's own
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
