"""Subjects, classes, ids and streams."""

import pytest
from core_world import ALICE, class_of, make_spec

from lender.protocol import bounds, subjects
from lender.protocol.classes import WorkClass, is_own_queue, own_queue
from lender.protocol.errors import ProtocolError
from lender.protocol.ids import check_job_id
from lender.protocol.streams import (
    bucket,
    bucket_config,
    consumer_config,
    leader_config,
    left,
    left_config,
    stream_configs,
)
from lender.protocol.subjects import (
    JobSubject,
    last_token,
    parse_begun_subject,
    parse_checkpoints_subject,
    parse_job_subject,
    parse_retries_subject,
    parse_votes_subject,
)

S, J = ALICE.public_key, "job-00001"


def matches(pattern: str, subject: str) -> bool:
    """The server's rule for wildcards."""
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted, tokens = wanted[:-1], tokens[: len(wanted) - 1]
    return len(wanted) == len(tokens) and all(
        one in ("*", token) for one, token in zip(wanted, tokens, strict=True)
    )


def test_every_subject_is_one_that_its_filter_catches() -> None:
    for pattern, subject in [
        (subjects.SUBMIT_FILTER, subjects.submit(S, J)),
        (subjects.CANCEL_FILTER, subjects.cancel(S, J)),
        (subjects.of_submitter(S), subjects.submit(S, J)),
        (subjects.of_submitter(S), subjects.cancel(S, J)),
        (subjects.WORK_FILTER, subjects.work(class_of())),
        (subjects.RESULT_FILTER, subjects.result(S, J)),
        (subjects.RESULT_FILTER, subjects.chunk(S, J, 40)),
        (subjects.RESULT_FILTER, subjects.checkpoints(S, J, 2)),
        (subjects.task_log_filter(S, J), subjects.task_log(S, J, "UL")),
        (subjects.of_bucket(S), subjects.blob(S, S, "ab" * 32, 0)),
        (subjects.of_bucket(S), subjects.former_blob(S, "UL", "ab" * 32, 0)),
        (subjects.of_left(S), subjects.blob(S, "UL", "ab" * 32, 0)),
        (subjects.OFFER_FILTER, subjects.offer(S)),
        (subjects.DONE_FILTER, subjects.done(S)),
        (subjects.QUERY_FILTER, subjects.query(S)),
    ]:
        assert matches(pattern, subject), (pattern, subject)
    assert subjects.event(S, J) == f"event.{S}.{J}"
    assert subjects.control(S) == f"ctl.{S}"


def test_a_job_subject_is_taken_apart() -> None:
    assert parse_job_subject(subjects.submit(S, J)) == JobSubject("submit", S, J, None)
    assert parse_job_subject(subjects.cancel(S, J)) == JobSubject("cancel", S, J, None)
    assert parse_job_subject(subjects.result(S, J)) == JobSubject("res", S, J, None)
    assert parse_job_subject(subjects.chunk(S, J, 40)) == JobSubject("res", S, J, 40)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "submit",
        "submit.a",
        "submit.a.b.1",
        "event.a.b",
        "res.a.b.x",
        "res.a.b.1.2",
        "res.a.b.٣",
        "res.a.b." + "9" * 5000,
    ],
)
def test_a_subject_that_names_no_job_is_refused(subject: str) -> None:
    with pytest.raises(ProtocolError, match="names no job") as caught:
        parse_job_subject(subject)
    assert caught.value.field == "subject"


def test_a_note_about_checkpoints_is_no_result() -> None:
    subject = subjects.checkpoints(S, J, 12)
    assert parse_checkpoints_subject(subject) == (S, J, 12)
    with pytest.raises(ProtocolError, match="names no job"):
        parse_job_subject(subject)
    for other in (
        subjects.result(S, J),
        subjects.chunk(S, J, 40),
        f"{subject}.1",
        f"{subject}\n",
        subject.replace(".cp.", ".cpx."),
        subject.replace("12", "x"),
        subject.replace("12", "1" * 9),
    ):
        assert parse_checkpoints_subject(other) is None


def test_a_note_that_a_job_has_begun_is_no_result() -> None:
    subject = subjects.begun(S, J)
    assert parse_begun_subject(subject) == (S, J)
    with pytest.raises(ProtocolError, match="names no job"):
        parse_job_subject(subject)
    for other in (subjects.result(S, J), f"{subject}.1", f"{subject}\n", f"res.{S}.begun"):
        assert parse_begun_subject(other) is None


def test_nor_is_one_about_retries() -> None:
    subject = subjects.retries(S, J, 12)
    assert parse_retries_subject(subject) == (S, J, 12)
    assert parse_retries_subject(subjects.votes(S, J, 12)) is None
    with pytest.raises(ProtocolError, match="names no job"):
        parse_job_subject(subject)


def test_nor_is_one_about_votes() -> None:
    subject = subjects.votes(S, J, 12)
    assert parse_votes_subject(subject) == (S, J, 12)
    assert parse_checkpoints_subject(subject) is None
    assert parse_votes_subject(subjects.checkpoints(S, J, 12)) is None
    with pytest.raises(ProtocolError, match="names no job"):
        parse_job_subject(subject)


def test_the_last_token_is_the_principal() -> None:
    assert last_token(subjects.done(S)) == S
    assert last_token(subjects.task_log(S, J, "UL")) == "UL"
    assert last_token("bare") == "bare"


def test_a_job_id_is_checked() -> None:
    assert check_job_id(J) == J
    for token in ("short", "x" * 65, "has space", "job-00001\n", "a.b.c.d.e"):
        with pytest.raises(ProtocolError, match="8 to 64 characters"):
            check_job_id(token)


@pytest.mark.parametrize("arch", ["any", "x86_64", "aarch64"])
@pytest.mark.parametrize("gpu", ["none", "nvidia"])
@pytest.mark.parametrize("pool", ["default", "x8664", "lab-2"])
def test_a_class_is_one_token_that_names_its_parts(arch: str, gpu: str, pool: str) -> None:
    spec = make_spec(requires={"arch": arch, "gpu": gpu, "pool": pool})
    token = WorkClass.of(spec).token
    assert not set(token) & set(".*> \t\r\n/\\")
    assert WorkClass.parse(token) == WorkClass.of(spec)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a_b",
        class_of() + "_more",
        class_of().replace("_any_", "_vax_"),
        class_of().replace("_any_", "_x86_64_"),
        class_of().replace("_none_", "_amd_"),
        class_of().replace("_wasm_", "_java_"),
        class_of().replace("default", "De.fault"),
        class_of().replace(ALICE.public_key, "*"),
        class_of().replace("render", ""),
    ],
)
def test_a_token_that_names_no_class_is_refused(token: str) -> None:
    with pytest.raises(ProtocolError, match="not a class") as caught:
        WorkClass.parse(token)
    assert caught.value.field == "class"


def test_a_head_has_a_subject_in_its_stream() -> None:
    configs = {one["name"]: one for one in stream_configs()}
    assert subjects.head("UL") == "head.UL"
    assert configs["HEADS"]["subjects"] == [subjects.HEAD_FILTER] == ["head.*"]


def test_jobs_and_results_take_one_message_a_subject() -> None:
    configs = {one["name"]: one for one in stream_configs(replicas=3)}
    assert set(configs) == {"JOBS", "WORK", "RESULTS", "HEADS", "ENROLMENT"}
    assert {one["num_replicas"] for one in configs.values()} == {3}
    for name in ("JOBS", "RESULTS"):
        one = configs[name]
        assert (one["max_msgs_per_subject"], one["discard"]) == (1, "new")
        assert one["discard_new_per_subject"]
    assert configs["RESULTS"]["allow_atomic"]
    assert configs["WORK"]["retention"] == "workqueue"
    assert "max_age" not in configs["HEADS"]
    assert configs["RESULTS"]["max_age"] > configs["JOBS"]["max_age"]


def test_what_is_in_a_bucket_stays() -> None:
    config = bucket_config(S, replicas=3, bytes_max=1 << 30)
    assert config["name"] == bucket(S) == f"BLOBS_{S}"
    assert config["subjects"] == [f"blob.{S}.{S}.*.*"]
    assert (config["max_msgs_per_subject"], config["discard"]) == (1, "new")
    assert config["discard_new_per_subject"]
    assert "allow_rollup_hdrs" not in config
    assert (config["max_bytes"], config["num_replicas"]) == (1 << 30, 3)
    assert bucket_config(S)["max_bytes"] == -1
    assert config["max_age"] == bounds.CONTENT_KEPT_S * 1e9 == 16 * 86_400e9
    assert config["max_msg_size"] > bounds.PIECE_BYTES


def test_what_lenders_leave_is_held_apart_from_what_a_submitter_stores() -> None:
    own, theirs = bucket_config(S, 3, 1 << 30), left_config(S, 3, 1 << 30)
    differ = {name for name in own if own[name] != theirs[name]}
    assert differ == {"name", "subjects"}
    assert (theirs["name"], theirs["subjects"]) == (left(S), [f"out.{S}.>"])
    for stored, filters in ((S, own), ("UL", theirs)):
        place = subjects.blob(S, stored, "ab" * 32, 7, week=2960)
        assert place.endswith(f".{S}.{stored}.{'ab' * 32}.2960-7")
        assert matches(filters["subjects"][0], place)


def test_where_no_room_is_set_aside_whole_pieces_are_counted() -> None:
    config = left_config(S, bytes_max=10 * config_bytes(), set_aside=False)
    assert (config["max_msgs"], config["max_bytes"]) == (10, -1)
    assert left_config(S, bytes_max=1, set_aside=False)["max_msgs"] == 1
    assert left_config(S, set_aside=False)["max_msgs"] == -1


def config_bytes() -> int:
    """The largest message of a bucket."""
    size_bytes: int = bucket_config(S)["max_msg_size"]
    return size_bytes


def test_the_leadership_key_is_one_message_in_memory() -> None:
    config = leader_config(replicas=3)
    assert (config["max_msgs_per_subject"], config["storage"]) == (1, "memory")
    assert config["num_replicas"] == 3


def test_a_class_has_one_shared_consumer() -> None:
    config = consumer_config(class_of())
    assert (config["durable_name"], config["filter_subject"]) == (class_of(), f"work.{class_of()}")
    assert config["ack_policy"] == "explicit"
    assert config["ack_wait"] == 30 * 10**9


def test_a_lenders_own_queue_is_no_class_and_goes_when_nobody_pulls_from_it() -> None:
    token = own_queue(ALICE.public_key)
    assert is_own_queue(token)
    assert not is_own_queue(class_of())
    assert not is_own_queue(class_of(make_spec(requires={"pool": "assign"})))
    with pytest.raises(ProtocolError, match="not a class"):
        WorkClass.parse(token)
    assert consumer_config(token)["inactive_threshold"] == 120 * 10**9
    assert "inactive_threshold" not in consumer_config(class_of())


def test_what_brokers_tell_each_other_is_no_submitters() -> None:
    assert subjects.term("T-1").startswith(subjects.TERM_PREFIX)
    assert subjects.broker_ping("B-1") == "leader.ping.B-1"
    assert subjects.LEADERSHIP_KEY in leader_config()["subjects"]
