"""The state tables: README.md shows what the code does, and nothing else is legal."""

import re
from pathlib import Path
from typing import get_args

import pytest

import lender.core
from lender.core import attempt, lender_state
from lender.core.errors import IllegalTransitionError
from lender.core.lender_state import Grounds, derive
from lender.protocol.lease import LenderPhase

README = (Path(lender.core.__file__).parent / "README.md").read_text("utf-8")


def shown(heading: str) -> dict[str, frozenset[str]]:
    """The table with the columns From and To under `heading`."""
    section = README.split(f"## {heading}\n")[1].split("\n## ")[0]
    table = section.split("| From | To |\n|---|---|\n")[1].split("\n\n")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines()]
    return {re.sub("[` ]", "", one): frozenset(re.findall("[a-z]+", to)) for one, to in rows}


def test_the_readme_shows_the_table_of_an_attempt() -> None:
    assert shown("An attempt") == attempt.TRANSITIONS


def test_the_readme_shows_the_precedence_of_the_lenders_states() -> None:
    section = README.split("| State | Holds when")[1].split("\n\n")[0]
    assert tuple(re.findall(r"^\| `([a-z]+)`", section, re.MULTILINE)) == lender_state.PRECEDENCE
    assert set(get_args(LenderPhase)) == set(lender_state.PRECEDENCE)


def test_a_step_outside_the_table_is_a_typed_error_that_names_it() -> None:
    with pytest.raises(IllegalTransitionError, match="attempt: no transition revoked -> running"):
        attempt.step("revoked", "running")


def test_the_steps_in_the_table_are_legal() -> None:
    assert attempt.step("running", "frozen") == "frozen"


def test_the_first_signal_that_holds_names_the_state() -> None:
    everything = Grounds("p", "u", "d", "o", "y", "l")
    assert derive(everything) == ("paused", "p")
    assert derive(Grounds(None, None, "d", "o", "y", "l")) == ("draining", "d")
    assert derive(Grounds(None, None, None, None, None, "l")) == ("lending", "l")
