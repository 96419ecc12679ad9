"""Each task's result comes out once, however its records arrive, and none is missed."""

from hypothesis import given
from hypothesis import strategies as st

from lender.client.collector import MISSES_WHILE_RUNNING_MAX, Collector, Sweep, TaskRecord
from lender.protocol.codec import encode
from lender.protocol.result import Chunk, TaskResult, Terminal
from lender.protocol.result_run import ResultRun, decode_results

LENDER = "U" + "A" * 55


def chunk(tasks: list[int]) -> Chunk:
    results = tuple(TaskResult(task=task, state="succeeded") for task in tasks)
    return Chunk(job="job-0001", lease="l" * 22, attempt=1, lender=LENDER, results=results)


def terminal(succeeded: int, total: int) -> Terminal:
    return Terminal(
        job="job-0001",
        state="succeeded" if succeeded == total else "cancelled",
        tasks_succeeded=succeeded,
        tasks_total=total,
        finished_at=1.0,
    )


def test_a_doubled_record_yields_nothing_new() -> None:
    collector = Collector([(0, 4)])
    assert [one.result.task for one in collector.take(chunk([2, 0]))] == [2, 0]
    assert collector.take(chunk([0, 2])) == []
    assert [one.result.task for one in collector.take(chunk([2, 3]))] == [3]


def test_a_task_beyond_the_array_is_ignored() -> None:
    assert Collector([(0, 2)]).take(chunk([7])) == []


def test_complete_only_with_the_terminal_and_every_result_that_it_counts() -> None:
    collector = Collector([(0, 3)])
    collector.take(terminal(2, 3))
    collector.take(chunk([1]))
    assert not collector.complete
    collector.take(chunk([0]))
    assert collector.complete


def test_a_single_jobs_result_stands_in_its_terminal() -> None:
    collector = Collector([(0, 1)])
    last = terminal(1, 1).model_copy(
        update={"result": TaskResult(task=0, state="succeeded", value=b"x"), "lender": LENDER}
    )
    (record,) = collector.take(last)
    assert (record.result.value, record.lender) == (b"x", LENDER)
    assert collector.complete


@given(st.data())
def test_a_sweep_finds_every_chunk_by_the_names_of_missing_tasks(data: st.DataObject) -> None:
    """Chunks of any shape, some seen before, some tasks without a result at all."""
    count = data.draw(st.integers(1, 60))
    owner = data.draw(st.lists(st.integers(0, 8), min_size=count, max_size=count))
    # Owner 0 stands for no result; every other number is one chunk.
    members = {one: [t for t in range(count) if owner[t] == one] for one in set(owner) - {0}}
    stored = {min(tasks): chunk(tasks) for tasks in members.values()}
    collector = Collector([(0, count)])
    for one in data.draw(st.sets(st.sampled_from([*stored, -1]))) - {-1}:
        collector.take(stored[one])
    collector.take(terminal(sum(map(len, members.values())), count))

    sweep = Sweep(collector)
    reads = 0
    while not collector.complete:
        tasks = sweep.plan()
        assert tasks, "the sweep ended with results missing"
        reads += len(tasks)
        hits = [stored[task] for task in tasks if task in stored]
        for hit in hits:
            collector.take(hit)
        sweep.looked(tasks, len(hits))
    assert reads <= count


def test_of_some_indices_only_those_are_expected() -> None:
    collector = Collector([(2, 2), (6, 1)])
    assert list(collector.missing(0)) == [2, 3, 6]
    taken = collector.take(chunk([2, 3, 4, 6, 7]))
    assert [one.result.task for one in taken] == [2, 3, 6]
    collector.take(terminal(3, 3))
    assert collector.complete


def test_a_sweep_of_a_running_job_gives_up_after_many_misses() -> None:
    collector = Collector([(0, 1_000_000)])
    sweep = Sweep(collector)
    reads = 0
    while tasks := sweep.plan():
        reads += len(tasks)
        sweep.looked(tasks, 0)
    assert MISSES_WHILE_RUNNING_MAX <= reads < 3 * MISSES_WHILE_RUNNING_MAX


def run_chunk(first: int, count: int) -> Chunk:
    """As it is read: one run."""
    results = tuple(
        TaskResult(task=task, state="succeeded", exit_code=0, value=b"%d" % task)
        for task in range(first, first + count)
    )
    sent = Chunk(job="job-0001", lease="l" * 22, attempt=3, lender=LENDER, results=results)
    read = decode_results(Chunk, encode(sent))
    assert isinstance(read.results, ResultRun)
    return read


def test_of_a_run_comes_what_was_not_seen_before() -> None:
    collector = Collector([(0, 60)])
    first = collector.take(run_chunk(0, 20), frozenset(range(10)))
    assert [one.result.task for one in first] == list(range(20))
    assert [one.signed for one in first] == [True] * 10 + [False] * 10
    assert {(one.lender, one.attempt) for one in first} == {(LENDER, 3)}
    assert collector.take(run_chunk(0, 20)) == []
    assert [one.result.value for one in collector.take(run_chunk(15, 20))] == [
        b"%d" % task for task in range(20, 35)
    ]
    beyond = collector.take(run_chunk(50, 20))
    assert [one.result.task for one in beyond] == list(range(50, 60))
    assert list(collector.missing(0)) == list(range(35, 50))


def test_a_record_is_the_same_whether_or_not_somebody_has_looked_at_it() -> None:
    (*_, last) = Collector([(0, 20)]).take(run_chunk(0, 20))
    result = TaskResult(task=19, state="succeeded", exit_code=0, value=b"19")
    assert last.result is last.result
    made = TaskRecord(result, LENDER, 3)
    assert (last, hash(last), repr(last)) == (made, hash(made), repr(made))
    assert last != TaskRecord(result, LENDER, 3, signed=True)
    assert last != result
