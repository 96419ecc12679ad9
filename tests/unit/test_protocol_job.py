"""What a job may say."""

import json

import pytest
from core_world import ALICE, BOB, LENDER, PROGRAM, START, array_spec, make_spec
from pydantic import ValidationError

from lender.protocol.bounds import (
    CONTENT_KEPT_S,
    EACH_MAX,
    GANG_TASKS_MAX,
    QUEUE_S_MAX,
    WEEK_S,
)
from lender.protocol.codec import JSON, decode, encode
from lender.protocol.ids import task_name, task_named
from lender.protocol.job import BlobRef, JobSpec, week_of
from lender.protocol.lease import Lease

BLOB = {"sha256": PROGRAM, "size_bytes": 1000}


def refused(match: str, **changes: object) -> None:
    with pytest.raises(ValidationError, match=match):
        make_spec(**changes)  # type: ignore[arg-type]  # a test's keyword soup


def named(*names: str) -> tuple[dict[str, object], ...]:
    return tuple({"name": name, **BLOB} for name in names)


def test_what_is_named_in_the_week_that_stored_it_outlives_the_wait_of_its_job() -> None:
    assert [week_of(at) for at in (0.0, WEEK_S - 1, WEEK_S)] == [0, 0, 1]
    assert week_of(START) == week_of(START + 1)
    assert CONTENT_KEPT_S - WEEK_S > QUEUE_S_MAX


def test_a_job_has_one_task_or_those_of_its_array() -> None:
    assert make_spec().task_count == 1
    assert array_spec(7).task_count == 7


@pytest.mark.parametrize("count", [0, -1, 10_000_001, 100_000_000])
def test_an_array_has_between_one_and_ten_million_tasks(count: int) -> None:
    refused("array.count", array={"count": count})


@pytest.mark.parametrize(
    "tasks",
    [((5, 6),), ((3, 2), (5, 1)), ((3, 2), (4, 1)), ((7, 1), (2, 1)), ((10, 1),), ((2, 0),)],
)
def test_some_indices_of_an_array_are_ascending_ranges_below_its_count(
    tasks: tuple[tuple[int, int], ...],
) -> None:
    refused("array", array={"count": 10, "tasks": tasks})


def test_an_array_of_some_indices_has_as_many_tasks() -> None:
    spec = make_spec(array={"count": 10, "tasks": ((0, 2), (9, 1))})
    assert (spec.task_count, spec.task_end) == (3, 10)
    assert spec.task_ranges == ((0, 2), (9, 1))
    assert make_spec().task_ranges == ((0, 1),)
    assert make_spec().task_end == 1
    assert "tasks" not in array_spec(7).model_dump()["array"]


@pytest.mark.parametrize(
    "path", ["a", "a/b.bin", "ä/ö", "-rf", "a b", "...", "a..b", "x" * 240, "~", "$HOME", "c:"]
)
def test_a_path_that_stays_inside_is_accepted(path: str) -> None:
    assert make_spec(outputs=(path,)).outputs == (path,)
    assert make_spec(inputs=named(path)).inputs[0].name == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "a/../b",
        "a/..",
        ".",
        "./a",
        "a//b",
        "a/",
        "a\\b",
        "a\x00b",
        "a\nb",
        "a\u202eb",
        "x" * 241,
        "ä" * 200,
    ],
)
def test_a_path_that_could_leave_or_deceive_is_refused(path: str) -> None:
    refused("outputs", outputs=(path,))
    refused("inputs", inputs=named(path))


def test_inputs_do_not_collide() -> None:
    refused("two inputs share a name", inputs=named("a", "b", "a"))
    refused("the name of one is a folder of another", inputs=named("a/b/c", "a"))
    assert len(make_spec(inputs=named("a/b", "a/c", "ab")).inputs) == 3


def test_inputs_leave_the_checkpoint_folder_alone() -> None:
    for name in ("checkpoint", "checkpoint/state"):
        refused("the folder checkpoint/ is the task's own", checkpoint=True, inputs=named(name))
        assert make_spec(inputs=named(name)).inputs
    assert make_spec(checkpoint=True, inputs=named("checkpoints", "a/checkpoint")).inputs


def test_a_wasm_job_names_its_module() -> None:
    refused("a wasm job names its module", program=None)


def test_a_process_job_names_its_command_and_may_bring_its_files() -> None:
    refused("a process job is a command line", runtime="process", program=None)
    refused("a process job is a command line", runtime="process")
    assert make_spec(runtime="process", program=None, argv=("true",)).argv == ("true",)
    assert make_spec(runtime="process", argv=("true",)).program == BlobRef(**BLOB)


def test_an_oci_job_names_its_image_and_may_name_a_command() -> None:
    refused("an oci job names the blob of its image", runtime="oci", program=None)
    assert make_spec(runtime="oci").argv == ()
    assert make_spec(runtime="oci", argv=("true",)).argv == ("true",)


def test_a_python_job_names_its_function_and_version_and_nothing_else() -> None:
    python = {"runtime": "python", "requires": {"python": "3.11"}}
    refused("a python job names the blob of its function", **python, program=None)
    refused("a python job has none", **python, argv=("x",))
    refused("a python job names its version", runtime="python")
    refused("no other does", requires={"python": "3.11"})
    assert make_spec(**python).requires.python == "3.11"


@pytest.mark.parametrize("version", ["3", "2.7", "3.011", "3.11.2", "3.123", "3.x", "3.11\n", ""])
def test_a_version_of_python_is_two_numbers(version: str) -> None:
    refused("requires.python", runtime="python", requires={"python": version})


def test_a_job_keeps_no_checkpoints_unless_it_says_so() -> None:
    assert not make_spec().checkpoint
    assert make_spec(checkpoint=True).checkpoint


def test_a_job_expires_within_a_week_after_it_was_made() -> None:
    week_s = 7 * 86_400.0
    assert make_spec(created_at=START, not_after=START + week_s)
    for not_after in (START - 1.0, START, START + week_s + 1.0):
        refused("not_after", created_at=START, not_after=not_after)


def test_a_job_that_may_not_begin_before_it_expires_is_refused() -> None:
    assert make_spec(created_at=START, not_after=START + 60.0, not_before=START + 59.0)
    refused("not_before", created_at=START, not_after=START + 60.0, not_before=START + 60.0)


def test_what_an_older_reader_does_not_know_is_only_sent_where_it_is_asked_for() -> None:
    plain = json.loads(encode(make_spec(), JSON))
    assert not {"priority", "expected_s", "not_before", "after", "queue_s", "gang"} & plain.keys()
    assert "prepare_s" not in plain["limits"]
    assert not {"os", "labels", "prefers"} & plain["requires"].keys()
    asked = make_spec(
        priority=1,
        requires={"os": "linux", "labels": ("ssd",), "prefers": ("x",)},
        limits={"prepare_s": 5.0},
        after=({"job": "job-00000", "on": "end"},),
        queue_s=60.0,
    )
    assert decode(JobSpec, encode(asked)) == asked


def test_a_job_waits_for_others_and_for_each_once() -> None:
    ours = make_spec().id
    for after in ([ours], ["job-00002"] * 2, [f"job-{number:05d}" for number in range(100, 165)]):
        refused("after", after=tuple({"job": job} for job in after))
    assert make_spec(after=({"job": "job-00002"},)).after[0].on == "success"


def test_a_gang_is_an_array_of_few_tasks() -> None:
    assert make_spec(gang=True, array={"count": GANG_TASKS_MAX}).gang
    refused("gang", gang=True)
    refused("gang", gang=True, array={"count": GANG_TASKS_MAX + 1})


def test_a_label_is_one_word_of_a_bounded_length() -> None:
    assert make_spec(requires={"labels": ("ssd", "site:berlin", "gpu.a100")})
    for label in ("", "SSD", "two words", "-x", "x" * 64):
        refused("labels", requires={"labels": (label,)})


def test_nothing_that_reaches_a_command_line_holds_a_zero_byte() -> None:
    refused("argv", argv=("a\x00b",))
    refused("env", env={"A": "a\x00b"})
    refused("env", env={"A=B": "x"})


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "\u202e", "x" * 121])
def test_a_name_cannot_paint_over_an_owners_terminal(name: str) -> None:
    refused("name", name=name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "short"),
        ("id", "with.dots.in"),
        ("id", "job-00001\n"),
        ("submitter", "U" * 55),
        ("submitter", "*"),
        ("workload", "Render"),
        ("v", 2),
        ("retries", 11),
        ("limits", {"memory_bytes": 1}),
        ("limits", {"time_s": float("inf")}),
        ("limits", {"time_s": 0.0}),
        ("limits", {"prepare_s": 0.0}),
        ("queue_s", 0.0),
        ("queue_s", 7 * 86_400.0 + 1),
        ("after", ({"job": "job-00002", "on": "failure"},)),
        ("requires", {"pool": "a_b"}),
        ("requires", {"arch": "vax"}),
    ],
)
def test_every_field_has_its_bounds(field: str, value: object) -> None:
    refused(field, **{field: value})


def test_a_lease_lists_its_tasks_in_order() -> None:
    spec = array_spec(10)
    lease = Lease(
        lease="x" * 22,
        job=spec.id,
        submitter=spec.submitter,
        attempt=1,
        ranges=((7, 2), (0, 3)),
        spec=b"",
        content_type="application/json",
        signature="",
    )
    assert lease.tasks() == [7, 8, 0, 1, 2]
    assert lease.task_count == 5


def test_the_default_limits_are_modest() -> None:
    limits = JobSpec.model_validate(make_spec().model_dump()).limits
    assert (limits.cpu, limits.memory_bytes) == (1, 512 << 20)


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("no more can agree than are asked", {"verify": {"replicas": 2, "quorum": 3}}),
        ("less than or equal to 7", {"verify": {"replicas": 8, "quorum": 2}}),
        ("one answer alone", {"verify": {"quorum": 1, "spot_check": True}}),
        ("checks nothing", {"verify": {}, "checkpoint": True}),
        ("of a gang", {"verify": {}, "gang": True, "array": {"count": 2}}),
    ],
)
def test_what_verifies_nothing_is_refused(match: str, changes: dict[str, object]) -> None:
    refused(match, **changes)


def test_only_who_asks_for_it_sends_that_a_job_is_verified() -> None:
    assert b"verify" not in encode(make_spec())
    spec = make_spec(verify={"replicas": 3, "quorum": 2})
    assert decode(JobSpec, encode(spec)) == spec


SEALED = {"keys": {ALICE.public_key: "A" * 107, LENDER: "B" * 107}}


def test_a_sealed_job_is_for_the_lenders_that_have_its_key() -> None:
    assert make_spec().sealed_to == frozenset()
    assert make_spec(sealing=SEALED).sealed_to == {LENDER}
    spec = make_spec(sealing=SEALED)
    assert decode(JobSpec, encode(spec, JSON), JSON) == spec
    assert b"sealing" not in encode(make_spec(), JSON)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({ALICE.public_key: "A" * 107}, "at least 2"),
        ({LENDER: "A" * 107, BOB.public_key: "A" * 107}, "its submitter could not read"),
        ({ALICE.public_key: "A" * 106, LENDER: "A" * 107}, "should match pattern"),
        ({ALICE.public_key: "A" * 107, "nobody": "A" * 107}, "should match pattern"),
        ({"U" + "A" * 53 + a + b: "A" * 107 for a in "ABCDEFGH" for b in "ABCDEFGHI"}, "at most"),
    ],
)
def test_a_job_is_sealed_to_its_submitter_and_some_lenders(
    keys: dict[str, str], match: str
) -> None:
    refused(match, sealing={"keys": keys})


def test_nobody_on_the_way_can_compare_what_is_sealed() -> None:
    refused("nobody on the way", sealing=SEALED, verify={})


def test_each_task_of_an_array_may_have_words_of_its_own() -> None:
    spec = make_spec(argv=("x",), array={"count": 2, "each": (("a", "b"), ())})
    assert spec.array is not None
    assert spec.array.each == (("a", "b"), ())
    assert "each" not in array_spec(7).model_dump()["array"]
    assert "separate" not in array_spec(7).model_dump()["array"]


def test_words_of_each_task_are_as_many_as_there_are_tasks() -> None:
    refused("as many as count", array={"count": 3, "each": (("a",), ("b",))})
    refused("each", array={"count": EACH_MAX + 1, "each": (("a",),) * (EACH_MAX + 1)})
    refused(
        "at most 256 words",
        argv=("x",),
        array={"count": 1, "each": (("y",) * 256,)},
    )


def test_a_command_line_may_be_of_each_tasks_own_words_alone() -> None:
    process: dict[str, object] = {"runtime": "process", "workload": "command", "program": None}
    assert make_spec(**process, argv=(), array={"count": 1, "each": (("true",),)})  # type: ignore[arg-type]
    refused("argv: a process", **process, argv=(), array={"count": 2, "each": (("true",), ())})
    python = {"runtime": "python", "requires": {"python": "3.11"}}
    refused("argv: a python", **python, array={"count": 1, "each": (("x",),)})


def test_jobs_that_go_together_are_few_and_need_nothing_of_an_array() -> None:
    assert make_spec(array={"count": EACH_MAX, "separate": True}).task_count == EACH_MAX
    refused("separate: at most", array={"count": EACH_MAX + 1, "separate": True})
    refused("separate: not of a gang", array={"count": 2, "separate": True}, gang=True)
    refused("separate: not of a gang", array={"count": 2, "separate": True}, checkpoint=True)
    python = {"runtime": "python", "requires": {"python": "3.11"}}
    refused("separate: a python", **python, array={"count": 2, "separate": True})


@pytest.mark.parametrize("name", ["job-00001", "12345678-0", "a-b-c-de-1-9999999"])
def test_a_tasks_name_is_its_arrays_and_its_index(name: str) -> None:
    found = task_named(f"{name}-17")
    assert found == (name, 17)
    assert task_name(*found) == f"{name}-17"


@pytest.mark.parametrize(
    "name", ["", "job", "job-00001", "1234567-1", "12345678-01", "12345678-", "12345678-10000000"]
)
def test_what_can_not_be_a_tasks_name_is_none(name: str) -> None:
    assert task_named(name) is None


def test_a_job_knows_the_indices_of_its_tasks() -> None:
    some = make_spec(array={"count": 10, "tasks": ((0, 2), (9, 1))})
    assert [index for index in range(11) if some.has_task(index)] == [0, 1, 9]
    assert make_spec().has_task(0)
    assert not make_spec().has_task(1)
