"""Tasks that an interpreter is asked for at once: which is looked at, how the others ended."""

import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from sandboxes import LIMITS

from lender.sandbox.plan import SandboxPlan
from lender.sandbox.runtimes import python_inside
from lender.sandbox.runtimes.command import End, StartedTask
from lender.sandbox.runtimes.interpreter import Call, Interpreter
from lender.sandbox.runtimes.python_channel import Channel
from lender.sandbox.runtimes.python_inside import ANSWER, CLEAN, DONE, HELLO, OVER, RAISED
from lender.sandbox.runtimes.residents import Residents, Used

TASKS = tuple(range(10, 16))
_VALUE_BYTES_MAX = 100


class _Standing:
    """What holds an interpreter that runs on."""

    wakers = ()

    def __init__(self, stdout: int) -> None:
        self.stdout, self.stderr = stdout, os.open(os.devnull, os.O_RDONLY)
        self.is_killed = False

    def has_ended(self) -> bool:
        return self.is_killed

    def kill(self) -> None:
        self.is_killed = True

    def reap(self) -> End:
        return End(137, 9.0, 0, 0)

    def fault(self, _exit_code: int | None, _said: str) -> None:
        return None


class _Residents:
    """Nobody but the interpreter, which uses a second of processor time for each look."""

    def __init__(self) -> None:
        self.looks = 0

    def used(self, _duration_s: float) -> Used:
        self.looks += 1
        return Used(float(self.looks), 1 << 20, 0)

    def count(self) -> int:
        return 1

    def close(self) -> None:
        pass


class Burst:
    """An interpreter whose inside is the test."""

    def __init__(self, folder: Path) -> None:
        ours, self.socket = socket.socketpair()
        stdout, self.pipe = os.pipe()
        os.set_blocking(stdout, False)
        self.standing = _Standing(stdout)
        plan = SandboxPlan("l1", "python", "j1", 1, None, (), {}, {}, (), LIMITS, folder)
        self.interpreter = Interpreter(
            cast("StartedTask", self.standing),
            Channel(ours, stdout, _VALUE_BYTES_MAX, os.getpid()),
            plan,
            lambda _pid: cast("Residents", _Residents()),
            lambda: None,
        )
        self.socket.send(HELLO)
        self.interpreter.listen()

    def asked(self, said: bytes, word: bytes = b"") -> Call:
        """The call, where this was said within its time."""
        os.write(self.pipe, said)
        self.socket.send(word)
        return self.interpreter.call(TASKS)

    def hear(self, call: Call, said: bytes, word: bytes = b"") -> None:
        """What is said behind that."""
        os.write(self.pipe, said)
        self.socket.send(word)
        call.on_wake(call.wakers[0])

    def close(self) -> None:
        if self.interpreter.alive:
            self.interpreter.end()
        self.socket.close()
        os.close(self.pipe)


@pytest.fixture
def burst(tmp_path: Path) -> Iterator[Burst]:
    made = Burst(tmp_path)
    yield made
    made.close()


def answer(content: bytes, kind: int = CLEAN, after_s: float = 0.0) -> bytes:
    return ANSWER.pack(kind, len(content), int(after_s * 1e9)) + content


def ended(call: Call) -> list[tuple[int, bytes]]:
    assert all(one.state == "succeeded" for one in call.others())
    return [(one.task, one.value) for one in call.others()]


def test_all_are_over_within_its_time(burst: Burst) -> None:
    call = burst.asked(b"".join(answer(b"%d" % task) for task in TASKS), OVER)
    assert ended(call) == [(task, b"%d" % task) for task in TASKS[:-1]]
    assert (call.task, call.has_ended()) == (TASKS[-1], True)
    assert call.answer is not None
    os.close(call.stderr)


def test_one_that_ended_it_is_its_own(burst: Burst) -> None:
    call = burst.asked(answer(b"a") + answer(b"b", DONE), OVER)
    assert ended(call) == [(10, b"a")]
    assert (call.task, call.has_ended()) == (11, True)
    os.close(call.stderr)


def test_one_that_ends_it_before_its_word_is_its_own(burst: Burst) -> None:
    call = burst.asked(answer(b"a") + answer(b"no", RAISED))
    assert (ended(call), call.task, call.has_ended()) == ([(10, b"a")], 11, False)
    burst.hear(call, b"", OVER)
    assert call.has_ended()
    assert call.fault(None, "") == "no"
    os.close(call.stderr)


def test_one_that_goes_on_is_its_own(burst: Burst) -> None:
    call = burst.asked(answer(b"a") + answer(b"b"))
    assert (ended(call), call.task, call.has_ended()) == ([(10, b"a"), (11, b"b")], 12, False)
    burst.hear(call, answer(b"c"), OVER)
    assert call.has_ended()
    assert not call.is_vacant
    assert call.reap().exit_code == 0
    assert burst.interpreter.alive
    os.close(call.stderr)


def test_one_that_was_not_begun_any_more_is_nobodys(burst: Burst) -> None:
    call = burst.asked(answer(b"a") + answer(b"b"))
    burst.hear(call, b"", OVER)
    assert (ended(call), call.task) == ([(10, b"a"), (11, b"b")], 12)
    assert call.is_vacant
    call.reap()
    assert burst.interpreter.alive
    os.close(call.stderr)


def test_a_value_that_is_too_large_is_of_the_task_behind_those_that_were_told(
    burst: Burst,
) -> None:
    call = burst.asked(answer(b"a") + answer(b"b" * (_VALUE_BYTES_MAX + 1)), OVER)
    assert (ended(call), call.task, call.has_ended()) == ([(10, b"a")], 11, True)
    call.reap()
    assert not burst.interpreter.alive
    os.close(call.stderr)


@pytest.mark.parametrize(
    ("said", "word", "own"),
    [
        (answer(b"a") + b"\xff" * 100, b"", 11),
        (answer(b"a") + b"\xff" * 100, OVER, 11),
        (answer(b"a"), b"\xff", 11),
        (answer(b"a"), OVER * 2, 11),
        (b"", OVER, 10),
        (answer(b"a") + answer(b"b", DONE) + answer(b"c"), b"", 13),
        (answer(b"a") * 200, OVER, 15),
        (answer(b"a") * 600, b"", 15),
    ],
)
def test_what_can_not_be_said_ends_the_interpreter(
    burst: Burst, said: bytes, word: bytes, own: int
) -> None:
    call = burst.asked(said, word)
    assert (call.task, call.has_ended()) == (own, True)
    assert len(call.others()) == own - TASKS[0]
    assert call.reap().exit_code is not None
    assert call.fault(137, "") == "its interpreter gave an answer that is none"
    assert not burst.interpreter.alive
    os.close(call.stderr)


def test_times_are_within_what_was_seen_and_no_processor_time_is_told_twice(burst: Burst) -> None:
    before = time.monotonic()
    told = (0.0, 3600.0, 1e-9, 18e9)
    call = burst.asked(b"".join(answer(b"x", after_s=one) for one in told))
    others = call.others()
    spans = [(one.started_at, one.started_at + one.duration_s) for one in others]
    assert len(spans) == 4
    assert all(before <= start <= end <= time.monotonic() + 1e-6 for start, end in spans)
    burst.hear(call, answer(b"y"), OVER)
    own = call.reap()
    assert sum(one.cpu_s for one in others) + own.cpu_s == pytest.approx(2.0)
    os.close(call.stderr)


def test_whatever_is_said_it_has_an_end(tmp_path: Path) -> None:
    rng = random.Random(7)
    pieces = (answer(b"a"), answer(b"b", DONE), answer(b"c", RAISED), answer(b"d" * 101), b"\xff")
    words = (b"", b"", OVER, OVER, OVER * 2, b"\xff")
    for _ in range(60):
        made = Burst(tmp_path)
        first, second = (
            b"".join(rng.choices(pieces, (8, 1, 1, 1, 1), k=rng.randrange(9))) for _ in range(2)
        )
        call = made.asked(first, rng.choice(words))
        assert [one.task for one in call.others()] == list(TASKS[: len(call.others())])
        assert call.task == TASKS[len(call.others())]
        if not call.has_ended():
            made.hear(call, second, rng.choice(words))
        call.reap()
        if made.interpreter.alive:
            assert call.is_vacant or call.answer is not None
        os.close(call.stderr)
        made.close()


def test_inside_and_outside_agree_how_long_a_burst_is() -> None:
    """It fits into a pipe that nobody reads meanwhile, and a request into one message."""
    most = ANSWER.size + python_inside.BURST_VALUE_BYTES_MAX
    assert most * 100 < 1 << 16
    assert python_inside.REQUEST.size + 4 * python_inside.REQUEST_TASKS_MAX < 1 << 12
