"""The runner of bench/peers, without a peer: how long to look, what becomes of findings."""

import json
from pathlib import Path

import pytest

from bench import rows
from bench.peers.known import PEERS, Known
from bench.peers.measures import Finding, enough, percentile
from bench.peers.samples import Samples


def test_so_many_tasks_are_asked_for_as_take_the_time_to_spend() -> None:
    asked: list[int] = []

    def ask(count: int) -> float:
        asked.append(count)
        return count / 1000

    assert enough(ask, 3.0) == pytest.approx(3000)
    assert sum(asked) < 3000  # it finds out with less than the measure itself


def test_a_slow_peer_is_asked_for_a_few_tasks_all_the_same() -> None:
    assert enough(lambda _: 100.0, 1.0) > 1


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (
        50,
        99,
        100,
    )
    assert percentile([7.0], 99) == 7


def test_findings_of_many_runs_become_rows_of_the_joint_form(tmp_path: Path) -> None:
    samples = Samples()
    samples.describe("one", "one 1.0; two workers", "yes, in files")
    for value in (3.0, 1.0, 2.0):
        samples.add("one", Finding("tasks", "1/s", value))
        samples.ran("one")
    samples.add("one", Finding("recovery", "s", 45.0, "not within 45 s"))
    samples.failed("two", "not installed: two")
    path = rows.write("peers", samples.rows(), on={"load": 0.0}, folder=tmp_path)
    assert rows.read(path).rows == tuple(samples.rows())
    written = json.loads(path.read_text())["rows"]
    assert [(row["system"], row["measure"], row["median"], row["note"]) for row in written] == [
        ("one", "runs", 3.0, "one 1.0; two workers"),
        ("one", "durable", 1.0, "yes, in files"),
        ("one", "tasks", 2.0, None),
        ("one", "recovery", 45.0, "not within 45 s"),
        ("two", "runs", 0.0, "not run: not installed: two"),
    ]


def test_a_run_that_breaks_off_is_told_of_and_what_it_found_is_kept() -> None:
    samples = Samples()
    samples.describe("one", "one 1.0", "no")
    samples.add("one", Finding("tasks", "1/s", 5.0))
    samples.failed("one", "no answer within 90 s")
    runs, durable, tasks = samples.rows()
    assert durable.values == (0.0,)
    assert (runs.values, runs.note) == ((0.0,), "one 1.0; a run broke off: no answer within 90 s")
    assert tasks.values == (5.0,)


def test_a_peer_that_is_not_there_says_what_is_missing() -> None:
    assert "bench/peers/install nothing" in Known("x", "x", "nothing").lacks()
    assert (
        Known("x", "x", programs=("no-such-program",)).lacks() == "not installed: no-such-program"
    )
    assert not Known("ProcessPoolExecutor", "pool").lacks()


def test_each_peer_has_a_file_and_a_list_of_what_it_is_installed_from() -> None:
    folder = Path(rows.ROOT) / "bench" / "peers"
    for known in PEERS:
        assert (folder / f"{known.module}.py").is_file()
        if known.venv:
            assert (folder / "requirements" / f"{known.venv}.txt").is_file()
