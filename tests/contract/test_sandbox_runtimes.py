"""What every runtime promises, shown on real sandboxes."""

import asyncio
import os
import time

import pytest
from sandboxes import LIMITS, Workshop, needs_bubblewrap, open_folder, until, workshop

from lender.sandbox.files import outputs
from lender.sandbox.plan import Runtime
from lender.sandbox.port import PrepareFailedError, RefusedError, Root, SandboxGoneError
from lender.sandbox.processes import tree

__all__ = ["open_folder", "workshop"]  # fixtures
both = pytest.mark.parametrize("runtime", ["wasm", pytest.param("process", marks=needs_bubblewrap)])


@both
async def test_a_task_ends_with_its_value(workshop: Workshop, runtime: Runtime) -> None:
    sandbox = await workshop.prepared(runtime, "hello")
    outcome = await sandbox.run(4)
    assert (outcome.task, outcome.state, outcome.exit_code) == (4, "succeeded", 0)
    assert (outcome.value, outcome.stderr_tail, outcome.limit) == (b"hello", b"", None)
    assert 0 < outcome.duration_s < 20
    assert outcome.memory_peak_bytes > 0


@both
async def test_a_failed_task_keeps_its_exit_code_and_stderr(
    workshop: Workshop, runtime: Runtime
) -> None:
    sandbox = await workshop.prepared(runtime, "fail")
    outcome = await sandbox.run(0)
    assert (outcome.state, outcome.exit_code, outcome.stderr_tail) == ("failed", 3, b"bad")
    assert outcome.limit is None


@both
async def test_a_task_sees_its_index_and_exactly_its_environment(
    workshop: Workshop, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWNERS_SECRET", "1")
    sandbox = await workshop.prepared(
        runtime, "show", arguments=("tile-{task}", "x"), env={"COLOUR": "red", "LENDER_TASK": "99"}
    )
    for task in (0, 7):
        shown = (await sandbox.run(task)).value.decode().rstrip("\0").split("\0")
        assert shown[:3] == ["program", f"tile-{task}", "x"]
        environment = dict(entry.split("=", 1) for entry in shown[3:])
        if runtime == "process":
            assert environment.pop("PATH") == "/usr/bin:/bin"
            assert environment.pop("HOME") == "/work"
        assert environment == {
            "COLOUR": "red",
            "LENDER_JOB": "job-1",
            "LENDER_TASK": str(task),
            "LENDER_TASK_COUNT": "8",
        }


@both
async def test_inputs_are_there_and_outputs_can_be_collected(
    workshop: Workshop, runtime: Runtime
) -> None:
    source = workshop.file("blob", b"content of the input")
    sandbox = await workshop.prepared(runtime, "copy", inputs={"in.txt": source})
    for task in range(3):  # each finds a folder with the inputs and nothing of the task before
        assert (await sandbox.run(task)).exit_code == 0
        (collected,) = outputs.collect(workshop.scratch, ["out.txt"], 1000)
        with os.fdopen(collected.fd, "rb") as file:
            assert file.read() == b"content of the input"
    assert source.read_bytes() == b"content of the input"
    await sandbox.close()
    assert list(workshop.scratch.iterdir()) == []


@both
@pytest.mark.parametrize(
    ("program", "limits", "named"),
    [
        ("flood", LIMITS._replace(output_bytes=10_000), "output"),
        ("spin", LIMITS._replace(time_s=0.2), "time"),
        ("sleep", LIMITS._replace(time_s=0.2), "time"),
        ("hog", LIMITS, "memory"),
        ("fill", LIMITS, "disk"),
    ],
)
async def test_a_limit_that_is_hit_is_named_and_the_next_task_runs(
    workshop: Workshop, runtime: Runtime, program: str, limits: object, named: str
) -> None:
    sandbox = await workshop.prepared(runtime, program, limits=limits)
    for task in (0, 1):
        outcome = await sandbox.run(task)
        assert (outcome.task, outcome.state, outcome.limit) == (task, "failed", named)
        assert outcome.error == f"hit its {named} limit"
        assert len(outcome.value) <= 10_000


@both
async def test_a_value_of_exactly_the_limit_passes(workshop: Workshop, runtime: Runtime) -> None:
    sandbox = await workshop.prepared(runtime, "hello", limits=LIMITS._replace(output_bytes=5))
    assert (await sandbox.run(0)).state == "succeeded"


@both
async def test_an_input_that_cannot_be_read_fails_to_prepare(
    workshop: Workshop, runtime: Runtime
) -> None:
    plan = workshop.plan(runtime, "hello", inputs={"in.txt": workshop.folder / "missing"})
    with pytest.raises(PrepareFailedError) as caught:
        await workshop.sandbox(plan).prepare()
    assert not caught.value.invalid


@both
async def test_a_name_that_leads_out_of_the_folder_fails_to_prepare(
    workshop: Workshop, runtime: Runtime
) -> None:
    plan = workshop.plan(runtime, "hello", inputs={"../../x": workshop.file("blob", b"")})
    with pytest.raises(PrepareFailedError) as caught:
        await workshop.sandbox(plan).prepare()
    assert (caught.value.invalid, caught.value.field) == (True, "inputs")


@pytest.mark.parametrize("program", [b"", b"no wasm at all", b"\0asm\x01\0\0\0\x07garbage"])
async def test_a_module_that_does_not_parse_fails_to_prepare(
    workshop: Workshop, program: bytes
) -> None:
    with pytest.raises(PrepareFailedError) as caught:
        await workshop.prepared("wasm", program)
    assert (caught.value.invalid, caught.value.field) == (True, "program")


@needs_bubblewrap
async def test_a_command_that_is_not_there_is_a_clear_failure(workshop: Workshop) -> None:
    plan = workshop.plan("process", "")._replace(argv=("no-such-command",))
    sandbox = workshop.sandbox(plan)
    await sandbox.prepare()
    outcome = await sandbox.run(0)
    assert (outcome.state, outcome.exit_code) == ("failed", 127)
    assert outcome.error == "command not found: no-such-command"


@both
async def test_a_sandbox_killed_under_a_task_is_gone_and_leaves_nothing(
    workshop: Workshop, runtime: Runtime
) -> None:
    sandbox = await workshop.prepared(runtime, "spin")
    running = asyncio.create_task(sandbox.run(0))
    (root,) = sandbox.root_pids
    await until(lambda: _cpu_ticks(root) > 0, "the task computes")
    met = tree.members([root])
    report = await asyncio.to_thread(tree.kill, [root])
    assert report.verified
    with pytest.raises(SandboxGoneError):
        await running
    assert not any(tree.alive(process) for process in met)
    with pytest.raises(SandboxGoneError):
        await sandbox.run(1)


@both
async def test_closing_under_a_task_ends_it(workshop: Workshop, runtime: Runtime) -> None:
    sandbox = await workshop.prepared(runtime, "sleep")
    running = asyncio.create_task(sandbox.run(0))
    await until(lambda: bool(sandbox.root_pids), "the sandbox runs")
    met = tree.members(sandbox.root_pids)
    await sandbox.close()
    with pytest.raises(SandboxGoneError):
        await running
    assert not any(tree.alive(process) for process in met)
    await sandbox.close()


@both
async def test_a_killed_launcher_takes_its_sandboxes_along(
    workshop: Workshop, runtime: Runtime
) -> None:
    sandbox = await workshop.prepared(runtime, "sleep")
    running = asyncio.create_task(sandbox.run(0))
    (root,) = sandbox.root_pids
    wanted = 1 if runtime == "wasm" else 4
    await until(lambda: len(tree.members([root])) >= wanted, "the task runs")
    met = tree.members([root])
    os.kill(workshop.launcher.pid, 9)
    with pytest.raises(SandboxGoneError):
        await running
    await until(lambda: not any(map(tree.alive, met)), "the kernel ended all of them")
    workshop.sandboxes.clear()
    await workshop.launcher.close()


@both
async def test_time_spent_frozen_does_not_count(workshop: Workshop, runtime: Runtime) -> None:
    sandbox = await workshop.prepared(runtime, "spin", limits=LIMITS._replace(time_s=1.0))
    running = asyncio.create_task(sandbox.run(0))
    (root,) = sandbox.root_pids
    await until(lambda: _cpu_ticks(root) > 0, "the task computes")
    assert (await asyncio.to_thread(tree.freeze, [root])).verified
    before = _cpu_ticks(root)
    await asyncio.sleep(1.5)  # the length of the freeze is what is tested
    assert _cpu_ticks(root) == before
    assert not running.done()
    thawed_at = time.monotonic()
    assert (await asyncio.to_thread(tree.thaw, [root])).verified
    outcome = await running
    assert outcome.limit == "time"
    assert time.monotonic() - thawed_at > 0.2, "it had most of its second left"


@both
async def test_a_tombstone_between_spawn_and_go_refuses_the_launch(
    workshop: Workshop, runtime: Runtime
) -> None:
    tombstone = workshop.folder / "tombstone"
    held: list[Root] = []

    def revoke(root: Root) -> None:
        assert tree.alive(root)
        held.append(root)
        tombstone.touch()

    plan = workshop.plan(runtime, "copy", inputs={"in.txt": workshop.file("blob", b"")})
    sandbox = workshop.sandbox(plan, revoke, (workshop.folder / "other", tombstone))
    with pytest.raises(RefusedError) as caught:
        await sandbox.prepare()
    assert caught.value.path == str(tombstone)
    await until(lambda: not tree.alive(held[0]), "the held process is dead")
    assert list(workshop.scratch.iterdir()) == [], "it never got to place its input"


@both
async def test_a_process_killed_while_held_never_runs(workshop: Workshop, runtime: Runtime) -> None:
    plan = workshop.plan(runtime, "hello")
    sandbox = workshop.sandbox(plan, lambda root: os.kill(root.pid, 9))
    with pytest.raises(SandboxGoneError):
        await sandbox.prepare()


def _cpu_ticks(root: Root) -> int:
    """Processor time of a tree."""
    ticks = 0
    for pid, _ in tree.members([root]):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - as /proc is read
                line = file.read()
        except OSError:
            continue
        ticks += sum(map(int, line[line.rfind(b")") + 2 :].split()[11:13]))
    return ticks
