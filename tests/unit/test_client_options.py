"""What people type: files behind the command, sizes, durations, ranges."""

import argparse
import io
from pathlib import Path

import pytest

from lender.cli import map as map_verb
from lender.cli import submit
from lender.cli.exits import CommandError
from lender.cli.job_names import means
from lender.cli.job_options import job_request, take_trailing_files
from lender.cli.progress import Progress
from lender.client import After, Array, JobRequest, Limits, TaskRecord, TaskResult, Verify
from lender.service.quantities import duration_s, size_bytes


def request_of(*words: str) -> JobRequest:
    parser = argparse.ArgumentParser()
    submit.configure(parser)
    args = parser.parse_args(words)
    return job_request(args, array=args.array or args.each)


@pytest.mark.parametrize(
    ("words", "command", "inputs", "outputs"),
    [
        ("sha256sum file.bin --in file.bin", "sha256sum file.bin", ["file.bin"], []),
        ("sha256sum file.bin --in=file.bin", "sha256sum file.bin", ["file.bin"], []),
        ("sort a -o b --in a --out b", "sort a -o b", ["a"], ["b"]),
        ("wc b --in a=b", "wc b", ["a=b"], []),
        ("wc ./a --in a", "wc ./a", ["a"], []),
        # The file is named nowhere else: the command's own option.
        ("player --in song.wav", "player --in song.wav", [], []),
        ("tool --in song.wav --out x", "tool --in song.wav --out x", [], []),
        # All or none.
        ("sort a --in a --out b", "sort a --in a --out b", [], []),
        # Part of another name is not the name.
        ("cat file.binary --in file.bin", "cat file.binary --in file.bin", [], []),
        ("cat data/a --in a", "cat data/a --in a", [], []),
        # Not at the end.
        ("tool a --in a --fast", "tool a --in a --fast", [], []),
        ("", "", [], []),
    ],
)
def test_trailing_files_are_ours_only_if_the_command_names_them(
    words: str, command: str, inputs: list[str], outputs: list[str]
) -> None:
    assert take_trailing_files(words.split()) == (command.split(), inputs, outputs)


def test_a_file_named_inside_a_shell_line_counts_as_named() -> None:
    command, inputs, outputs = take_trailing_files(
        ["sh", "-c", "sort <in.txt >out.txt", "--in", "in.txt", "--out", "out.txt"]
    )
    assert (command[-1], inputs, outputs) == ("sort <in.txt >out.txt", ["in.txt"], ["out.txt"])


def test_checkpoints_are_asked_for_by_name() -> None:
    assert request_of("--checkpoint", "--", "count").checkpoint
    assert not request_of("--", "count").checkpoint


def test_the_documented_example(capsys: pytest.CaptureFixture[str]) -> None:
    request = request_of("--", "sha256sum", "file.bin", "--in", "file.bin")
    assert request.argv == ["sha256sum", "file.bin"]
    assert request.inputs == {"file.bin": Path("file.bin")}
    assert "taken as files of the job: file.bin" in capsys.readouterr().err


def test_files_named_before_the_command_leave_it_as_it_is() -> None:
    request = request_of("--in", "file.bin", "--", "tool", "file.bin", "--in", "file.bin")
    assert request.argv == ["tool", "file.bin", "--in", "file.bin"]


def test_what_a_machine_must_be_reaches_the_job() -> None:
    words = (
        "--os linux --arch aarch64 --pool lab --label ssd --label site:lab --prefer fast -- true"
    )
    requires = request_of(*words.split()).requires
    assert (requires.pool, requires.os, requires.arch) == ("lab", "linux", "aarch64")
    assert (requires.labels, requires.prefers) == (("ssd", "site:lab"), ("fast",))
    with pytest.raises(CommandError, match="--label: "):
        request_of("--label", "Two words", "--", "true")


def test_a_gpu_and_its_memory_reach_the_job() -> None:
    for words, vram_bytes in ((("--gpu",), 0), (("--vram", "2G"), 2 << 30)):
        requires = request_of(*words, "--", "true").requires
        assert (requires.gpu, requires.vram_bytes) == ("nvidia", vram_bytes)
    assert request_of("--", "true").requires.gpu == "none"
    matmul = ("--workload", "gpu-matmul", "--in", "a", "--in", "b", "--vram", "1G")
    request = request_of(*matmul, "--", "a", "b", "c")
    assert (request.requires.gpu, request.requires.vram_bytes) == ("nvidia", 1 << 30)
    assert request.inputs.keys() == {"matmul.py", "matmul.ptx", "a", "b"}
    assert (request.argv[:2], request.outputs) == (["python3", "matmul.py"], ["c"])


def test_when_it_runs_reaches_the_job() -> None:
    request = request_of("--priority", "-3", "--delay", "2h", "--expect", "30m", "--", "true")
    assert (request.priority, request.delay_s, request.expected_s) == (-3, 7200.0, 1800.0)


def test_a_delayed_job_has_as_long_as_any_other_once_it_may_run() -> None:
    day_s = 86_400.0
    assert request_of("--", "true").deadline_s == day_s
    assert request_of("--delay", "30h", "--", "true").deadline_s == 2.25 * day_s
    assert request_of("--delay", "6.5d", "--", "true").deadline_s == 7 * day_s


def test_what_it_waits_for_and_how_long_reaches_the_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = "--after job-0001 --after job-0002:end --queue-time 10m --prepare-time 90 -- true"
    request = request_of(*words.split())
    assert request.after == [After(job="job-0001"), After(job="job-0002", on="end")]
    assert (request.queue_s, request.limits.prepare_s) == (600.0, 90.0)
    assert request.deadline_s == 7 * 86_400.0, "who knows when those have ended"
    assert request_of("--after", "job-0001", "--deadline", "2h", "--", "true").deadline_s == 7200
    for wrong in ("short", "job-0001:now", "job 0001"):
        with pytest.raises(SystemExit):
            request_of("--after", wrong, "--", "true")
    assert capsys.readouterr().err.count("names no job") == 3


def test_limits_reach_the_job() -> None:
    words = ("--cpu", "2", "--mem", "1G", "--timeout", "5m", "--scratch", "2G", "--output", "4K")
    assert request_of(*words, "--processes", "9", "--", "true").limits == Limits(
        cpu=2,
        memory_bytes=1 << 30,
        time_s=300.0,
        scratch_bytes=2 << 30,
        output_bytes=4096,
        processes=9,
    )


def test_an_input_may_be_renamed_and_a_clash_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "a=b"
    odd.touch()
    request = request_of("--in", "x.bin=y", "--in", str(odd), "--", "cat", str(odd))
    assert list(request.inputs) == ["y", "a=b"]
    assert "as a=b" in capsys.readouterr().err
    with pytest.raises(CommandError, match="two inputs are called 'x'"):
        request_of("--in", "a/../x", "--in", "/x", "--", "true")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no command"),
        (("--cpu", "0", "--", "true"), "cpu: "),
        (("--mem", "1K", "x"), "--mem: "),
    ],
)
def test_what_makes_no_job_is_a_usage_error(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(CommandError, match=message) as caught:
        request_of(*words)
    assert caught.value.code == 2


def test_a_size_that_no_number_holds_is_a_usage_error() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="no such size"):
        size_bytes("9" * 400)


def test_sizes_and_durations() -> None:
    assert [size_bytes(text) for text in ("7", "1K", "512M", "1.5G", "2GiB", "1t")] == [
        7,
        1024,
        512 << 20,
        3 << 29,
        2 << 30,
        1 << 40,
    ]
    assert [duration_s(text) for text in ("90", "90s", "5m", "1.5h", "2d")] == [
        90,
        90,
        300,
        5400,
        172_800,
    ]
    for wrong in ("", "-1", "1X", "G"):
        with pytest.raises(argparse.ArgumentTypeError):
            size_bytes(wrong)
        with pytest.raises(argparse.ArgumentTypeError):
            duration_s(wrong)


def each_of(folder: Path, content: bytes) -> Array:
    path = folder / "list"
    path.write_bytes(content)
    array = request_of("--each", str(path), "--", "echo", "all").array
    assert isinstance(array, Array)
    return array


def test_each_line_that_is_not_empty_is_an_argument_of_a_task(tmp_path: Path) -> None:
    array = each_of(tmp_path, b"a b\n\n  -x \n$HOME\r\n\xc3\xbc")
    assert array == Array(count=4, each=(("a b",), ("  -x ",), ("$HOME",), ("\u00fc",)))
    assert each_of(tmp_path, b"\xef\xbb\xbfa\n").each == (("a",),), "the mark of another system"


def test_lines_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\nb")))
    parser = argparse.ArgumentParser()
    map_verb.configure(parser)
    args = parser.parse_args(["--each", "-", "--gang", "--", "echo"])
    assert args.each == Array(count=2, each=(("a",), ("b",)))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\n\n", "nothing to run"),
        (b"a\0b\0", "holds a zero byte"),
        (b"\xff", "is no UTF-8 text"),
        (b"a\n" * 1001, "has 1001 lines of 1001 bytes"),
        (b"a" * 1300 * 100 + b"\n" + b"b" * 1300, "131300 bytes in all"),
        (b"a" * 40_000, "at most 32768"),
        (None, "No such file"),
    ],
)
def test_a_list_that_makes_no_array_is_told_with_its_mend(
    tmp_path: Path, content: bytes | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        each_of(tmp_path, content) if content is not None else request_of("--each", "gone", "x")
    assert told in capsys.readouterr().err


def test_a_list_needs_a_command_and_says_of_files_that_are_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in (("list", "a.csv\nb.csv\n"), ("a.csv", "1"), ("b.csv", "2")):
        (tmp_path / name).write_text(content)
    with pytest.raises(CommandError, match="`-- sh -c`"):
        request_of("--each", "list")
    with pytest.raises(SystemExit):
        request_of("--each", "list", "--array", "0-1", "--", "cat")
    capsys.readouterr()
    request_of("--each", "list", "--in", "a.csv", "--", "cat")
    assert "such as b.csv, which tasks see by --in alone" in capsys.readouterr().err
    request = request_of("--each", "list", "--in", "a.csv", "--in", "b.csv", "--", "cat")
    assert capsys.readouterr().err == ""
    assert (request.argv, request.array) == (["cat"], Array(count=2, each=(("a.csv",), ("b.csv",))))
    words = ("--workload", "checksum", "--in", "a.csv", "--in", "b.csv", "--each", "list")
    request = request_of(*words)
    assert (request.argv, request.array) == ([], Array(count=2, each=(("a.csv",), ("b.csv",))))


def test_a_job_is_meant_by_what_its_id_begins_with_and_by_the_names_of_its_tasks() -> None:
    job = "01JD8Z0W3V6Y9QK2M4T7RXA5BC"
    assert all(means(said, job) for said in (job, job[:6], f"{job}-0", f"{job}-17"))
    assert not any(means(said, job) for said in (f"{job}-", f"{job}-x", f"{job[:6]}-1", "x", "-1"))


def test_an_array_is_all_indices_below_a_number_or_some_of_them() -> None:
    assert map_verb.indices("0-999") == Array(count=1000)
    assert map_verb.indices("0-3,4-9,2") == Array(count=10)
    assert map_verb.indices("7-9,3") == Array(count=10, tasks=((3, 1), (7, 3)))
    for wrong in ("1000", "", "9-7", "1-", "a", "0-2,"):
        with pytest.raises(argparse.ArgumentTypeError, match="write 0-999 for 1000 tasks"):
            map_verb.indices(wrong)
    with pytest.raises(argparse.ArgumentTypeError, match="less than or equal to 10000000"):
        map_verb.indices("0-99999999")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def feed(progress: Progress, lenders: str) -> None:
    for task, lender in enumerate(lenders):
        state = "failed" if lender == "x" else "succeeded"
        progress.count(TaskRecord(TaskResult(task=task, state=state), lender * 56, 1))


def test_progress_in_a_pipe_is_plain_lines_and_not_many() -> None:
    now = iter(range(100))
    stream = io.StringIO()
    progress = Progress(6, stream, lambda: next(now) / 2)
    feed(progress, "aabxab")
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[-1].startswith("6/6, 1 failed")
    assert "aaaaaaaa 3" in lines[-1]
    assert len(lines) < 6
    assert "\x1b" not in stream.getvalue()


def test_a_task_that_nobody_has_run_counts_and_names_no_machine() -> None:
    stream = io.StringIO()
    progress = Progress(2, stream, lambda: 0.0)
    feed(progress, "a")
    progress.count(TaskRecord(TaskResult(task=1, state="failed", cancelled=True), "", 0))
    assert stream.getvalue().splitlines()[-1].endswith("2/2, 1 failed  2000/s  aaaaaaaa 1")


def test_progress_on_a_terminal_is_one_bar() -> None:
    stream = Terminal()
    now = iter(range(100))
    progress = Progress(4, stream, lambda: float(next(now)))
    feed(progress, "abcdef"[:4])
    progress.say("task 3 failed")
    progress.close()
    text = stream.getvalue()
    assert "[##############################] 4/4" in text
    assert text.count("\n") == 2


def test_how_a_job_is_verified_reaches_it() -> None:
    assert request_of("--", "true").verify is None
    assert request_of("--verify", "3/2", "--", "true").verify == Verify(replicas=3, quorum=2)
    assert request_of("--verify", "3", "--", "true").verify == Verify(replicas=3, quorum=3)
    assert request_of("--verify", "spot", "--", "true").verify == Verify(spot_check=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [("2/3", "no more can agree"), ("8", "less than or equal to 7"), ("two", "write 3/2")],
)
def test_what_verifies_nothing_is_refused(
    text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        request_of("--verify", text, "--", "true")
    assert said in capsys.readouterr().err


def test_a_workload_brings_its_program_and_what_is_typed_goes_before_its_defaults(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--workload", "checksum", "--in", "file.bin", "--mem", "1G", "--", "file.bin")
    request = request_of(*words)
    assert isinstance(request.wasm, Path)
    assert request.wasm.name == "checksum.wasm"
    assert (request.limits.memory_bytes, request.limits.output_bytes) == (1 << 30, 4096)
    # Also with its file behind it.
    assert request_of("--workload", "checksum", "--", "a", "--in", "a").inputs == {"a": Path("a")}
    for wrong, said in (
        (("--workload", "checksum"), "arguments: checksum takes FILE"),
        (("--workload", "checksum", "--", "a"), "--in: checksum reads a"),
        (("--workload", "wasm", "--", "a"), "--wasm: wasm runs a module of yours"),
        (("--workload", "image", "--", "a"), "--workload: image is of container images"),
        (("--catalogue", "/absent", "--", "a"), "/absent: No such file"),
    ):
        with pytest.raises(CommandError, match=said) as caught:
            request_of(*wrong)
        assert caught.value.code == 2
    capsys.readouterr()
    # Lenders may know what is not known here.
    assert request_of("--workload", "unheard-of", "--", "a").argv == ["a"]
    assert "no workload 'unheard-of' is known here" in capsys.readouterr().err
