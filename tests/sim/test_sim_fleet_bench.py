"""The bench of the fleet, in small: what it counts holds together, and is the same again."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.fleet import report
from bench.fleet.simulation import Outcome, Settings, run

SMALL = Settings(lenders=30, tasks=1_500, days=0.45, seed=3)


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return run(SMALL)


def test_every_result_is_counted_once_and_nothing_runs_that_is_not_lent(outcome: Outcome) -> None:
    measures = outcome.measures
    assert sum(outcome.tasks.values()) == SMALL.tasks
    assert measures.tasks_done.total() > SMALL.tasks / 2
    for key, tasks in outcome.tasks.items():
        assert measures.tasks_done[key] <= measures.waits[key].tasks <= tasks
    assert all(
        busy <= lent + 1e-6
        for busy, lent in zip(measures.busy.bins, measures.lent.bins, strict=True)
    )
    lost = sum(sum(bins) for bins in measures.wasted.values())
    assert lost > 0
    assert measures.useful_slot_s.total() + lost < sum(measures.busy.bins) * 1.02


def test_the_same_seed_gives_the_same_run() -> None:
    smaller = SMALL._replace(lenders=20, tasks=600)
    one, again, other = run(smaller), run(smaller), run(smaller._replace(seed=4))
    assert (one.digest, one.steps) == (again.digest, again.steps)
    assert one.measures.wasted == again.measures.wasted
    assert one.digest != other.digest


def test_it_is_told_in_a_table_and_drawn(outcome: Outcome, tmp_path: Path) -> None:
    found = report.figures(outcome)
    lines = "\n".join(report.table(found))
    assert "placements a second" in lines
    assert "owner came back" in lines
    paths = report.write(outcome, found, tmp_path)
    pictures = [path for path in paths if path.suffix == ".svg"]
    assert len(pictures) == 4
    for path in pictures:
        assert len(ET.parse(path).findall(".//{*}polyline")) > 1
