"""What a grant allows is told the same everywhere; what it was used for survives a damaged log."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from lender.cli.consent_words import agreement, changed, terms
from lender.cli.grant_usage import GrantUses
from lender.client import catalogue
from lender.core.budget import parse_budget
from lender.core.consent import Grant
from lender.core.schedule import parse_when
from lender.service.workload_folders import installed_workloads
from lender.state.programs import read_programs

NOW = time.time()
DIGEST = "ab" * 32
GRANT = Grant(
    "G-1", "U" + "A" * 55, "render", DIGEST, 1, 2 << 30, NOW + 3600, NOW, 0,
    parse_when("Sat-Sun"), parse_budget(["2cpuh/day"]),
)  # fmt: skip


def test_the_terms_name_every_limit() -> None:
    assert terms(GRANT) == (
        "each task 1 core and 2 GiB of memory, no GPU, no network; "
        "only Sat-Sun, at most 2 CPU hours a day"
    )


def test_a_network_is_named_and_explained() -> None:
    networked = replace(GRANT, net=("internet", "git.example.org:22"))
    places = "the network (any public host at ports 80 and 443; git.example.org:22)"
    assert f"no GPU, {places};" in terms(networked)
    assert "from your address" in agreement(networked, "", {}, [])
    assert "It has it not while the network is paid by volume." in agreement(networked, "", {}, [])
    metered = replace(networked, net_metered=True)
    assert f"{places}, also paid by volume;" in terms(metered)
    assert "It has it also while the network is paid by volume." in agreement(metered, "", {}, [])
    assert "from your address" not in agreement(GRANT, "", {}, [])


def test_a_bound_in_kwh_says_what_it_depends_on() -> None:
    assert terms(replace(GRANT, budget=parse_budget(["0.5kWh/day"]))).endswith(
        "at most 0.5 kWh a day, nothing while energy can't be measured"
    )


@pytest.mark.parametrize(
    ("known", "is_changed", "told"),
    [
        ({"render": DIGEST}, False, "a changed one asks you again"),
        ({"render": "cd" * 32}, True, "this machine knows another as render: so far nothing runs"),
        ({"render": None}, False, "a changed one asks you again"),
        ({}, False, "a changed one asks you again"),
    ],
)
def test_a_pinned_program_is_told_and_compared(
    known: dict[str, str | None], is_changed: bool, told: str  # noqa: FBT001 - a table's column
) -> None:  # fmt: skip
    assert changed(GRANT, known) == is_changed
    assert told in agreement(GRANT, "", known, [])


def test_the_light_reader_of_the_catalogue_agrees_with_the_full_one() -> None:
    programs = read_programs(installed_workloads())
    assert programs == {name: one.sha256 for name, one in catalogue.load().items()}


@pytest.mark.parametrize("content", ["name = ", 'name = "No"', 'name = "a"\nsha256 = 5', "a=" * 9])
def test_a_malformed_workload_pins_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "workload.toml").write_text(content)
    assert read_programs(tmp_path) == {}
    assert read_programs(tmp_path / "none") == {}


def test_a_damaged_receipt_counts_for_nothing_and_hides_no_other() -> None:
    good = {"grant": "G-1", "job": "J-1", "ended_at": NOW, "cpu_s": 3600, "bytes_in": 5}
    damaged = [
        {},
        {"grant": 5, "job": "J", "ended_at": NOW},
        {**good, "job": None},
        {**good, "ended_at": "never"},
        {**good, "ended_at": float("inf")},
        {**good, "ended_at": float("nan")},
        {**good, "ended_at": -1},
    ]
    odd = {**good, "cpu_s": "much", "bytes_in": float("inf"), "bytes_out": None, "energy_wh": -1}
    used = GrantUses([*damaged, good, odd, {"kind": "repair"}]).fields(GRANT, NOW)
    assert (used["jobs"], used["attempts"], used["cpu_s"], used["moved_bytes"]) == (1, 2, 3600, 5)
    assert used["budget"][0]["left"] == 3600
    assert used["exhausted"] is None


def test_a_used_up_budget_is_told() -> None:
    receipt = {"grant": "G-1", "job": "J-1", "ended_at": NOW, "cpu_s": 7200}
    used = GrantUses([receipt]).fields(GRANT, NOW)
    assert used["budget"][0]["left"] == 0
    assert used["exhausted"] == (
        "grant G-1 has used 2 of 2 CPU hours today, free again at midnight"
    )
