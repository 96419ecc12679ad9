"""What became of a call, as a lender tells it, and as a liar would."""

import json
import pickle
import re
import sys
import traceback
from collections.abc import Callable

import cloudpickle
import pytest

from lender.client import ContentFault, UntrustedValue
from lender.client.executor import RemoteError, RemoteTraceback
from lender.client.executor.executor import _in_one_interpreter
from lender.client.executor.outcomes import Outcome, outcome
from lender.client.executor.program import Call, calls_of, program
from lender.client.functions import FunctionOptions
from lender.protocol.bounds import ENV_ENTRIES_MAX
from lender.protocol.interpreter import INTERPRETER_VARIABLE
from lender.sandbox.runtimes.python_inside import encode

OUTPUT_BYTES = 1 << 20


def test_an_executor_names_an_interpreter_of_its_own_unless_its_user_does() -> None:
    one, another = (_in_one_interpreter({"env": {"A": "b"}, "retries": 1}) for _ in range(2))
    name = one["env"][INTERPRETER_VARIABLE]
    assert one == {"env": {"A": "b", INTERPRETER_VARIABLE: name}, "retries": 1}
    assert re.fullmatch("[0-9a-f]{32}", name)
    assert name != another["env"][INTERPRETER_VARIABLE]
    named: FunctionOptions = {"env": {INTERPRETER_VARIABLE: "mine"}}
    assert _in_one_interpreter(named) == named
    full: FunctionOptions = {"env": {f"V{number}": "" for number in range(ENV_ENTRIES_MAX)}}
    assert _in_one_interpreter(full) == full


class Unknown(Exception):  # noqa: N818 - a module of the submitter's
    def __init__(self, one: object, other: object) -> None:
        super().__init__(one)
        self.other = other

    def __reduce__(self) -> tuple[type, tuple[object, object]]:
        return Unknown, (self.args[0], self.other)


def came_of(function: object, *arguments: object, **named: object) -> bytes:
    """What a lender sends back of a call."""
    call = cloudpickle.dumps((function, arguments, named))
    return encode(pickle.loads(program([Call(b""), Call(call)], OUTPUT_BYTES))(1))


def fail(kind: Callable[..., Exception], *arguments: object) -> None:
    raise kind(*arguments)


def speak(*words: str) -> str:
    print(*words)  # noqa: T201 - the client shows it
    return " ".join(words)


def test_values_and_what_was_printed() -> None:
    assert outcome(came_of(divmod, 7, 2), trust=False) == Outcome("", (3, 1))
    assert outcome(came_of(speak, "hé", "ho"), trust=False) == Outcome("hé ho\n", "hé ho")
    assert outcome(came_of(dict, a=1), trust=False).value == {"a": 1}


def test_what_a_function_holds_is_sent_and_opened_once_for_many_calls() -> None:
    held = [bytes(100_000)]

    def take(number: int) -> tuple[int, int]:
        held.append(b"")
        return number, len(held)

    call = calls_of(take)
    calls = [Call(cloudpickle.dumps((pow, (2, 3), {}))), *(call((one,)) for one in range(100))]
    content = program(calls, OUTPUT_BYTES)
    assert len(content) < 200_000
    run = pickle.loads(content)
    assert [run(task)["value"] for task in (0, 1, 100)] == [8, (0, 2), (99, 3)]


def test_very_much_that_was_printed_is_cut() -> None:
    content = came_of(print, "x" * 3_000_000)
    assert len(content) < OUTPUT_BYTES / 2
    assert outcome(content, trust=True).printed.endswith("xx\n[2737857 more bytes]\n")


def test_pythons_own_exceptions_come_back_without_a_pickle() -> None:
    for kind, arguments in (
        (KeyError, ("k", 1)),
        (OSError, (2, "gone", "file", None, "other")),
        (OSError, (2, "gone", "file")),
        (ValueError, ()),
    ):
        wanted = kind(*arguments)
        error = outcome(came_of(fail, kind, *arguments), trust=False).error
        assert type(error) is type(wanted)
        assert (error.args, str(error)) == (wanted.args, str(wanted))
        assert isinstance(error.__cause__, RemoteTraceback)
        assert "raise kind(*arguments)" in str(error.__cause__)


class Wordless(Exception):  # noqa: N818 - as Unknown
    def __str__(self) -> str:
        raise RuntimeError


def itself() -> list[object]:
    held: list[object] = []
    held.append(held)
    return held


@pytest.mark.parametrize(
    ("kind", "argument", "told"),
    [
        (Wordless, "", f"{__name__}.Wordless: it can't be put in words"),
        (ValueError, itself(), "builtins.ValueError: [[...]]"),
        (ValueError, "\U0001f600" * 10_000_000, "[9991808 more characters]"),
    ],
    ids=["wordless", "it holds itself", "many words"],
)
def test_whatever_is_raised_is_told(kind: type[Exception], argument: object, told: str) -> None:
    content = came_of(fail, kind, argument)
    error = outcome(content, trust=False).error
    assert told in str(error)
    assert "raise kind(*arguments)" in str(error and error.__cause__)
    assert len(content) < OUTPUT_BYTES


def test_others_are_told_in_words_unless_lenders_are_trusted() -> None:
    content = came_of(fail, Unknown, "one", "other")
    error = outcome(content, trust=False).error
    assert isinstance(error, RemoteError)
    assert str(error) == f"{__name__}.Unknown: one"
    trusted = outcome(content, trust=True).error
    assert type(trusted).__name__ == "Unknown"
    assert vars(trusted)["other"] == "other"


def test_a_value_that_needs_a_pickle_needs_trust() -> None:
    with pytest.raises(UntrustedValue):
        outcome(came_of(complex, 1, 2), trust=False)
    assert outcome(came_of(complex, 1, 2), trust=True).value == 1 + 2j


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupt_of_a_strangers_stops_nothing_here_unless_lenders_are_trusted() -> None:
    content = came_of(interrupt)
    assert isinstance(outcome(content, trust=False).error, RemoteError)
    assert isinstance(outcome(content, trust=True).error, KeyboardInterrupt)


def test_who_ends_its_interpreter_has_no_outcome() -> None:
    with pytest.raises(SystemExit):
        came_of(sys.exit, 3)


def told(**fields: object) -> bytes:
    raised = {
        "module": "builtins",
        "name": "ValueError",
        "text": "",
        "args": [],
        "traceback": "",
        "pickle": b"",
    }
    return encode({"printed": b"", "raised": {**raised, **fields}})


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "__import__", "args": ["os"]},
        {"name": "eval", "args": ["1/0"]},
        {"name": "SystemExit", "args": [0]},
        {"name": "KeyboardInterrupt"},
        {"name": "UnicodeDecodeError", "args": ["one"]},
        {"name": "print", "args": None},
        {"module": "os", "name": "system", "args": ["true"]},
        {"name": "ValueError.mro", "args": [1]},
    ],
)
def test_a_liar_has_nothing_called_but_exceptions(fields: dict[str, object]) -> None:
    assert isinstance(outcome(told(**fields), trust=False).error, RemoteError)


@pytest.mark.parametrize(
    "content",
    [
        b"j1",
        encode({"value": 1}),
        encode({"printed": 1, "value": 1}),
        encode({"printed": b"", "raised": {}}),
        told(text=1),
        told(args="no"),
        told(pickle="no"),
        b"j" + json.dumps({"d": {"printed": {"b": ""}, "raised": {"d": {}}}}).encode(),
    ],
)
def test_what_is_no_outcome_is_a_fault_of_its_content(content: bytes) -> None:
    with pytest.raises(ContentFault):
        outcome(content, trust=False)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        # CPython reads memory there as they are printed, and is killed for it.
        ("UnicodeDecodeError", ["utf-8", b"a", -(1 << 50), 1 - (1 << 50), "x"]),
        ("UnicodeEncodeError", ["utf-8", "a", -(1 << 50), 1 - (1 << 50), "x"]),
        ("UnicodeTranslateError", ["a", 3, 4, "x"]),
        # And draws a line of that length.
        ("SyntaxError", ["m", ("f", 1, 1, "text", 1, 1 << 40)]),
        ("IndentationError", ["m", ("f", 1, -(1 << 40), "text", 1, 2)]),
        ("SyntaxError", ["m", ("f", "1", 1, "text", 1, 2)]),
        ("SyntaxError", ["m", ("f", 1, 1, 7, 1, 2)]),
        ("SyntaxError", ["m", ("\x1b]0;f", 1, 1, "text", 1, 2)]),
    ],
)
def test_no_exception_of_a_liars_breaks_who_prints_it(name: str, args: list[object]) -> None:
    error = outcome(told(name=name, args=args, text="in words"), trust=False).error
    assert isinstance(error, RemoteError)
    assert str(error) == f"builtins.{name}: in words"


def test_an_exception_that_points_at_something_comes_back_whole() -> None:
    for args in (("utf-8", b"a\xff", 1, 2, "x"), ("utf-8", b"a\xff", 0, 2, "x")):
        error = outcome(came_of(fail, UnicodeDecodeError, *args), trust=False).error
        assert (type(error), error and error.args) == (UnicodeDecodeError, args)
    error = outcome(came_of(compile, "1 +", "f", "eval"), trust=False).error
    assert (type(error), getattr(error, "text", None)) == (SyntaxError, "1 +")


def test_no_word_of_a_liars_steers_the_terminal_that_an_exception_is_printed_on() -> None:
    steering = "\x1b]0;mine\x07"
    for fields in (
        {"name": "ValueError", "args": [steering, 7]},
        {"name": "OSError", "args": [1, steering]},
        {"name": "Own", "text": steering},
        {"name": steering, "module": steering},
    ):
        error = outcome(told(traceback=steering, **fields), trust=False).error
        assert error is not None
        printed = "".join(traceback.format_exception(error))
        assert "\x1b" not in printed
        assert "\\x1b]0;mine\\x07" in printed
        assert type(error) in (ValueError, PermissionError, RemoteError)


def test_what_was_written_in_colours_stays_so_where_lenders_are_trusted() -> None:
    error = outcome(told(traceback="\x1b[31mred"), trust=True).error
    assert error is not None
    assert "\x1b[31mred" in str(error.__cause__)
