"""Job files: what they say, and what is said of their faults."""

from pathlib import Path

import pytest

from lender.cli import run, validate
from lender.cli.exits import CommandError
from lender.cli.job_file import read_job_file
from lender.cli.parsing import parse
from lender.client import After, Array, Catalogue, JobRequest, Limits, Requires, Verify

WHOLE = """\
command = ["python3", "plot.py", "{task}"]
array = "0-9"
name = "plots"
workload = "plot"
inputs = ["plot.py"]
outputs = ["plot.png"]
env = { MODE = "fast" }
retries = 2
verify = "3/2"

[limits]
cpu = 2
mem = "2G"
timeout = "5m"
scratch = 1_000_000

[machine]
pool = "lab"
labels = ["ssd"]
net = "internet"

[when]
priority = -3
delay = "2h"
after = ["01JD8Z0W3V6Y9QK2M4T7RXA5BC:end"]
queue_time = 600
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("plot.py", "data.csv", "f.wasm"):
        (tmp_path / name).touch()
    return tmp_path


def read(folder: Path, text: str) -> JobRequest:
    path = folder / "job.toml"
    path.write_text(text)
    return read_job_file(path, Catalogue())


def test_all_that_it_says(folder: Path) -> None:
    assert read(folder, WHOLE) == JobRequest(
        argv=["python3", "plot.py", "{task}"],
        array=Array(count=10),
        name="plots",
        workload="plot",
        inputs={"plot.py": folder / "plot.py"},
        outputs=["plot.png"],
        env={"MODE": "fast"},
        retries=2,
        verify=Verify(replicas=3, quorum=2),
        limits=Limits(cpu=2, memory_bytes=2 << 30, time_s=300, scratch_bytes=1_000_000),
        requires=Requires(pool="lab", labels=("ssd",), net=("internet",)),
        priority=-3,
        delay_s=7200,
        after=[After(job="01JD8Z0W3V6Y9QK2M4T7RXA5BC", on="end")],
        queue_s=600,
        deadline_s=7 * 86_400,
    )


def test_what_each_task_is_called_with(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = read(folder, "command = ['cat']\neach = ['a b', ['-v', 'c'], []]")
    assert request.array == Array(count=3, each=(("a b",), ("-v", "c"), ()))
    assert validate.run(parse("validate", validate, [str(folder / "job.toml")])) == 0
    assert "3 tasks of cat a b …" in capsys.readouterr().out
    whole = read(folder, "each = [['true'], ['echo', 'x']]")
    assert (whole.argv, whole.array) == ([], Array(count=2, each=(("true",), ("echo", "x"))))


def test_files_lie_beside_it_and_may_have_other_names(folder: Path) -> None:
    text = 'wasm = "f.wasm"\ncommand = ["x"]\n[inputs]\n"in/a" = "data.csv"\n'
    request = read(folder, text)
    assert request.wasm == folder / "f.wasm"
    assert request.inputs == {"in/a": folder / "data.csv"}
    assert request.deadline_s == 86_400


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("command = [", "1: Invalid value"),
        ('name = "x"\ncommand = ["x"\n', "2: Unclosed array"),
        ('name = "x"\n\ncommand = "x\n', "3: Illegal character"),
        ("name = 'x'", "1: command: say what to run"),
        ("command = ['x']\nnmae = 'y'", "2: nmae: there is no such key"),
        ("command = ['x']\n[limits]\ncpu = 2\nmem = '2X'", "4: limits.mem: '2X' is no size"),
        ("command = ['x']\n[limits]\nmem = 1", "3: limits.mem: Input should be greater"),
        ("command = ['x']\nlimits.cpu = 0", "2: limits.cpu: Input should be greater"),
        ("command = ['x']\nlimits = { cpu = 0 }", "2: limits.cpu: Input should be greater"),
        ("command = ['x']\nlimits = 3", "2: limits: Input should be"),
        ("command = ['x']\n[machine]\narch = 'vax'", "3: machine.arch: Input should be"),
        ("command = ['x']\n[machine]\nnet = 'a b'", "3: machine.net: "),
        ("command = ['x']\n[machine]\nram = 3", "3: machine.ram: there is no such key"),
        ("command = ['x', 3]", "1: command.1: Input should be a valid string"),
        ("command = ['x']\n\narray = '5'", "3: array: '5' are no indices"),
        ("command = ['x']\narray = 5", "2: array: '5' are no indices"),
        ("command = ['x']\narray = true", "2: array: "),
        ("command = ['x']\neach = ['a']\narray = '0-0'", "2: each: says how many"),
        ("command = ['x']\neach = []", "2: each: is empty"),
        ("command = ['x']\neach = 'a'", "2: each: Input should be a valid list"),
        ("command = ['x']\neach = ['a', 3]", "2: each.1"),
        ("each = [['true'], []]", "1: command: a process job is a command line"),
        ("command = ['x']\nverify = '9/9'", "2: verify: "),
        ("command = ['x']\nretries = 99", "2: retries: Input should be less"),
        ("command = ['x']\n[when]\ndelay = 'soon'", "3: when.delay: 'soon' is no duration"),
        ("command = ['x']\n[when]\npriority = 900", "3: when.priority: Input should be less"),
        ("command = ['x']\n[when]\nafter = ['?']", "3: when.after.0.job: String should match"),
        ("command = ['x']\ninputs = ['gone']", "2: inputs.gone: there is no file"),
        ("command = ['x']\n[inputs]\na = 'gone'", "3: inputs.a: there is no file"),
        ("wasm = 'gone.wasm'", "1: wasm: there is no file"),
        ("command = ['x']\noutputs = ['../x']", "2: outputs.0: "),
        ("command = ['x']\ncheckpoint = true\nverify = '2'", "3: verify: who goes on"),
        ("command = ['x']\ngang = true", "2: gang: "),
        ("command = ['x']\nseal = 'no'\n", "2: seal: Input should be a valid boolean"),
    ],
)
def test_a_fault_names_line_and_key(folder: Path, text: str, fault: str) -> None:
    with pytest.raises(CommandError) as caught:
        read(folder, text)
    assert caught.value.code == 2
    said = str(caught.value).removeprefix(f"{folder / 'job.toml'}:").strip()
    assert said.startswith(fault), said


def test_a_file_that_cannot_be_read_is_told(folder: Path) -> None:
    for content in (b"\xff", b"[" * 100_000):
        (folder / "job.toml").write_bytes(content)
        with pytest.raises(CommandError, match=r"job\.toml:(1:)? "):
            read_job_file(folder / "job.toml", Catalogue())
    with pytest.raises(CommandError, match=r"can't read .*: No such file"):
        read_job_file(folder / "none.toml", Catalogue())


ESCAPE = r"\u001b]0;mine\u0007"
LIKE_A_TABLE = "[" + " " * 50_000 + "x"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"x" * ((1 << 20) + 1), "such a file has at most"),
        (f"a{'.a' * 10_000} = 1".encode(), "nested too deeply"),
        (f"retries = {'9' * 5000}".encode(), "Exceeds the limit"),
        (f"wasm = '{'x' * 5000}'".encode(), "there is no file"),
        # Looking for the line of a fault took hours behind it.
        (f'env = {{ A = """\n{LIKE_A_TABLE}""" }}\nx = 1'.encode(), "there is no such key"),
    ],
    ids=["size", "depth", "digits", "name", "line"],
)
def test_a_file_of_a_strangers_costs_no_more_than_any(
    folder: Path, content: bytes, fault: str
) -> None:
    (folder / "job.toml").write_bytes(content)
    with pytest.raises(CommandError, match=fault):
        read_job_file(folder / "job.toml", Catalogue())


@pytest.mark.parametrize(
    "text", [f'"{ESCAPE}" = 1', f'command = ["x"]\ninputs = ["{ESCAPE}"]', f'wasm = "{ESCAPE}"']
)
def test_nothing_in_a_file_steers_the_terminal_that_its_fault_is_told_on(
    folder: Path, text: str
) -> None:
    with pytest.raises(CommandError, match=r"\\x1b\]0;mine\\x07"):
        read(folder, text)


def test_nor_does_what_it_describes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "job.toml").write_text(f'command = ["{ESCAPE}"]')
    assert validate.run(parse("validate", validate, [str(folder / "job.toml")])) == 0
    assert capsys.readouterr().out.endswith("1 task of \\x1b]0;mine\\x07\n")


def test_validate_says_what_it_describes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "job.toml").write_text(WHOLE)
    assert validate.run(parse("validate", validate, [str(folder / "job.toml")])) == 0
    assert capsys.readouterr().out.endswith("job.toml: 10 tasks of python3 plot.py {task}\n")


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ([], "name one job file"),
        (["a.toml", "b.toml"], "name one job file"),
        (["--cpu", "2", "a.toml"], "what a job file describes is said in it: cpu"),
    ],
)
def test_run_takes_a_file_or_a_module(words: list[str], fault: str) -> None:
    with pytest.raises(CommandError, match=fault):
        run.run(parse("run", run, words))
