"""Calls as the tasks of one array: what is sent, and what runs on a lender.

What runs there is nested in `program`, so that it is pickled by value: lenders have no `lender` to
import for tasks, nor anything but the standard library for sure.
"""

from collections.abc import Sequence
from typing import Any

from lender.client.functions import pickled

PRINTED_BYTES_MAX = 1 << 20


def program(calls: Sequence[bytes]) -> bytes:
    """Return the program of an array whose tasks are these calls.

    A task's value is a dict: `printed`, what it wrote to sys.stdout as text, and either `value` or
    `raised`, which `outcomes.outcome` reads.

    Args:
        calls: a pickle of (function, arguments, keyword arguments) each.
    """
    printed_bytes_max = PRINTED_BYTES_MAX

    def is_plain(tree: object) -> bool:
        if isinstance(tree, (tuple, list)):
            return all(map(is_plain, tree))
        return tree is None or type(tree) in {bool, int, float, str, bytes}

    def told(error: BaseException) -> dict[str, Any]:
        import sys  # noqa: PLC0415 - on the lender
        import traceback  # noqa: PLC0415 - on the lender

        kind = type(error)
        try:
            content = sys.modules["cloudpickle"].dumps(error)
        except Exception:  # noqa: BLE001 - whatever its own methods raise
            content = b""
        lines = traceback.TracebackException.from_exception(error)
        del lines.stack[:1]
        return {
            "module": kind.__module__,
            "name": kind.__qualname__,
            "text": str(error),
            "args": list(error.args) if is_plain(error.args) else None,
            "traceback": "".join(lines.format()),
            "pickle": content,
        }

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
        printed = content[:printed_bytes_max].decode("utf-8", "backslashreplace")
        if len(content) > printed_bytes_max:
            printed += f"\n[{len(content) - printed_bytes_max} more bytes]\n"
        return {"printed": printed, **came}

    return pickled(call)
