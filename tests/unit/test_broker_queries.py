"""What submitters are told about their jobs."""

import pytest
from broker_world import ALICE, BOB, L1, L2, World, class_of, job_spec, ok

from broker.core.answers.queries import refusal
from broker.core.events import QueryReceived
from broker.core.jobs.history import PER_SUBMITTER_MAX
from lender.protocol.codec import CONTENT_TYPE_HEADER, JSON, MSGPACK
from lender.protocol.job import Requires
from lender.protocol.query import QueryReply


def why(world: World, job: str = "job-0001") -> str:
    return world.query(job).jobs[0].why


def test_a_job_that_nobody_lends_for_says_so() -> None:
    world = World()
    world.submit(job_spec(requires=Requires(arch="aarch64", gpu="nvidia")))
    world.submit(job_spec(job="job-0002"))
    assert why(world) == (
        "no machine offers it: none lends command (process) to this submitter in pool default"
        " on aarch64 with a GPU of nvidia"
    )
    assert why(world, "job-0002").endswith("in pool default")


def test_a_job_whose_machines_are_taken_says_by_what() -> None:
    world = World()
    world.submit(job_spec())
    world.offer(L1, phase="paused")
    assert why(world) == "1 machine matches it: 1 paused by its owner"
    world.offer(L2, phase="yielding")
    assert why(world) == (
        "2 machines match it: 1 paused by its owner, 1 yielding (the machine or its owner needs it)"
    )
    world.offer(L2, slots=0)
    assert why(world) == "2 machines match it: 1 paused by its owner, 1 busy"


def test_a_job_that_was_handed_back_says_why() -> None:
    world = World()
    world.submit(job_spec())
    world.offer()
    lease = world.pull()
    world.report(lease, [], outcome="refused", reason="more memory than granted")
    world.ack(lease)
    assert why(world) == ("waiting 0.1 s after it was handed back: more memory than granted")


def test_a_job_that_waits_in_a_queue_or_for_its_turn_says_so() -> None:
    world = World()
    for number in range(1, 4):
        world.submit(job_spec(job=f"job-000{number}"))
    world.offer(slots=1)
    assert why(world, "job-0001").endswith("handed out, waiting for one to take it")
    assert why(world, "job-0003").endswith("waiting for its turn")


def test_submitters_see_their_own_jobs_the_newest_first() -> None:
    world = World()
    for number in range(3):
        world.submit(job_spec(job=f"job-000{number}", name=f"n{number}"))
    world.submit(job_spec(BOB, "bobs-job"), BOB)
    world.offer(classes=[class_of()])
    world.run(world.pull())
    assert [job.job for job in world.query().jobs] == ["job-0002", "job-0001", "job-0000"]
    assert [job.name for job in world.query().jobs] == ["n2", "n1", "n0"]
    assert [job.job for job in world.query(signer=BOB).jobs] == ["bobs-job"]
    assert world.query("bobs-job").jobs == ()


def test_ended_jobs_are_remembered_with_a_bound() -> None:
    world = World()
    for number in range(PER_SUBMITTER_MAX + 5):
        world.submit_raw(f"submit.{ALICE.public_key}.job-{number:06d}", {}, b"\xc1")
    jobs = world.query().jobs
    assert len(jobs) == PER_SUBMITTER_MAX
    assert jobs[0].job == f"job-{PER_SUBMITTER_MAX + 4:06d}"
    assert world.query("job-000000").jobs == ()


def test_a_query_is_answered_in_its_content_type_or_told_what_is_wrong() -> None:
    world = World()
    for headers, payload, expected in (
        ({"Content-Type": JSON}, b"{}", ""),
        ({"Content-Type": JSON}, b'{"job": "x"}', "job"),
        ({"Content-Type": "text/plain"}, b"", "payload"),
    ):
        effects = world.do(QueryReceived(ALICE.public_key, headers, payload, "_INBOX.q"))
        assert world.replies["_INBOX.q"].error.startswith(expected)
        assert effects[0].content_type == (
            JSON if headers["Content-Type"] == JSON else "application/msgpack"
        )


@pytest.mark.parametrize("content_type", [JSON, MSGPACK])
def test_a_question_too_many_is_refused_in_its_content_type(content_type: str) -> None:
    headers = {CONTENT_TYPE_HEADER: content_type}
    reply = refusal(QueryReceived(ALICE.public_key, headers, b"", "_INBOX.7"), "too many")
    assert (reply.reply_to, reply.content_type) == ("_INBOX.7", content_type)
    assert reply.message == QueryReply(error="too many")


def test_an_answer_never_tells_of_what_is_not_durable_yet() -> None:
    world = World(land_commits=False)
    world.submit(job_spec())
    world.offer()
    world.report(world.pull(), [ok()])
    world.do(QueryReceived(ALICE.public_key, {}, b"\x80", "_INBOX.q"))
    assert "_INBOX.q" not in world.replies
    world.land()
    assert world.replies["_INBOX.q"].jobs[0].state == "succeeded"
