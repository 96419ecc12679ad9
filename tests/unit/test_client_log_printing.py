"""What people see of a task's log: lines, what is missing, and nothing that steers a terminal."""

import io

import pytest

from lender.cli.log_printing import LogPrinter
from lender.cli.strangers_words import Output
from lender.client import LogPiece
from lender.protocol.strangers_text import visible

L = "U" + "L" * 55


class Stream(io.TextIOWrapper):
    def __init__(self, *, terminal: bool, encoding: str = "utf-8") -> None:
        self.bytes = io.BytesIO()
        self._terminal = terminal
        super().__init__(self.bytes, encoding=encoding)

    def isatty(self) -> bool:
        return self._terminal


def piece(content: bytes, task: int = 0, **fields: object) -> LogPiece:
    return LogPiece(**{"task": task, "attempt": 1, "lender": L, "content": content, **fields})  # type: ignore[arg-type]  # fields of it


def shown(*pieces: LogPiece, with_tasks: bool = False, terminal: bool = False) -> bytes:
    stream = Stream(terminal=terminal)
    printer = LogPrinter(Output(stream, raw=False), with_tasks=with_tasks)
    for one in pieces:
        printer.show(one)
    printer.close()
    return stream.bytes.getvalue()


HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\x7f\x00 \u202eback\u2028 fine \u00e9\u4e2d\t\n"


def test_what_steers_a_terminal_is_shown_and_the_rest_stays() -> None:
    text = visible(HOSTILE)
    assert text == (
        r"\x1b]0;owned\x07\x1b[2J\r\x9b31m\x7f\x00 \u202eback\u2028"
        " fine \u00e9\u4e2d\t\n"
    )
    assert visible("plain") == "plain"


@pytest.mark.parametrize("raw", [False, True])
def test_only_a_terminal_gets_escapes_and_not_where_raw_was_asked_for(*, raw: bool) -> None:
    for terminal in (False, True):
        stream = Stream(terminal=terminal)
        Output(stream, raw=raw).write(HOSTILE.encode() + b"\xff")
        escaped = stream.bytes.getvalue() != HOSTILE.encode() + b"\xff"
        assert escaped == (terminal and not raw)
        assert (b"\x1b" in stream.bytes.getvalue()) != escaped


def test_a_terminal_without_a_character_gets_its_escape() -> None:
    stream = Stream(terminal=True, encoding="ascii")
    Output(stream, raw=False).write("\u00e9\xff".encode() + b"\xff\n")
    assert stream.bytes.getvalue() == rb"\xe9\xff\xff" + b"\n"


def test_a_character_in_two_pieces_stays_one_on_a_terminal() -> None:
    both = "a\u4e2db".encode()
    for cut in range(len(both) + 1):
        assert shown(piece(both[:cut]), piece(both[cut:]), terminal=True) == both + b"\n"


def test_an_escape_sequence_in_two_pieces_is_none() -> None:
    assert shown(piece(b"\x1b"), piece(b"[2J\n"), terminal=True) == rb"\x1b[2J" + b"\n"


def test_one_tasks_bytes_come_as_they_do() -> None:
    assert shown(piece(b"a"), piece(b"b\xff\x1b\n")) == b"ab\xff\x1b\n"
    assert shown(piece(b"a", last=True)) == b"a\n"


def test_of_several_tasks_each_line_comes_whole_with_its_task() -> None:
    text = shown(
        piece(b"one\ntw", 3),
        piece(b"other", 4),
        piece(b"o\n", 3),
        piece(b"\n", 4, last=True),
        piece(b"unfinished", 3),
        with_tasks=True,
    )
    assert text == b"3: one\n3: two\n4: other\n3: unfinished\n"


def test_a_line_without_end_is_shown_in_parts() -> None:
    assert shown(piece(b"x" * 5000, 1), with_tasks=True) == b"1: " + b"x" * 5000 + b"\n"


def test_what_is_missing_stands_on_a_line_of_its_own() -> None:
    text = shown(
        piece(b"abc"),
        piece(b"d\n", missed_bytes=7),
        piece(b"", attempt=2),
        piece(b"end\n", attempt=2, missed_bytes=None, last=True),
    )
    assert text == (
        b"abc\n[lender: 7 bytes left out]\nd\n[lender: begun anew, attempt 2]\n"
        b"[lender: some of it left out]\nend\n"
    )
    of_first = shown(piece(b"ONE\n", attempt=2), piece(b"one\n", last=True))
    assert of_first == b"ONE\n[lender: the end of what attempt 1 wrote, whose result counts]\none\n"
    of_many = shown(piece(b"ab", 1), piece(b"c\n", 1, missed_bytes=7), with_tasks=True)
    assert of_many == b"1: ab\n1: [lender: 7 bytes left out]\n1: c\n"
