"""What a workload's description says of a job counts where the job says nothing itself."""

import hashlib
from pathlib import Path

import pytest

from lender.cli import validate
from lender.cli.exits import CommandError
from lender.cli.job_file import read_job_file
from lender.cli.parsing import parse
from lender.client import (
    Array,
    Catalogue,
    CatalogueError,
    JobRequest,
    Limits,
    Rejected,
    Requires,
    Workload,
)
from lender.client.arguments import Bound, bind, command_fault, expand, order_fault
from lender.client.filling import filled
from lender.client.specs import array_of_each
from lender.client.workload import read

MODULE = b"\0asm\1\0\0\0"
SAMPLE = f"""
name = "sample"
title = "A sample"
runtime = "wasm"
entry = "sample.wasm"
sha256 = "{hashlib.sha256(MODULE).hexdigest()}"

[limits]
cpu = 2
memory_bytes = 1_048_576
time_s = 1.5
output_bytes = 0
scratch_bytes = 10

[arguments]
SOURCE = "what it reads"
"[TARGET]" = "what it writes"

[inputs]
SOURCE = "any text"
words = "a list"
"[more]" = "another"
"..." = "others"

[outputs]
stdout = "a number"
TARGET = "any text"
report = "what it did"
"[trace]" = "how"
"""


def described(folder: Path, name: str = "sample", text: str = SAMPLE) -> Workload:
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "sample.wasm").write_bytes(MODULE)
    (place / "workload.toml").write_text(text.replace('"sample"', f'"{name}"'))
    return read(place)


def request(*argv: str, **more: object) -> JobRequest:
    inputs = {"a": b"", "words": b""}
    return JobRequest(**{"argv": argv, "inputs": inputs, "workload": "sample", **more})  # type: ignore[arg-type]


def test_a_job_that_says_nothing_gets_all_of_it(tmp_path: Path) -> None:
    workload = described(tmp_path)
    job = filled(request("a", "b"), workload)
    assert (job.wasm, job.argv) == (workload.module, ("a", "b"))
    assert (job.limits.cpu, job.limits.time_s, job.limits.scratch_bytes) == (2, 1.5, 10)
    assert job.limits.processes == Limits().processes
    assert job.outputs == ["b", "report"], "TARGET by its word; no output that may be left out"
    assert filled(request("./a"), workload).outputs == ["report"]


def test_what_a_job_says_itself_goes_before_it(tmp_path: Path) -> None:
    own = request("a", wasm=b"own", outputs=["x"], limits=Limits(cpu=1, processes=3))
    job = filled(own, described(tmp_path))
    assert (job.wasm, job.outputs) == (b"own", ["x"])
    # A default that was said counts as well.
    assert (job.limits.cpu, job.limits.processes, job.limits.time_s) == (1, 3, 1.5)


def test_what_a_machine_must_have_is_said_by_both(tmp_path: Path) -> None:
    needs = 'requires = {gpu = "nvidia", vram_bytes = 5, os = "linux"}\n\n[limits]'
    workload = described(tmp_path, text=SAMPLE.replace("[limits]", needs))
    own = Requires(vram_bytes=7, labels=("ssd",))
    assert filled(request("a", requires=own), workload).requires == Requires(
        gpu="nvidia", vram_bytes=7, os="linux", labels=("ssd",)
    )


@pytest.mark.parametrize(
    ("argv", "inputs", "field", "said"),
    [
        ((), {"words"}, "command", "takes SOURCE [TARGET]\n  SOURCE: what it reads"),
        (("a", "b", "c"), {"a", "words"}, "command", "takes SOURCE"),
        (("a",), {"words"}, "inputs", "reads a (any text)"),
        (("a",), {"a"}, "inputs", "reads words (a list)"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_sent(
    tmp_path: Path, argv: tuple[str, ...], inputs: set[str], field: str, said: str
) -> None:
    workload = described(tmp_path)
    with pytest.raises(Rejected) as told:
        filled(request(*argv, inputs=dict.fromkeys(inputs, b"")), workload)
    assert told.value.field == field
    assert said in told.value.reason


def test_each_task_may_have_arguments_of_its_own(tmp_path: Path) -> None:
    job = filled(request("a", array=array_of_each([["b"], ["b"]])), described(tmp_path))
    assert (job.argv, job.outputs) == (("a",), ["b", "report"])
    with pytest.raises(Rejected, match="the same name in each"):
        filled(request("a", array=array_of_each([["b"], ["c"]])), described(tmp_path))
    with pytest.raises(Rejected, match="takes SOURCE"):
        filled(request("a", array=array_of_each([[], ["b", "c"]])), described(tmp_path))
    with pytest.raises(Rejected, match="reads x"):
        filled(request(array=array_of_each([["a"], ["x"]])), described(tmp_path))


def test_a_command_line_is_made_for_each_task(tmp_path: Path) -> None:
    text = SAMPLE.replace('"wasm"', '"process"')
    text = text.replace('entry = "sample.wasm"', 'command = ["cat", "{SOURCE}", "-"]')
    text = "\n".join(line for line in text.splitlines() if not line.startswith("sha256"))
    inputs = {"a": b"", "b": b"", "words": b""}
    array = array_of_each([["a"], ["b"]])
    job = filled(request(array=array, inputs=inputs), described(tmp_path, text=text))
    assert job.argv == ()
    assert isinstance(job.array, Array)
    assert job.array.each == (("cat", "a", "-"), ("cat", "b", "-"))


def test_an_input_of_each_task_is_not_looked_for(tmp_path: Path) -> None:
    job = filled(request("a-{task}", inputs={"words": b"", "a-0": b""}), described(tmp_path))
    assert job.argv == ("a-{task}",)


def test_a_program_of_the_submitters_own_keeps_its_command_line() -> None:
    catalogue = Catalogue()
    job = filled(JobRequest(argv=["ls", "-l"], workload="command"), catalogue["command"])
    assert (job.argv, job.wasm, job.outputs) == (["ls", "-l"], None, [])
    for name, own, field in (
        ("wasm", JobRequest(), "wasm"),
        ("command", JobRequest(wasm=b""), "wasm"),
        ("python", JobRequest(), "workload"),
        ("image", JobRequest(argv=["ls"]), "workload"),
    ):
        with pytest.raises(Rejected) as told:
            filled(own, catalogue[name])
        assert told.value.field == field
    with pytest.raises(CatalogueError, match="no workload 'absent' is known here"):
        catalogue["absent"]


def test_arguments_are_told_apart_by_their_order() -> None:
    names = ["A", "[B]", "..."]
    assert bind(names, ["1"]) == Bound({"A": "1"})
    assert bind(names, ["1", "2", "3", "4"]) == Bound({"A": "1", "B": "2"}, ("3", "4"))
    assert bind(names, []) is bind(["A"], ["1", "2"]) is None
    assert bind([], []) == Bound({})
    assert order_fault(names) is None
    assert "[B], comes behind it" in (order_fault(["[B]", "A"]) or "")
    assert "nothing comes behind ..." in (order_fault(["...", "A"]) or "")


def test_a_command_line_is_made_of_arguments(tmp_path: Path) -> None:
    names = ["IN", "[OUT]", "..."]
    command = ["tool", "-i{IN}", "--out={OUT}", "{task}", "{print $1}", "{...}", "end"]
    assert command_fault(command, names) is None

    def made(*words: str) -> list[str]:
        return [*expand(command, names, bind(names, words) or Bound({}))]

    assert made("a b") == ["tool", "-ia b", "{task}", "{print $1}", "end"]
    # What was said is no template.
    assert made("{OUT}", "o", "-x", "{IN}")[1:3] == ["-i{OUT}", "--out=o"]
    assert made("{task}", "o", "-x", "{IN}")[-3:] == ["-x", "{IN}", "end"]
    assert "{ABSENT}: there is no such" in (command_fault(["{ABSENT}"], names) or "")
    for word, arguments in (("a{...}", names), ("{...}", ["IN"])):
        assert "a word of its own" in (command_fault([word], arguments) or "")

    program = SAMPLE.replace(
        'runtime = "wasm"', 'runtime = "process"\ncommand = ["cat", "{SOURCE}"]'
    )
    program = "\n".join(one for one in program.splitlines() if one[:5] not in ("entry", "sha25"))
    workload = described(tmp_path, text=program)
    job = filled(request("a", "b"), workload)
    assert (job.argv, job.wasm, job.outputs) == (["cat", "a"], None, ["b", "report"])
    assert "tool.sh" not in job.inputs
    (workload.folder / "tool.sh").touch()
    text = program.replace("command =", 'files = ["tool.sh"]\ncommand =')
    job = filled(request("a", "b"), described(tmp_path, text=text))
    assert job.inputs == {"a": b"", "words": b"", "tool.sh": workload.folder / "tool.sh"}
    with pytest.raises(Rejected, match="TARGET has the same name in every task"):
        filled(request("a", "{task}.out"), workload)


def test_a_job_file_names_its_workload_and_its_faults_have_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workload = described(tmp_path / "mine", "own")
    catalogue = Catalogue((tmp_path / "mine",))
    for name in ("a", "words"):
        (tmp_path / name).touch()
    file = tmp_path / "job.toml"
    whole = 'workload = "own"\ncommand = ["a"]\ninputs = ["a", "words"]\nlimits.cpu = 1\n'
    file.write_text(whole)
    job = read_job_file(file, catalogue)
    assert (job.wasm, job.limits.cpu, job.limits.time_s) == (workload.module, 1, 1.5)
    words = [str(file), "--catalogue", str(tmp_path / "mine")]
    assert validate.run(parse("validate", validate, words)) == 0
    assert capsys.readouterr().out.endswith("job.toml: 1 task of own a\n")

    for old, new, said in (
        ('["a"]', "[]", ":2: command: own takes SOURCE"),
        (', "words"', "", ":3: inputs: own reads words"),
        ('"own"', '"python"', ":1: workload: python is of Python functions"),
    ):
        file.write_text(whole.replace(old, new, 1))
        with pytest.raises(CommandError, match=r"job\.toml") as told:
            read_job_file(file, catalogue)
        assert said in str(told.value)
    file.write_text(whole)
    broken = workload.folder / "workload.toml"
    broken.write_text(broken.read_text().replace("cpu = 2", "cpu = 0"))
    with pytest.raises(CommandError, match=r"job.toml:1: workload: .*limits.cpu"):
        read_job_file(file, catalogue)
