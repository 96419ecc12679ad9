"""How a python task ends, and its interpreter with it: limits, false answers, faults, a word."""


# Functions of jobs do as they like.
# ruff: noqa: PTH103, PTH123, PTH208, T201

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

import cloudpickle
import pytest
from python_jobs import needs_python, plan_of, prepared, value
from sandboxes import LIMITS, Workshop, open_folder, until, workshop

from lender.sandbox.plan import Limits
from lender.sandbox.port import PrepareFailedError, SandboxGoneError
from lender.sandbox.processes import tree

__all__ = ["open_folder", "workshop"]  # fixtures
pytestmark = needs_python


def spin(_task: int) -> None:
    while True:
        pass


def hog(_task: int) -> None:
    kept = []
    while True:
        kept.append(bytearray(b"x" * 1_000_000))


def reserve(_task: int) -> None:
    bytearray(1 << 40)


def fill(_task: int) -> None:
    with open("big", "wb") as file:
        while True:
            file.write(b"x" * 1_000_000)


def scatter(_task: int) -> None:
    number = 0
    while True:
        number += 1
        with open(f"big{number}", "wb") as file:
            file.write(b"x" * 1_000_000)


def flood(_task: int) -> bytes:
    return b"x" * 200_000


def crowd(_task: int) -> None:
    while True:
        if os.fork() == 0:
            time.sleep(100)


@pytest.mark.parametrize(
    ("function", "limits", "named"),
    [
        (spin, LIMITS._replace(time_s=0.2), "time"),
        (hog, LIMITS, "memory"),
        (reserve, LIMITS, "memory"),
        (fill, LIMITS, "disk"),
        (scatter, LIMITS, "disk"),
        (flood, LIMITS._replace(output_bytes=100_000), "output"),
        (crowd, LIMITS, "processes"),
    ],
)
async def test_a_limit_that_is_hit_is_named_and_the_next_task_runs(
    workshop: Workshop, function: Callable[[int], object], limits: Limits, named: str
) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def sometimes(task: int) -> object:
        return task if task % 2 else function(task)

    sandbox = await prepared(workshop, sometimes, limits=limits)
    for task in (0, 2):
        outcome = await sandbox.run(task)
        assert (outcome.state, outcome.limit) == ("failed", named), outcome
        assert outcome.error == f"hit its {named} limit"
        assert len(outcome.value) <= 100_000
        assert value(await sandbox.run(task + 1)) == task + 1


async def test_a_value_of_exactly_the_limit_passes(workshop: Workshop) -> None:
    sandbox = await prepared(workshop, lambda _: b"1234", limits=LIMITS._replace(output_bytes=5))
    assert value(await sandbox.run(0)) == b"1234"


async def test_a_large_value_comes_whole(workshop: Workshop) -> None:
    limits = LIMITS._replace(output_bytes=8 << 20)
    sandbox = await prepared(workshop, lambda task: bytes([task]) * (7 << 20), limits=limits)
    for task in (1, 2):
        assert value(await sandbox.run(task)) == bytes([task]) * (7 << 20)


@pytest.mark.parametrize("status", [0, 3, -9, -11])
async def test_an_interpreter_that_ends_fails_its_task_and_the_next_gets_another(
    workshop: Workshop, status: int
) -> None:
    def leave(task: int) -> int:
        if task == 1:
            print("last words")
            if status < 0:
                os.kill(os.getpid(), -status)
            os._exit(status)
        return task

    sandbox = await prepared(workshop, leave)
    assert value(await sandbox.run(0)) == 0
    outcome = await sandbox.run(1)
    code = 128 - status if status < 0 else status
    assert (outcome.state, outcome.limit) == ("failed", None)
    assert outcome.exit_code == (code or None)
    assert outcome.error == "ended its interpreter" + (f" (exit code {code})" if code else "")
    assert outcome.stderr_tail == b"last words\n"
    assert value(await sandbox.run(2)) == 2


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff" * 100_000,
        b"\x01\x00\x00\x01\x00\x00",
        b"\x00\x00\x00",
        b"\x02\xff\xff" + b"x" * 0xFFFF,
        b"\x02\x00",
    ],
)
async def test_what_is_no_answer_ends_the_interpreter_and_nothing_more(
    workshop: Workshop, junk: bytes
) -> None:
    def lie(task: int) -> int:
        for fd in range(3, 100):
            try:
                sock = socket.socket(fileno=os.dup(fd))
                sock.send(junk)
                time.sleep(0.2 if task == 0 else 0)
            except OSError:
                continue
        return task

    sandbox = await prepared(workshop, lie)
    outcome = await sandbox.run(0)
    assert outcome.state == "failed"
    assert outcome.error == "its interpreter gave an answer that is none"
    assert (await sandbox.run(1)).task == 1
    assert (await sandbox.run(3)).task == 3, "whatever it said between two tasks"


async def test_descriptors_that_it_sends_are_closed(workshop: Workshop) -> None:
    def send(task: int) -> int:
        for fd in range(3, 100):
            try:
                with socket.socket(fileno=os.dup(fd)) as sock:
                    socket.send_fds(sock, [b"\x01\x00\x00"], [0] * 100)
                    time.sleep(0.1)  # to be read by itself
            except OSError:
                continue
        return task

    sandbox = await prepared(workshop, send)
    (root,) = sandbox.root_pids
    before = len(os.listdir(f"/proc/{root.pid}/fd"))
    await sandbox.run(0)
    left = sandbox.root_pids
    assert not left or len(os.listdir(f"/proc/{left[0].pid}/fd")) <= before


@pytest.mark.parametrize(
    ("program", "reason", "invalid"),
    [
        (b"", "EOFError", True),
        (b"no pickle", "UnpicklingError", True),
        (cloudpickle.dumps(3), "the program is a int, no callable", True),
        (b"cnosuchmodule\nfunction\n.", "No module named 'nosuchmodule'", False),
        (b"cos\nnosuchfunction\n.", "AttributeError", True),
        (b"cos\n_exit\n(I3\ntR.", "ended its interpreter (exit code 3)", True),
    ],
)
async def test_a_program_that_cannot_be_loaded_fails_to_prepare(
    workshop: Workshop, program: bytes, reason: str, *, invalid: bool
) -> None:
    with pytest.raises(PrepareFailedError) as caught:
        await prepared(workshop, program)
    assert reason in caught.value.reason
    assert caught.value.invalid is invalid
    assert caught.value.field == ("program" if invalid else "")


async def test_a_program_that_takes_too_long_to_load_is_handed_back(workshop: Workshop) -> None:
    """Where the machine is slow another may do it."""
    plan = plan_of(workshop, b"ctime\nsleep\n(I60\ntR.")
    plan = plan._replace(limits=plan.limits._replace(prepare_s=1.0))
    with pytest.raises(PrepareFailedError, match="not prepared within 1 s") as caught:
        await workshop.sandbox(plan).prepare()
    assert not caught.value.invalid


async def test_a_job_without_a_program_fails_to_prepare(workshop: Workshop) -> None:
    plan = plan_of(workshop, b"")._replace(program=None)
    with pytest.raises(PrepareFailedError) as caught:
        await workshop.sandbox(plan).prepare()
    assert (caught.value.invalid, caught.value.field) == (True, "program")


async def test_a_package_that_is_not_there_is_the_machines_fault(workshop: Workshop) -> None:
    plan = plan_of(workshop, lambda task: task)._replace(packages=("no_such_package",))
    with pytest.raises(PrepareFailedError, match="no_such_package is not installed") as caught:
        await workshop.sandbox(plan).prepare()
    assert not caught.value.invalid


async def test_asked_to_end_it_has_a_last_word(workshop: Workshop) -> None:
    def save(_task: int) -> None:
        os.makedirs("checkpoint", exist_ok=True)
        try:
            print("started", flush=True)
            with open("checkpoint/started", "w"):
                pass
            time.sleep(100)
        finally:
            with open("checkpoint/state", "w") as file:
                file.write("saved")

    sandbox = await prepared(workshop, save)
    running = asyncio.create_task(sandbox.run(0))
    await until((workshop.scratch / "checkpoint" / "started").exists, "the task runs")
    (root,) = sandbox.root_pids
    os.kill(root.pid, 15)
    outcome = await running
    assert (outcome.state, outcome.terminated) == ("failed", True)
    assert outcome.error == "was asked to end"
    assert (workshop.scratch / "checkpoint" / "state").read_text() == "saved"


async def test_who_does_not_listen_is_killed_after_the_grace(workshop: Workshop) -> None:
    def ignore(_task: int) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open("started", "w"):
            pass
        while True:
            pass

    sandbox = workshop.sandbox(plan_of(workshop, ignore)._replace(grace_s=0.3))
    await sandbox.prepare()
    running = asyncio.create_task(sandbox.run(0))
    await until((workshop.scratch / "started").exists, "the task runs")
    (root,) = sandbox.root_pids
    os.kill(root.pid, 15)
    outcome = await running
    assert (outcome.state, outcome.terminated) == ("failed", True)


async def test_a_sandbox_killed_under_a_task_leaves_nothing(workshop: Workshop) -> None:
    sandbox = await prepared(workshop, lambda _task: time.sleep(100))
    running = asyncio.create_task(sandbox.run(0))
    (root,) = sandbox.root_pids
    await until(lambda: len(tree.members([root])) >= 4, "the interpreter runs")
    met = tree.members([root])
    report = await asyncio.to_thread(tree.kill, [root])
    assert report.verified
    with pytest.raises(SandboxGoneError):
        await running
    assert not any(tree.alive(process) for process in met)
