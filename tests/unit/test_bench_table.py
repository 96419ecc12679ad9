"""The joint table: what is shown, and what is said of a busy machine."""

import subprocess
import sys
from pathlib import Path

from bench import rows
from bench.__main__ import STEPS, chosen, run
from bench.rows import Row
from bench.table import draw, figure, markdown, read_all

QUIET = {
    "cores": 2,
    "cpu": "a processor",
    "memory_gib": 4.0,
    "system": "Linux",
    "python": "3.11",
    "load": 0.1,
}
PEERS = (
    Row("lender", "runs", "", (5.0,), "lender 0.1; two lenderds"),
    Row("lender", "durable", "", (1.0,), "yes, JetStream files"),
    Row("lender", "no-op tasks", "1/s", (5000.0, 5200.0, 4000.0)),
    Row("other", "runs", "", (5.0,), "other 7 | pipes"),
    Row("other", "durable", "", (0.0,), "no"),
    Row("other", "no-op tasks", "1/s", (0.5,)),
    Row("other", "second start of a killed worker's task", "s", (35.0,), "not within 35 s"),
    Row("absent", "runs", "", (0.0,), "not run: not installed: absent"),
)


def test_peers_stand_side_by_side_and_who_is_not_there_is_told_of(tmp_path: Path) -> None:
    rows.write("peers", PEERS, on=QUIET, folder=tmp_path)
    rows.write("startup", [Row("lender", "status", "ms", (1.5,))], on=QUIET, folder=tmp_path)
    tables = read_all(tmp_path)
    assert [table.bench for table in tables] == ["peers", "startup"]
    page = markdown(tables, draw(tables, tmp_path))
    lines = page.splitlines()
    assert "| lender | 5,000 |  |  |  |  |  |  |  |  | yes, JetStream files |" in lines
    assert "| other | 0.5 |  |  |  |  |  |  |  | over 35 | no |" in lines
    assert "- absent: not run: not installed: absent" in lines
    assert "- other: other 7 | pipes (5 runs)" in lines
    assert "| lender | status | 1.5 | 1.5 | 1.5 | ms | 1 |  |" in lines
    assert "Provisional" not in page
    assert ">lender</text>" in (tmp_path / "peers-1.svg").read_text()


def test_what_is_good_and_what_is_not_yet_comes_first(tmp_path: Path) -> None:
    """Each figure beside its goal, and a floor or a peer; what no bench found is no goal missed."""
    rows.write("peers", PEERS, on=QUIET, folder=tmp_path)
    found = (
        Row("lender", "jobs, wasm, sync default", "jobs/s", (6000.0,)),
        Row("lender", "array of wasm tasks, sync default", "tasks/s", (100.0,)),
        Row("floor: raw JetStream", "jobs, sync default", "jobs/s", (30000.0,)),
    )
    rows.write("throughput", found, on=QUIET, folder=tmp_path)
    stopped = (
        Row("lender", "pause: one, lenderd idle", "ms", (1.0, 2.0)),
        Row("lender", "pause: many, lenderd loaded", "ms", (1.0, 25.0)),
    )
    rows.write("owner", stopped, on=QUIET, folder=tmp_path)
    costs = {"broker, 1": 100.0, "server, 1": 100.0, "broker, 1,000": 120.0, "server, 1,000": 120.0}
    curve = [
        Row("lender", f"a job alone, {name} lenders", "CPU µs", (cost,))
        for name, cost in costs.items()
    ]
    rows.write("scale", curve, on=QUIET, folder=tmp_path)
    page = markdown(read_all(tmp_path), [])
    lines = page.splitlines()
    assert "**2 goals are met, 2 not yet.** Not measured here: " in page.partition("## peers")[0]
    worst = "the worst of 2: many, lenderd loaded"
    points = "200 µs at 1, 240 µs at 1,000"
    for line in (
        "| separate no-op jobs | 6,000 | 1/s | ≥ 5,000 | met | floor: raw JetStream: 30,000 |",
        "| wasm tasks of an array | 100 | 1/s | ≥ 50,000 | not yet |  |",
        f"| pause until all is frozen, p99 | 25 | ms | ≤ 20 | not yet | {worst} |",
        f"| a job alone, 1 to 1,000 lenders | 1.2 | times | ≤ 1.25 | met | {points} |",
    ):
        assert line in lines
    assert "over the best durable peer | 5,000 |" not in page, "the other one stores nothing"


def test_figures_from_a_busy_machine_are_provisional(tmp_path: Path) -> None:
    rows.write("peers", PEERS, on={**QUIET, "load": 3.0}, folder=tmp_path)
    assert "**Provisional**: other work ran on this machine (load at the start: peers 3)" in (
        markdown(read_all(tmp_path), [])
    )


def test_figures_have_the_digits_that_count() -> None:
    assert [figure(value) for value in (0.0, 0.012345, 7.891, 123.4, 1234567.0)] == [
        "0",
        "0.0123",
        "7.89",
        "123",
        "1,234,567",
    ]


def test_each_step_of_make_bench_is_there_and_ends_in_time() -> None:
    for step in STEPS:
        assert Path(rows.ROOT, step.argv[0]).is_file() or step.argv[0] == "-m"
    assert [step.name for step in chosen("owner,peers")] == ["peers", "owner"]


def test_a_step_that_takes_too_long_or_fails_is_told_of() -> None:
    assert run([sys.executable, "-c", "import time; time.sleep(60)"], 0.2) == "ended after 0 s"
    assert run([sys.executable, "-c", "raise SystemExit(3)"], 30.0) == "failed with 3"
    assert run([sys.executable, "-c", "pass"], 30.0) == ""


def test_the_page_is_written_by_one_command(tmp_path: Path) -> None:
    rows.write("peers", PEERS, on=QUIET, folder=tmp_path / "rows")
    argv = [sys.executable, "bench/table.py", "--rows", str(tmp_path / "rows")]
    done = subprocess.run([*argv, "--to", str(tmp_path / "page")], cwd=rows.ROOT, check=False)
    assert done.returncode == 0
    assert (tmp_path / "page" / "README.md").read_text().startswith("# Measured")
