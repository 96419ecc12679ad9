"""A job's log as people read it: lines, with their task where there are several."""

import base64
import codecs
import json
from collections.abc import AsyncIterator

from lender.cli.strangers_words import Output
from lender.client import Job, LogPiece, Terminal

_UNFINISHED_BYTES_MAX = 4096
"""Of a line, before it is shown without its end."""


class LogPrinter:
    """Prints pieces of logs.

    One task's bytes come as they do. Of several tasks each line comes whole, with its task.
    """

    def __init__(self, output: Output, *, with_tasks: bool) -> None:
        self._output = output
        self._with_tasks = with_tasks
        self._unfinished: dict[int, bytes] = {}
        self._attempts: dict[int, int] = {}
        self._in_a_line = False

    def show(self, piece: LogPiece) -> None:
        """Print what can be printed of it."""
        task, before = piece.task, self._attempts.get(piece.task, piece.attempt)
        if before != piece.attempt:
            begun = f"begun anew, attempt {piece.attempt}"
            ended = f"the end of what attempt {piece.attempt} wrote, whose result counts"
            self._note(task, ended if piece.last else begun)
        if piece.missed_bytes is None:
            self._note(task, "some of it left out")
        elif piece.missed_bytes:
            self._note(task, f"{piece.missed_bytes} bytes left out")
        content = self._unfinished.pop(task, b"") + piece.content
        cut = len(content) if piece.last else self._printable_bytes(content)
        self._write(task, content[:cut])
        if piece.last:
            self._attempts.pop(task, None)
        else:
            self._attempts[task] = piece.attempt
            if cut < len(content):
                self._unfinished[task] = content[cut:]

    def close(self) -> None:
        """Print what is left of tasks that were not seen to end."""
        for task in list(self._unfinished):
            self._write(task, self._unfinished.pop(task))
        if self._in_a_line:
            self._output.write(b"\n")  # whatever comes next begins a line

    def _printable_bytes(self, content: bytes) -> int:
        if not self._with_tasks:
            # A character that is cut in two waits for its other half.
            return codecs.utf_8_decode(content, "replace", False)[1]
        return len(content) if len(content) > _UNFINISHED_BYTES_MAX else content.rfind(b"\n") + 1

    def _note(self, task: int, text: str) -> None:
        self._write(task, self._unfinished.pop(task, b""))
        start = b"\n" if self._in_a_line else b""
        self._write(task, start + f"[lender: {text}]\n".encode())

    def _write(self, task: int, content: bytes) -> None:
        if not content:
            return
        if self._with_tasks:
            lines = content.removesuffix(b"\n").split(b"\n")
            content = b"".join(b"%d: %s\n" % (task, line) for line in lines)
        self._in_a_line = not content.endswith(b"\n")
        self._output.write(content)


async def print_log(pieces: AsyncIterator[LogPiece], printer: LogPrinter) -> None:
    """Print all pieces of a log."""
    try:
        async for piece in pieces:
            printer.show(piece)
    finally:
        printer.close()


async def followed(job: Job, printer: LogPrinter) -> Terminal:
    """Print a job's log, and return its last word."""
    await print_log(job.log(), printer)
    return await job.ended()


def piece_as_json(job: Job, piece: LogPiece) -> str:
    """Return a piece as a line of JSON."""
    fields = {
        "schema": "lender.logs/1",
        "job": job.id,
        "task": piece.task,
        "attempt": piece.attempt,
        "lender": piece.lender,
        "text": piece.content.decode(errors="replace"),
        "text_base64": base64.b64encode(piece.content).decode(),
        "missed_bytes": piece.missed_bytes,
        "last": piece.last,
    }
    return json.dumps(fields)
