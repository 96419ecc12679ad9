"""Tasks that a sandbox is told of ahead: run one after the other, each told for itself."""

import asyncio
import os
import signal
from collections import Counter

import pytest
from sandboxes import LIMITS, Workshop, module, needs_bubblewrap, open_folder, until, workshop

from lender.sandbox.conversation import Conversation
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import Runtime, TaskOutcome
from lender.sandbox.port import AHEAD_MAX, SandboxGoneError

__all__ = ["open_folder", "workshop"]  # fixtures
both = pytest.mark.parametrize("runtime", ["wasm", pytest.param("process", marks=needs_bubblewrap)])

# Says which task it is: the three digits of its only argument.
_SAYS_ITS_TASK = module(
    "(drop (call $args_sizes_get (i32.const 0) (i32.const 4)))"
    "(drop (call $args_get (i32.const 1024) (i32.const 4096)))"
    "(drop (call $write (i32.const 1) (i32.load (i32.const 1028)) (i32.const 3)))"
)


def talk_of(sandbox: LeaseSandbox) -> Conversation:
    assert sandbox._talk is not None
    return sandbox._talk


async def all_of(sandbox: LeaseSandbox, tasks: range) -> list[TaskOutcome]:
    """As lenderd runs a lease: all that is known is told, and what has come is taken together."""
    found: list[TaskOutcome] = []
    while len(found) < len(tasks):
        found += await sandbox.run_together(tasks[len(found) :])
    return found


@both
async def test_each_gives_its_own_outcome_in_order(workshop: Workshop, runtime: Runtime) -> None:
    program = _SAYS_ITS_TASK if runtime == "wasm" else 'printf "%s" "$1"'
    plan = workshop.plan(runtime, program, arguments=("{task}",))
    sandbox = workshop.sandbox(plan)
    await sandbox.prepare()
    tasks = range(100, 100 + 2 * AHEAD_MAX + 3)
    found = [(one.task, one.value) for one in await all_of(sandbox, tasks)]
    assert found == [(task, str(task).encode()) for task in tasks]
    assert (await sandbox.run(9)).task == 9, "any may follow once all are told"


@both
async def test_tasks_of_another_job_are_told_its_names_and_number(
    workshop: Workshop, runtime: Runtime
) -> None:
    sandbox = await workshop.prepared(runtime, "show")
    for job, count in (("job-00002", 7), ("job-00003", 1)):
        sandbox.begin_job(job, count)
        shown = (await sandbox.run(0, tuple(range(1, count)))).value.split(b"\0")
        assert f"LENDER_JOB={job}".encode() in shown
        assert f"LENDER_TASK_COUNT={count}".encode() in shown
        for task in range(1, count):
            assert (await sandbox.run(task, tuple(range(task + 1, count)))).state == "succeeded"


async def test_what_has_come_is_taken_together(workshop: Workshop) -> None:
    sandbox = await workshop.prepared("wasm", "hello")
    assert (await sandbox.run(0, range(1, 5))).task == 0
    await until(lambda: talk_of(sandbox).asked.early == 4, "the others have ended")
    assert [one.task for one in await sandbox.run_together(range(1, 7))] == [1, 2, 3, 4]


@needs_bubblewrap
async def test_a_limit_that_the_kernel_kept_is_the_one_tasks_that_failed(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Those behind it were run in the same cgroup: they are run again, once it has been run alone.
    fails_at_3 = '[ "$1" != 3 ] && { echo "$1"; exit; }; exit 1'
    sandbox = workshop.sandbox(workshop.plan("process", fails_at_3, arguments=("{task}",)))
    monkeypatch.setattr(sandbox, "_limit_hit", lambda: "memory")
    await sandbox.prepare()
    assert (await sandbox.run(0, range(1, 7))).value == b"0\n"
    await until(lambda: talk_of(sandbox).asked.early == 6, "the others have ended")
    found = [(one.task, one.limit, one.value) for one in await all_of(sandbox, range(1, 7))]
    expected = {task: (task, None, b"%d\n" % task) for task in range(1, 7)}
    assert found == [*{**expected, 3: (3, "memory", b"")}.values()]


@needs_bubblewrap
async def test_values_that_nobody_takes_stop_it_and_none_is_lost(workshop: Workshop) -> None:
    size = 1 << 20
    limits = LIMITS._replace(output_bytes=size)
    sandbox = await workshop.prepared("process", f"head -c {size} /dev/zero", limits=limits)
    tasks = range(24)
    first = await sandbox.run(0, tasks[1:])
    await until(lambda: not talk_of(sandbox)._reads, "it is read no more")
    waiting_bytes = talk_of(sandbox).early_bytes
    assert 16 * size < waiting_bytes < 18 * size
    await asyncio.sleep(0.1)
    assert talk_of(sandbox).early_bytes == waiting_bytes
    rest = [await sandbox.run(task, tasks[task + 1 :]) for task in tasks[1:]]
    assert {len(one.value) for one in (first, *rest)} == {size}
    assert [one.task for one in (first, *rest)] == list(tasks)
    assert talk_of(sandbox).early_bytes == 0


@needs_bubblewrap
async def test_an_outcome_does_not_wait_for_a_long_task_behind_it(workshop: Workshop) -> None:
    sandbox = await workshop.prepared("process", "[ $LENDER_TASK = 0 ] || sleep 3600")
    assert (await asyncio.wait_for(sandbox.run(0, (1, 2)), 15)).state == "succeeded"
    await sandbox.close()
    with pytest.raises(SandboxGoneError):
        await sandbox.run(1, (2,))


async def test_the_same_where_the_guest_sits_in_a_host_call(workshop: Workshop) -> None:
    # Sleeps for an hour unless its argument begins with 0.
    sleeps = module(
        "(drop (call $args_sizes_get (i32.const 0) (i32.const 4)))"
        "(drop (call $args_get (i32.const 1024) (i32.const 4096)))"
        "(if (i32.ne (i32.load8_u (i32.load (i32.const 1028))) (i32.const 48)) (then"
        " (i64.store (i32.const 1024) (i64.const 0)) (i32.store8 (i32.const 1032) (i32.const 0))"
        " (i32.store (i32.const 1040) (i32.const 1))"
        " (i64.store (i32.const 1048) (i64.const 3600000000000))"
        " (drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1)"
        "   (i32.const 3072)))))"
    )
    plan = workshop.plan("wasm", sleeps, arguments=("{task}",), limits=LIMITS._replace(time_s=2.0))
    sandbox = workshop.sandbox(plan)
    await sandbox.prepare()
    assert (await asyncio.wait_for(sandbox.run(0, (1,)), 15)).state == "succeeded"
    assert (await sandbox.run(1)).limit == "time"
    assert (await sandbox.run(0)).state == "succeeded", "in another process"


@both
async def test_who_hits_a_limit_is_named_and_no_other(workshop: Workshop, runtime: Runtime) -> None:
    flood = "[ $LENDER_TASK != 1 ] || while :; do printf %4096s x; done"
    program = "flood" if runtime == "wasm" else flood
    limits = LIMITS._replace(output_bytes=10_000)
    sandbox = await workshop.prepared(runtime, program, limits=limits)
    found = [one.limit for one in await all_of(sandbox, range(3))]
    assert found == (["output"] * 3 if runtime == "wasm" else [None, "output", None])


@needs_bubblewrap
async def test_asked_to_end_it_begins_none_of_them(workshop: Workshop) -> None:
    sandbox = await workshop.prepared("process", "echo $LENDER_TASK >> begun; : > on; sleep 60")
    running = asyncio.create_task(sandbox.run(0, (1, 2)))
    await until((workshop.scratch / "on").exists, "it runs")
    os.kill(sandbox.root_pids[0].pid, signal.SIGTERM)
    first = await running
    assert (first.terminated, first.duration_s > 0) == (True, True)
    for task, ahead in ((1, (2,)), (2, ())):
        outcome = await sandbox.run(task, ahead)
        assert (outcome.terminated, outcome.duration_s) == (True, 0.0)
    assert (workshop.scratch / "begun").read_text() == "0\n"


@needs_bubblewrap
async def test_a_log_is_told_of_the_task_that_wrote_it(workshop: Workshop) -> None:
    told: Counter[tuple[int, bytes]] = Counter()
    plan = workshop.plan("process", 'printf "<$LENDER_TASK>" >&2')
    sandbox = LeaseSandbox(plan, workshop.launcher, _forget, on_log=lambda *one: told.update([one]))
    workshop.sandboxes.append(sandbox)
    await sandbox.prepare()
    for outcome in await all_of(sandbox, range(6)):
        assert outcome.stderr_tail == f"<{outcome.task}>".encode()
    assert told == Counter((task, f"<{task}>".encode()) for task in range(6))


async def _forget(_roots: object) -> None:
    """Nobody revokes it."""
