"""`lender top` in a real terminal: what a person sees, what the keys do, and how it leaves."""

import re
import signal
import termios
from collections.abc import Iterator
from typing import Any

import pytest
from owner_machine import LENDER, Machine, grant, machine
from terminal import Terminal, environment

from lender.sandbox.processes import tree
from lender.state.attempt_records import AttemptRecord
from lender.state.consent_files import load_consent, read_intent

__all__ = ["machine"]

GIB = 1 << 30
STATUS: dict[str, Any] = {
    "machine": {
        "cores": 16,
        "memory_bytes": 16 * GIB,
        "memory_available_bytes": 9 * GIB,
        "cpu_others": 4.0,
        "gpus": [
            {
                "id": "GPU-1",
                "vram_free_bytes": 5 * GIB,
                "vram_others_bytes": 2 * GIB,
                "use_others": 0.12,
            }
        ],
    },
    "comfort": {
        "rung": "full",
        "cores": 15.0,
        "presence": "away",
        "reason": "",
        "figures": "pressure 0.4 %, 61 °C, on mains",
        "findings": [],
        "idle_s": 840.0,
        "locked": True,
        "desktop": True,
        "remote_sessions": 0,
        "sources": ["mutter"],
    },
}
ATTEMPT = {"cpu": 2, "memory_bytes": 2 * GIB, "memory_peak_bytes": GIB}
LEFT_ALTERNATE_SCREEN = "\x1b[?1049l"
CURSOR_SHOWN, CURSOR_HIDDEN = "\x1b[?25h", "\x1b[?25l"


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    """Whatever a test opens is closed after it."""
    opened: list[Terminal] = []
    yield opened
    for one in opened:
        one.close()


def shown(machine: Machine, terminals: list[Terminal], **more: Any) -> Terminal:  # noqa: ANN401
    size = {key: more.pop(key) for key in ("lines", "columns") if key in more}
    opened = Terminal([str(LENDER), "top"], environment(machine.state.path, **more), **size)
    terminals.append(opened)
    opened.sees("lender top")
    return opened


def busy(machine: Machine) -> AttemptRecord:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    machine.daemon(status=STATUS, attempt=ATTEMPT)
    return record


def test_it_shows_own_use_against_lent_use_on_a_small_screen(
    machine: Machine, terminals: list[Terminal]
) -> None:
    busy(machine)
    top = shown(machine, terminals)
    top.sees("q quit")
    lines = top.text.split("\n")
    assert len(lines) == 24
    assert lines[0].startswith("lender top  desk-7")
    assert lines[0].endswith("● Lending, light use")
    assert "You: away 14 min, screen locked (mutter)" in lines[1]
    assert "Machine comfortable (pressure 0.4 %, 61 °C, on mains)" in lines[2]
    (cores,) = (line for line in lines if line.startswith("Cores"))
    assert "you 4.0  lent 2.0  of 16" in cores
    assert abs(cores.count("█") - 2 * cores.count("▒")) <= 1  # whole characters
    (memory,) = (line for line in lines if line.startswith("Memory"))
    assert "you 6 GiB  lent 1 GiB  of 16 GiB" in memory
    (gpu,) = (line for line in lines if line.startswith("GPU 0"))
    assert "you 12 % of the time, 2 GiB  free 5 GiB" in gpu
    assert next(line for line in lines if line.startswith("JOB")).endswith("TIME")
    assert next(line for line in lines if line.startswith("job-one")).endswith("6m12s")
    assert "alice" in top.text
    assert "?[31m" in top.text  # a job's name steers nothing


def test_a_wide_name_breaks_no_line(machine: Machine, terminals: list[Terminal]) -> None:
    machine.attempt("one", grant(machine.state, "G-1"))
    attempt = {**ATTEMPT, "job_name": "分子" * 40, "state": "frozen", "held": "業" * 200}
    machine.daemon(status=STATUS, attempt=attempt)
    top = shown(machine, terminals)
    top.sees("q quit")
    (job,) = (line for line in top.text.split("\n") if line.startswith("job-one"))
    assert "alice" in job
    assert top.text.split("\n")[23].startswith("p pause")


def test_p_and_r_pause_and_resume(machine: Machine, terminals: list[Terminal]) -> None:
    record = busy(machine)
    top = shown(machine, terminals)
    top.press("p")
    top.sees("✓ paused:")
    assert all(tree.stopped(member) for member in tree.members(record.roots))
    assert read_intent(machine.state).paused
    top.sees("○ Paused")
    top.press("r")
    top.sees("✓ resumed")
    assert not read_intent(machine.state).paused
    top.sees("● Lending")


def test_x_asks_once_and_revokes_only_after_a_yes(
    machine: Machine, terminals: list[Terminal]
) -> None:
    record = busy(machine)
    top = shown(machine, terminals)
    top.press("x")
    top.sees("Withdraw every grant, kill and wipe what runs? y/n")
    top.press("q")
    top.sees("nothing withdrawn")
    assert tree.members(record.roots)
    top.press("x")
    top.sees("? y/n")
    top.press("y")
    top.sees("1 grant withdrawn")
    assert not tree.members(record.roots)
    assert load_consent(machine.state).consent.revoked == {"G-1"}


def test_p_says_in_full_that_the_pause_could_not_be_saved(
    machine: Machine, terminals: list[Terminal]
) -> None:
    record = busy(machine)
    machine.state.intent.mkdir()
    (machine.state.intent / "in-the-way").touch()
    top = shown(machine, terminals)
    top.press("p")
    top.sees("✓ paused:")
    top.until(lambda: "restart ends it" in " ".join(top.text.split()), "why it may not last")
    assert all(tree.stopped(member) for member in tree.members(record.roots))


def test_x_tells_what_could_not_be_saved_from_what_was_not_verified(
    machine: Machine, terminals: list[Terminal]
) -> None:
    record = busy(machine)
    machine.state.tombstones.rmdir()
    machine.state.tombstones.touch()
    top = shown(machine, terminals)
    top.press("x")
    top.sees("? y/n")
    top.press("y")
    top.sees("1 grant withdrawn")
    top.sees("not saved")
    assert "not verified" not in top.text
    assert not tree.members(record.roots)


def test_it_follows_the_terminals_size(machine: Machine, terminals: list[Terminal]) -> None:
    busy(machine)
    top = shown(machine, terminals)
    top.resize(40, 120)
    top.until(lambda: "q quit" in top.text.split("\n")[39], "the keys on the new last line")
    top.resize(10, 40)
    top.until(lambda: "p pause" in top.text.split("\n")[9], "the keys on the new last line")
    top.resize(2, 10)
    top.resize(24, 80)
    top.sees("job-one")


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda top: top.press("q"), 0),
        (lambda top: top.press("\x03"), 0),
        (lambda top: top.signal(signal.SIGTERM), 128 + signal.SIGTERM),
        (lambda top: top.signal(signal.SIGHUP), 128 + signal.SIGHUP),
    ],
    ids=["q", "ctrl-c", "sigterm", "sighup"],
)
def test_it_leaves_the_terminal_as_it_was(
    machine: Machine,
    terminals: list[Terminal],
    end: Any,  # noqa: ANN401 - a callable
    code: int,
) -> None:
    busy(machine)
    top = shown(machine, terminals)
    top.sees("job-one")
    end(top)
    assert top.ends() == code
    assert LEFT_ALTERNATE_SCREEN in top.shown
    assert top.shown.rfind(CURSOR_SHOWN) > top.shown.rfind(CURSOR_HIDDEN) > 0
    assert "Traceback" not in top.shown


def test_an_answer_it_cannot_show_leaves_the_terminal_usable(
    machine: Machine, terminals: list[Terminal]
) -> None:
    grant(machine.state, "G-1")
    machine.daemon(status={"machine": {"cores": "many"}})
    top = Terminal([str(LENDER), "top"], environment(machine.state.path))
    terminals.append(top)
    before = top.settings
    assert top.ends() == 1
    assert LEFT_ALTERNATE_SCREEN in top.shown
    after = termios.tcgetattr(top._fd)
    assert after[3] & (termios.ECHO | termios.ICANON) == before[3] & (termios.ECHO | termios.ICANON)


def test_no_color_shows_none(machine: Machine, terminals: list[Terminal]) -> None:
    busy(machine)
    top = shown(machine, terminals, NO_COLOR="1")
    top.sees("job-one")
    assert not re.search(r"\x1b\[(?:\d+;)*[34]\dm", top.shown)


def test_without_lenderd_it_says_so_and_goes_on_when_it_comes(
    machine: Machine, terminals: list[Terminal]
) -> None:
    grant(machine.state, "G-1")
    top = shown(machine, terminals)
    top.sees("lenderd does not run")
    machine.daemon(status=STATUS)
    top.sees("● Lending")


def test_without_a_terminal_it_names_the_way_out(machine: Machine) -> None:
    done = machine.lender("top")
    assert done.returncode == 2
    assert "lender status --watch" in done.stderr
