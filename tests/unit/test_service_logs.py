"""Lines of the log that machines read."""

import io
import json
import logging
import sys

import pytest

from lender.service import logs
from lender.service.logs import ALWAYS, ID_CHARS_MAX, MESSAGE_CHARS_MAX, WHERE_KNOWN, JsonLines


def line(message: str, *given: object, **extra: object) -> str:
    record = logging.LogRecord("lender.x", logging.WARNING, "", 1, message, given, None)
    record.__dict__.update(extra)
    record.created, record.msecs = 1_700_000_000.25, 250.0
    return JsonLines().format(record)


def test_a_line_says_when_who_what_and_about_which_attempt() -> None:
    said = json.loads(line("lease %s is late", "L", job="J", attempt=2, lease="L", task=7))
    assert said == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "lender.x",
        "message": "lease L is late",
        "job": "J",
        "attempt": 2,
        "lease": "L",
        "task": 7,
    }


def test_what_a_peer_says_makes_no_line_and_no_key_of_its_own() -> None:
    evil = 'x"}\n{"level": "error", "job": "other"}\r\u2028\x1b[2J\ud800'
    text = line("%s", evil, job=evil * 100)
    assert text.isascii()
    assert len(text.splitlines()) == 1
    said = json.loads(text)
    assert said["message"] == evil
    assert len(said["job"]) == ID_CHARS_MAX
    assert len(json.loads(line("x" * 100_000))["message"]) == MESSAGE_CHARS_MAX


def test_fields_that_are_not_documented_are_left_out() -> None:
    text = line("here", seed="SUAB", password="p", job=None, task=b"7", lender=["a"])
    assert set(json.loads(text)) == set(ALWAYS)


def test_a_fault_of_ours_has_its_traceback_in_the_same_line() -> None:
    try:
        _ = {}["wrong"]
    except KeyError:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "m", (), sys.exc_info())
    text = JsonLines().format(record)
    assert len(text.splitlines()) == 1
    assert "KeyError: 'wrong'" in json.loads(text)["exception"]
    assert set(json.loads(text)) <= {*ALWAYS, *WHERE_KNOWN}


@pytest.mark.parametrize("form", ["text", "json"])
def test_text_stays_what_it_was(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = logging.getLogger(), io.StringIO()
    before, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "stderr", out)
    root.handlers.clear()
    try:
        logs.set_up("info", form)
        logging.getLogger("lender.x").info("here", extra={"job": "J"})
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    if form == "text":
        assert out.getvalue().endswith(" INFO lender.x: here\n")
    else:
        assert json.loads(out.getvalue())["job"] == "J"
