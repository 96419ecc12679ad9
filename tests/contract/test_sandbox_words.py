"""What each task of an array is called with: its own words, whatever sandbox it comes to."""

import shutil
from collections.abc import Sequence

import pytest
from sandboxes import Workshop, needs_bubblewrap, open_folder, workshop

from lender.protocol.bounds import ARGV_ENTRY_CHARS_MAX, EACH_MAX
from lender.protocol.ids import task_name
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import Runtime, SandboxPlan
from lender.sandbox.port import AHEAD_MAX, PrepareFailedError
from lender.sandbox.runtimes import contained

__all__ = ["open_folder", "workshop"]  # fixtures
needs_crun = pytest.mark.skipif(
    shutil.which("crun", path=contained._SEARCH) is None, reason="crun is not installed"
)
all_runtimes = pytest.mark.parametrize(
    "runtime",
    [
        "wasm",
        pytest.param("process", marks=needs_bubblewrap),
        pytest.param("oci", marks=needs_crun),
    ],
)
STRANGE: tuple[tuple[str, ...], ...] = (
    ("a b", "", "-x", "$HOME;'\"\\"),
    (),
    ("ü€\N{GRINNING FACE}", "two\nlines", "a\tb", "\x7f"),
    ("tile-{task}", "{task}{task}", "{other}"),
    ("",),
    ("x" * ARGV_ENTRY_CHARS_MAX,),
)


def plan_of(workshop: Workshop, runtime: Runtime, *more: str, **fields: object) -> SandboxPlan:
    """A plan whose tasks print their words and their environment."""
    if runtime == "wasm":
        plan = workshop.plan("wasm", "show", arguments=("said", *more))
    else:
        # Without an image a container shows the host's own programs, as a process sandbox does.
        plan = workshop.plan("process", "show", arguments=("said", *more))
        plan = plan._replace(runtime=runtime)
    return plan._replace(**fields)  # type: ignore[arg-type] # passed through


async def prepared(workshop: Workshop, plan: SandboxPlan) -> LeaseSandbox:
    sandbox = workshop.sandbox(plan)
    await sandbox.prepare()
    return sandbox


async def shown(
    sandbox: LeaseSandbox, task: int, ahead: Sequence[int] = (), *, argc: int
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The words behind those that all have, and what it is told of its job."""
    outcome = await sandbox.run(task, ahead)
    assert outcome.state == "succeeded", outcome
    found = outcome.value.decode().removesuffix("\0").split("\0")
    assert found[:2] == ["program", "said"]
    told = (one.removeprefix("LENDER_").split("=", 1) for one in found if one[:7] == "LENDER_")
    return tuple(found[2 : 2 + argc]), dict(told)


@all_runtimes
async def test_a_task_is_called_with_its_own_words(workshop: Workshop, runtime: Runtime) -> None:
    plan = plan_of(workshop, runtime, task_count=len(STRANGE), each=STRANGE)
    sandbox = await prepared(workshop, plan)
    tasks = range(len(STRANGE))
    one_by_one = [(task, ()) for task in reversed(tasks)]
    for task, ahead in [*((task, tasks[task + 1 :]) for task in tasks), *one_by_one]:
        words, told = await shown(sandbox, task, ahead, argc=len(STRANGE[task]))
        assert words == tuple(word.replace("{task}", str(task)) for word in STRANGE[task])
        assert told == {"JOB": "job-1", "TASK": str(task), "TASK_COUNT": str(len(STRANGE))}


@all_runtimes
async def test_a_job_that_went_with_others_is_told_nothing_of_them(
    workshop: Workshop, runtime: Runtime
) -> None:
    plan = plan_of(workshop, runtime, each=STRANGE, task_count=len(STRANGE), separate=True)
    sandbox = await prepared(workshop, plan)
    for task in (0, 3, 2):
        words, told = await shown(sandbox, task, argc=len(STRANGE[task]))
        assert words == tuple(word.replace("{task}", "0") for word in STRANGE[task])
        assert told == {"JOB": task_name("job-1", task), "TASK": "0", "TASK_COUNT": "1"}


@all_runtimes
async def test_a_kept_sandbox_goes_on_with_the_words_of_the_next_job(
    workshop: Workshop, runtime: Runtime
) -> None:
    sandbox = await prepared(workshop, plan_of(workshop, runtime))
    roots = sandbox.root_pids
    assert await shown(sandbox, 0, (), argc=0) == (
        (),
        {"JOB": "job-1", "TASK": "0", "TASK_COUNT": "8"},
    )
    each = (("{task}a",), ("b", "c"))
    for separate in (False, True):
        sandbox.begin_job("job-00002", 2, separate=separate, each=each)
        for task, words in enumerate((("0a",), ("b", "c"))):
            found, told = await shown(sandbox, task, range(task + 1, 2), argc=len(words))
            assert found == words
            assert told["JOB"] == (task_name("job-00002", task) if separate else "job-00002")
    sandbox.begin_job("job-00003", 1)
    assert await shown(sandbox, 0, (), argc=0) == (
        (),
        {"JOB": "job-00003", "TASK": "0", "TASK_COUNT": "1"},
    )
    assert sandbox.root_pids == roots


@pytest.mark.parametrize(
    ("runtime", "count"),
    [("wasm", EACH_MAX), pytest.param("process", AHEAD_MAX + 3, marks=needs_bubblewrap)],
)
async def test_a_long_lease_of_it_is_told_in_order(
    workshop: Workshop, runtime: Runtime, count: int
) -> None:
    each = tuple((f"{task:04}" * 20,) for task in range(count))
    plan = plan_of(workshop, runtime, "of-{task}", task_count=count, each=each)
    sandbox = await prepared(workshop, plan)
    for task in range(count):
        words, told = await shown(sandbox, task, range(task + 1, count), argc=2)
        assert (words, told["TASK"]) == ((f"of-{task}", *each[task]), str(task))


@needs_bubblewrap
async def test_large_words_and_large_values_do_not_wait_for_each_other(
    workshop: Workshop,
) -> None:
    """Nobody reads on either side until the other one has: both have more than a socket holds."""
    size = 1 << 20
    each = tuple((f"{task:05}" * 1200,) for task in range(20))
    plan = workshop.plan("process", f'head -c {size - 5} /dev/zero; printf %.5s "$1"')
    plan = plan._replace(task_count=20, each=each, limits=plan.limits._replace(output_bytes=size))
    sandbox = await prepared(workshop, plan)
    for task in range(20):
        outcome = await sandbox.run(task, range(task + 1, 20))
        assert outcome.value[-5:] == b"%05d" % task


@needs_bubblewrap
async def test_a_command_may_be_of_a_tasks_own_words_alone(workshop: Workshop) -> None:
    each = (("sh", "-c", "printf $LENDER_TASK"), (), ("no-such-command",))
    plan = plan_of(workshop, "process", argv=(), each=each)
    sandbox = await prepared(workshop, plan)
    assert (await sandbox.run(0)).value == b"0"
    without = await sandbox.run(1)
    assert (without.state, without.error) == ("failed", "not started: no command")
    assert (await sandbox.run(2)).error == "command not found: no-such-command"
    with pytest.raises(PrepareFailedError, match="no command"):
        await workshop.sandbox(plan._replace(each=())).prepare()
