"""Jobs that are written down, and arrays, from the command line of a submitter."""

from pathlib import Path

from deploy.local.fleet import Fleet

JOB = """\
command = ["sh", "-c", "cat word; echo {task} | tee out; echo $MODE >&2"]
array = "0-2"
env = { MODE = "fast" }
outputs = ["out"]
[inputs]
word = "words.txt"
[limits]
timeout = "1m"
"""


def test_a_job_that_is_written_down_runs_as_it_says(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("a word, ")
    file, into = tmp_path / "job.toml", tmp_path / "into"
    file.write_text(JOB)
    said = fleet.submit("run", str(file))
    assert (said.returncode, said.stdout) == (2, "")
    assert "need a folder: --into" in said.stderr

    said = fleet.submit("run", str(file), "--into", str(into))
    assert said.returncode == 0, said.stderr
    assert [(into / str(task)).read_text() for task in range(3)] == [
        f"a word, {task}\n" for task in range(3)
    ]
    assert (into / "2.out" / "out").read_text() == "2\n"

    file.write_text(JOB.replace("timeout", "time"))
    said = fleet.submit("run", str(file), "--into", str(into))
    assert said.returncode == 2
    assert f"{file}:8: limits.time: there is no such key" in said.stderr


def test_submit_takes_an_array(fleet: Fleet) -> None:
    said = fleet.submit("submit", "--array", "3,5-6", "--", "echo", "{task}")
    assert (said.returncode, said.stdout) == (0, "3\n5\n6\n")
