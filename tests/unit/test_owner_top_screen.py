"""The screen of `lender top` at any size, and the cores that leases keep busy."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lender.cli.owner import Told
from lender.cli.reading import Reading
from lender.cli.top_screen import ASCII, Glyphs, Rates, screen

GIB = 1 << 30
numbers = st.none() | st.floats(0, 1e12)
RUNNING = st.fixed_dictionaries(
    {"lease": st.text(max_size=5), "job": st.text(max_size=40), "submitter": st.text(max_size=60)},
    optional={
        "job_name": st.text(max_size=40),
        "workload": st.text(max_size=40),
        "state": st.sampled_from(["running", "frozen", "preparing"]),
        "held": st.text(max_size=80),
        "cpu": st.integers(1, 64),
        "cpu_s": numbers,
        "memory_peak_bytes": st.integers(0, 1 << 40),
        "since": st.floats(0, 2e9),
    },
)
MACHINE = st.fixed_dictionaries(
    {"cores": st.integers(1, 256)},
    optional={
        "cpu_others": numbers,
        "memory_bytes": st.integers(1, 1 << 45),
        "memory_available_bytes": st.integers(0, 1 << 45),
        "gpus": st.lists(
            st.fixed_dictionaries(
                {"id": st.text(max_size=3)},
                optional={
                    "vram_free_bytes": st.integers(0, 1 << 40),
                    "vram_others_bytes": st.integers(0, 1 << 40),
                    "use_others": st.floats(0, 1),
                },
            ),
            max_size=4,
        ),
    },
)


def columns_of(text: str) -> int:
    """The terminal's own count, not ours."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


@given(
    lines=st.integers(1, 60),
    columns=st.integers(1, 250),
    running=st.lists(RUNNING, max_size=40),
    machine=MACHINE,
    message=st.text(st.characters(categories=["L", "N"]), max_size=200),
    glyphs=st.sampled_from([ASCII, Glyphs()]),
)
def test_it_fills_a_terminal_of_any_size_and_never_more(
    lines: int,
    columns: int,
    running: list[dict[str, Any]],
    machine: dict[str, Any],
    message: str,
    glyphs: Glyphs,
) -> None:
    fields = {"phase": "lending", "name": "desk", "running": running, "machine": machine}
    reading = Reading(Told("answered", {}), fields)
    rates = Rates().take(1.0, running)
    rows = screen(reading, rates, 2e9, (lines, columns), message, glyphs)
    assert len(rows) == lines
    assert all(sum(columns_of(text) for text, _ in row) < columns for row in rows)
    assert all(text.isprintable() for row in rows for text, _ in row)


def test_more_jobs_than_lines_are_counted() -> None:
    running = [{"lease": str(n), "job": f"J-{n}", "submitter": "U"} for n in range(30)]
    reading = Reading(Told("answered", {}), {"phase": "lending", "running": running})
    rows = screen(reading, {}, 0.0, (24, 80), "", ASCII)
    shown = ["".join(text for text, _ in row) for row in rows]
    jobs = [line for line in shown if line.startswith("J-")]
    assert f"and {30 - len(jobs)} more" in shown


def test_cores_follow_the_cpu_time_that_lenderd_tells() -> None:
    rates = Rates()

    def take(now: float, cpu_s: float | None, state: str = "running") -> float:
        one = {"lease": "L", "cpu": 4, "cpu_s": cpu_s, "state": state}
        return rates.take(now, [one])["L"]

    assert take(0.0, None) == 4.0  # nothing metered: what it may use
    assert take(1.0, 10.0) == 4.0  # one figure is no rate
    assert take(2.0, 10.0) == 4.0  # none came meanwhile
    assert take(3.0, 13.0) == pytest.approx(1.5)
    assert take(4.0, 13.0) == pytest.approx(1.5)
    assert take(5.0, 13.0, "frozen") == 0.0
    assert rates.take(6.0, []) == {}
    assert take(7.0, 13.5) == 4.0  # another lease of the same name starts over
