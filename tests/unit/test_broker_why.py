"""What a submitter is told of a job that waits."""

import pytest
from broker_world import ALICE, L1, L2, L3, LENDERS, START, World, archive, class_of, job_spec

from lender.protocol.job import Limits, Requires

GIB = 1 << 30
MIB = 1 << 20


def why(world: World, job: str = "job-0001") -> str:
    return world.query(job).jobs[0].why


def asks(world: World, cpu: int = 1, memory_bytes: int = MIB, **requires: object) -> str:
    """What is said of a job that asks for so much."""
    number = len(world.jobs)
    limits = Limits(cpu=cpu, memory_bytes=memory_bytes)
    job = f"asks-{number:04d}"
    world.submit(job_spec(job=job, limits=limits, requires=Requires(**requires)))
    return why(world, job)


def test_machines_that_yield_and_those_that_would_nearly_do() -> None:
    world = World()
    for lender in LENDERS[:4]:
        world.offer(lender, slots=0, phase="yielding", memory_free_bytes=8 * GIB)
    for lender in LENDERS[4:6]:
        world.offer(lender, memory_free_bytes=6 * GIB)
    assert asks(world, memory_bytes=8 * GIB) == (
        "4 machines match it: 4 yielding (the machine or its owner needs it); "
        "2 more would match with 2 GiB less memory"
    )


def test_what_each_machine_is_busy_with_is_told() -> None:
    world = World()
    world.offer(L1, slots=0, phase="yielding")
    world.offer(L2, slots=0, phase="yielding")
    world.offer(L3, slots=0, phase="paused")
    assert asks(world) == (
        "3 machines match it: 2 yielding (the machine or its owner needs it), 1 paused by its owner"
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"cpu": 4}, "with 2 fewer cores"),
        ({"memory_bytes": GIB + 512 * MIB}, "with 512 MiB less memory"),
        ({"memory_bytes": GIB + 3}, "with 1 MiB less memory"),
        ({"memory_bytes": 2 * GIB + 512 * MIB}, "with 1.5 GiB less memory"),
        ({"vram_bytes": GIB}, "with 1 GiB less GPU memory"),
        ({"labels": ("ssd",)}, "without the label ssd"),
        ({"os": "macos"}, "without the operating system macos"),
        ({"net": ("a.org",)}, "without the need of the network (a.org at ports 80 and 443)"),
    ],
)
def test_what_a_machine_lacks(asked: dict[str, object], said: str) -> None:
    world = World()
    world.offer(memory_free_bytes=GIB)
    assert asks(world, **asked) == (
        f"no machine matches, 1 that lends it lacks something; 1 would match {said}"
    )


def test_which_version_of_python_nobody_lends() -> None:
    world = World()
    requires = Requires(python="3.12")
    fields = {"workload": "python", "runtime": "python", "program": archive(1), "argv": ()}
    world.submit(job_spec(requires=requires, **fields))
    assert why(world) == (
        "no machine offers it: none lends python (python 3.12) to this submitter in pool default"
    )


def test_a_disk_that_is_too_small() -> None:
    world = World()
    world.offer(disk_free_bytes=100 * MIB)
    assert asks(world).endswith("1 would match with 156 MiB less disk space")


def test_machines_that_lack_more_than_one_thing_are_not_counted_as_near() -> None:
    world = World()
    world.offer(L1, memory_free_bytes=GIB)
    world.offer(L2, memory_free_bytes=GIB, labels=("ssd",))
    told = asks(world, memory_bytes=3 * GIB, labels=("ssd",))
    assert told == (
        "no machine matches, 2 that lend it lack something; 1 would match with 2 GiB less memory"
    )
    assert asks(world, memory_bytes=3 * GIB, labels=("tape",)) == (
        "no machine matches, 2 that lend it lack something"
    )


def test_what_most_of_the_others_lack_is_told() -> None:
    world = World()
    world.offer(L1, slots=0)
    world.offer(L2, slots=0, os="macos", labels=("ssd",))
    for lender in LENDERS[3:5]:
        world.offer(lender, labels=())
    world.offer(L3, slots=0, labels=("ssd",))
    assert asks(world, labels=("ssd",), os="linux") == (
        "1 machine matches it: 1 busy; 3 more would match without the label ssd"
    )


def test_a_machine_whose_memory_is_in_use_is_busy() -> None:
    world = World()
    world.offer(memory_free_bytes=4 * GIB)
    world.offer(memory_free_bytes=GIB)
    assert asks(world, memory_bytes=2 * GIB) == "1 machine matches it: 1 busy"


@pytest.mark.parametrize(
    ("in_s", "said"), [(30, "30 s"), (600, "10 min"), (7200, "2 h"), (172_800, "2 d")]
)
def test_a_day_to_come_is_told(in_s: float, said: str) -> None:
    world = World()
    world.submit(job_spec(not_before=START + in_s, not_after=START + 600_000))
    assert why(world) == f"not to begin for another {said}"


def test_a_list_of_jobs_says_the_same_of_each() -> None:
    world = World()
    world.offer(L1, slots=0, classes=[class_of(ALICE)])
    for number in range(3):
        world.submit(job_spec(job=f"job-000{number}"))
    assert {job.why for job in world.query().jobs} == {"1 machine matches it: 1 busy"}


def test_a_job_that_is_sealed_to_others_says_so() -> None:
    world = World()
    world.offer(L1)
    keys = {ALICE.public_key: "A" * 107, L2: "B" * 107}
    world.submit(job_spec(sealing={"keys": keys}))
    assert why(world) == (
        "no machine matches, 1 that lends it lacks something; "
        "1 would match if the job were sealed to them as well"
    )
