"""What lenders have signed comes to submitters so that results can be told from forgeries."""

from broker_proofs import ONE, SIGNERS, TWO, begun, proven, report
from broker_world import World, bad, job_spec, ok
from verified_jobs import taken, verified

from lender.protocol.codec import decode
from lender.protocol.job import JobSpec


def test_the_result_of_a_job_comes_with_its_proof() -> None:
    world, spec = World(), job_spec()
    lease = begun(world, spec)
    report(world, lease, [ok(0)])
    terminal = world.terminal()
    assert terminal is not None
    assert terminal.lease == lease.lease
    assert proven(spec, terminal) == {0}


def test_one_that_nobody_has_signed_comes_without() -> None:
    world = World()
    world.run(begun(world, job_spec()))
    terminal = world.terminal()
    assert terminal is not None
    assert terminal.proof is None


def test_an_array_comes_with_a_proof_for_each_record() -> None:
    world, spec = World(), job_spec(count=4, retries=1)
    lease = begun(world, spec)
    tasks = lease.tasks()
    report(world, lease, [bad(task) if task == 1 else ok(task) for task in tasks])
    told = {}
    for chunk in world.chunks():
        told |= dict.fromkeys(proven(spec, chunk), chunk.lender)
    assert set(told) == set(tasks) - {1}


def test_a_record_that_is_too_large_is_split_and_each_part_is_proven() -> None:
    world, spec = World(), job_spec(count=20, expected_s=0.001)
    lease = begun(world, spec)
    tasks = lease.tasks()
    report(world, lease, [ok(one, value=b"x" * 65_536) for one in tasks])
    chunks = world.chunks()
    assert len(chunks) > 1 or len(tasks) < 9
    assert set().union(*(proven(spec, chunk) for chunk in chunks)) == set(tasks)


def test_the_answer_that_was_agreed_on_is_proven_by_who_gave_it_last() -> None:
    world = verified(replicas=2, quorum=2)
    for signer in (ONE, TWO):
        report(world, taken(world, signer.public_key), [ok(0)], signer)
    terminal = world.terminal()
    assert terminal is not None
    assert (terminal.state, terminal.lender) == ("succeeded", TWO.public_key)
    assert proven(spec_of(world), terminal) == {0}


def test_the_brokers_own_verdict_is_signed_by_nobody() -> None:
    world = verified(replicas=2, quorum=2)
    for number, signer in enumerate(SIGNERS[:4]):
        lease = taken(world, signer.public_key)
        report(world, lease, [ok(0, value=b"%d" % number)], signer)
    terminal = world.terminal()
    assert terminal is not None
    assert terminal.state == "failed"
    assert proven(spec_of(world), terminal) == set()


def test_what_one_lender_says_can_not_be_run_proves_nothing() -> None:
    world = verified(replicas=2, quorum=2, count=2)
    for signer in (ONE, TWO):
        lease = taken(world, signer.public_key)
        first = lease.tasks()[0]
        report(world, lease, [ok(first)], signer, outcome="invalid", field="argv", reason="no")
    for chunk in world.chunks():
        assert proven(spec_of(world), chunk) <= {0, 1}


def spec_of(world: World) -> JobSpec:
    """Of the job that was submitted first."""
    return decode(JobSpec, world.jobs[0][2])
