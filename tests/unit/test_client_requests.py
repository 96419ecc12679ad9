"""What a submitter says becomes a specification, or an error that names the field."""

import os
from pathlib import Path

import pytest

from lender.client.contents import check_is_file
from lender.client.errors import (
    Cancelled,
    ClientError,
    ContentFault,
    Expired,
    JobFailed,
    Rejected,
    TaskFailed,
    error_of,
)
from lender.client.specs import JobRequest, array_of_each, inputs_by_name, job_spec, payload_of
from lender.protocol.codec import decode
from lender.protocol.job import After, Array, BlobRef, JobSpec, Limits, Requires
from lender.protocol.result import TaskResult, Terminal, TerminalState

SUBMITTER = "U" + "A" * 55
BLOB = BlobRef(sha256="0" * 64, size_bytes=3)


def spec_of(request: JobRequest, program: BlobRef | None = None) -> JobSpec:
    return job_spec(
        request,
        job="job-0001",
        submitter=SUBMITTER,
        now=100.0,
        program=program,
        inputs=dict.fromkeys(request.inputs, BLOB),
    )


def test_a_command_becomes_a_process_job() -> None:
    spec = spec_of(JobRequest(argv=["ls"], inputs={"a": b""}, outputs=["b"], deadline_s=5))
    assert (spec.runtime, spec.workload, spec.argv) == ("process", "command", ("ls",))
    assert (spec.inputs[0].name, spec.outputs, spec.not_after) == ("a", ("b",), 105.0)
    assert decode(JobSpec, payload_of(spec)) == spec


@pytest.mark.parametrize(
    ("field", "one"),
    [
        ("argv", {"argv": "ls -l"}),
        ("outputs", {"outputs": "ab"}),
        ("after", {"after": "job-0001"}),
        ("inputs.a", {"inputs": {"a": "b"}}),
        ("inputs.a", {"inputs": {"a": bytearray()}}),
        ("wasm", {"wasm": "b.wasm"}),
    ],
)
def test_what_would_be_taken_for_something_else_is_refused(
    field: str, one: dict[str, object]
) -> None:
    with pytest.raises(Rejected) as refused:
        JobRequest(**{"argv": ["ls"], **one})  # type: ignore[arg-type] # as who has no types
    assert refused.value.field == field


def test_no_input_takes_the_place_of_another() -> None:
    assert inputs_by_name(["x", "./x", "/a/y"]) == {"x": Path("x"), "y": Path("/a/y")}
    for files in (["/a/x", "/b/x"], ["x", "../x"], "x", Path("x")):
        with pytest.raises(Rejected, match=r"both be x|brackets"):
            inputs_by_name(files)  # type: ignore[arg-type] # the last one


def test_what_has_no_end_or_comes_once_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_is_file(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "a\0b"):
        with pytest.raises(ContentFault, match="can't read"):
            check_is_file(path)


def test_a_module_becomes_a_wasm_job_and_an_array_has_a_count() -> None:
    spec = spec_of(JobRequest(wasm=b"", array=12, workload="render"), program=BLOB)
    assert (spec.runtime, spec.workload, spec.task_count) == ("wasm", "render", 12)


def test_tasks_of_an_array_have_words_of_their_own() -> None:
    array = array_of_each([["a b", "c"], []])
    spec = spec_of(JobRequest(argv=["echo"], array=array))
    assert (spec.argv, spec.task_count) == (("echo",), 2)
    assert spec.array is not None
    assert spec.array.each == (("a b", "c"), ())
    some = array_of_each([["a"], ["b"], ["c"]], Array(count=3, tasks=((1, 2),)))
    assert (some.tasks, len(some.each)) == (((1, 2),), 3)


@pytest.mark.parametrize(
    ("each", "array", "said"),
    [
        ([], None, "nothing to run"),
        (["a", "b"], None, "brackets"),
        ("ab", None, "brackets"),
        ([["a"]] * 1001, None, "1001, at most 1000 in a job"),
        ([["a"]], 2, "as many as count"),
        ([["a"]], -1, "greater than"),
        ([["a\0"]], None, "match"),
    ],
)
def test_words_that_are_no_lists_or_not_as_many_are_refused(
    each: list[list[str]], array: int | None, said: str
) -> None:
    with pytest.raises(Rejected, match=said) as refused:
        array_of_each(each, array)
    assert refused.value.field == "each"


def test_a_job_keeps_checkpoints_only_if_it_says_so() -> None:
    assert spec_of(JobRequest(argv=["ls"], checkpoint=True)).checkpoint
    assert not spec_of(JobRequest(argv=["ls"])).checkpoint


def test_what_it_waits_for_and_how_long() -> None:
    anyhow = After(job="job-0003", on="end")
    spec = spec_of(JobRequest(argv=["ls"], after=["job-0002", anyhow], queue_s=60.0))
    assert spec.after == (After(job="job-0002", on="success"), anyhow)
    assert (spec.queue_s, spec.not_after) == (60.0, 100.0 + 86_400.0)
    with pytest.raises(Rejected, match="wait for itself"):
        spec_of(JobRequest(argv=["ls"], after=["job-0001"]))


def test_a_function_becomes_a_python_job_of_a_version() -> None:
    request = JobRequest(function=b"", array=3, requires=Requires(python="3.11"))
    spec = spec_of(request, program=BLOB)
    assert (spec.runtime, spec.workload, spec.task_count) == ("python", "python", 3)
    with pytest.raises(Rejected, match="names its version"):
        spec_of(JobRequest(function=b""), program=BLOB)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (JobRequest(argv=["x"], array=0), "array"),
        (JobRequest(argv=["x"], array=10_000_001), "array"),
        (JobRequest(argv=["x"], inputs={"../up": b""}), "inputs"),
        (JobRequest(argv=["x"], after=["x"]), "after"),
        (JobRequest(argv=["x"], outputs=["/etc/passwd"]), "outputs.0"),
        (JobRequest(argv=["x"], retries=99), "retries"),
        (JobRequest(argv=["x"], workload="No Such"), "workload"),
        (JobRequest(), "JobSpec"),
    ],
)
def test_a_wrong_field_is_named_before_anything_is_sent(request_: JobRequest, field: str) -> None:
    with pytest.raises(Rejected) as caught:
        spec_of(request_)
    assert caught.value.field == field
    assert caught.value.reason in str(caught.value)


def test_an_oversized_specification_is_refused_here() -> None:
    spec = spec_of(JobRequest(argv=["x" * 30_000] * 5))
    with pytest.raises(Rejected, match="send data as inputs"):
        payload_of(spec)


def test_inputs_keep_their_relative_names() -> None:
    named = inputs_by_name(["data/x.npz", "./y", "/srv/z", "../w"])
    assert list(named) == ["data/x.npz", "y", "z", "w"]
    assert named["z"] == Path("/srv/z")


@pytest.mark.parametrize(
    ("state", "kind"),
    [("failed", JobFailed), ("cancelled", Cancelled), ("expired", Expired), ("rejected", Rejected)],
)
def test_every_bad_end_is_an_error_with_a_mend(
    state: TerminalState, kind: type[ClientError]
) -> None:
    error = error_of(Terminal(job="job-0001", state=state, finished_at=1.0))
    assert isinstance(error, kind)
    assert error.mend in str(error)


def test_success_is_no_error() -> None:
    assert error_of(Terminal(job="job-0001", state="succeeded", finished_at=1.0)) is None


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (TaskResult(task=0, state="failed", limit="memory"), "raise the memory limit"),
        (TaskResult(task=0, state="failed", exit_code=3), "exit code 3"),
        (TaskResult(task=0, state="failed", error="no such program"), "no such program"),
    ],
)
def test_a_failure_says_why(result: TaskResult, words: str) -> None:
    last = Terminal(job="job-0001", state="failed", result=result, finished_at=1.0)
    error = JobFailed(last)
    assert words in str(error)
    assert error.exit_code == result.exit_code
    assert words in str(TaskFailed("job-0001", result))


def test_limits_are_the_wires_own() -> None:
    assert spec_of(JobRequest(argv=["x"], limits=Limits(cpu=3))).limits.cpu == 3


def test_who_was_cancelled_for_anothers_end_says_so() -> None:
    reason = "it was to run after the success of job job-0000, which failed"
    end = Terminal(job="job-0001", state="cancelled", field="after", reason=reason, finished_at=1.0)
    assert reason in str(error_of(end))
    for field, mend in (("queue_s", "queue_s"), ("not_after", "deadline_s")):
        late = Terminal(job="job-0001", state="expired", field=field, finished_at=1.0)
        assert mend in str(error_of(late))
