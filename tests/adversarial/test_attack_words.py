"""Attacks on what other tasks are called with: of the same array, and of jobs beside it."""

import pytest
from arena import Arena, in_one_loop
from attacks import tried_in
from sandboxes import module

from lender.sandbox.plan import Runtime, SandboxPlan

pytestmark = in_one_loop

COUNT = 12
EACH = tuple((f"private-{task:04}-" + "w" * 50,) for task in range(COUNT))
TASKS = range(COUNT)

LOOK = """
import re
mine = sys.argv[1].encode() if len(sys.argv) > 1 else b""
def others(place):
    return set(re.findall(rb"private-\\d{4}-w+", read(place))) - {mine}
places = [f"/proc/{pid}/{name}" for pid in os.listdir("/proc") if pid.isdigit()
          for name in ("cmdline", "environ", "comm")]
places += [f"{folder}/{name}" for folder, _, names in os.walk("/work") for name in names]
places += [f"{folder}/{name}" for folder in ("/tmp", "/dev/shm") for name in os.listdir(folder)]
for place in places:
    try:
        report(place, others(place))
    except OSError:
        continue
for fd in range(3, 64):
    attempt(f"descriptor {fd}", os.read, fd, 1)
report("environment", [name for name, value in os.environ.items() if "private-" in value])
report("its own job's others", os.environ["LENDER_JOB"] if "-" not in os.environ["LENDER_JOB"]
       else int(os.environ["LENDER_TASK_COUNT"]) - 1)
open("/work/left", "w").write(mine.decode()); open("/dev/shm/left", "w").write(mine.decode())
"""


def separate(plan: SandboxPlan) -> SandboxPlan:
    return plan._replace(task_count=COUNT, each=EACH, separate=True)


@tried_in("process", "oci")
async def test_the_words_of_other_tasks_are_out_of_reach(arena: Arena, runtime: Runtime) -> None:
    sandbox = await arena.prepared(separate(arena.plan(runtime, LOOK)))
    for task in TASKS[:4]:
        outcome = await sandbox.run(task, TASKS[task + 1 :])
        tried = arena.read(runtime, outcome)
        assert tried.failed, tried.got
        assert any(name.endswith("/cmdline") for name in tried.refused), "it looked"
    careless = separate(arena.plan(runtime, LOOK))._replace(env={"WORDS": EACH[1][0]})
    found = arena.read(runtime, await arena.run(await arena.prepared(careless)))
    assert "environment" in found.got, "it would have found them"


@pytest.mark.parametrize("argv", [(), tuple(words[0] for words in EACH)], ids=["", "control"])
@tried_in("wasm")
async def test_a_guests_memory_holds_no_words_of_others(
    arena: Arena, runtime: Runtime, argv: tuple[str, ...]
) -> None:
    """It shows all memory that it can get, before and after it has asked for its words."""
    show = (
        "(drop (call $write (i32.const 1) (i32.const 32) (i32.sub (i32.const {}) (i32.const 32))))"
    )
    before, after = 6 << 16, 2 << 16
    body = (
        "(drop (memory.grow (i32.const 4)))"
        + show.format(before)
        + "(drop (call $args_sizes_get (i32.const 0) (i32.const 4)))"
        "(drop (call $args_get (i32.const 1024) (i32.const 65536)))" + show.format(after)
    )
    arena._new_scratch("scratch")
    # Who is called with all of them does have them in its memory.
    sandbox = await arena.prepared(
        separate(arena.workshop.plan(runtime, module(body), arguments=argv))
    )
    for task in TASKS:
        outcome = await sandbox.run(task, TASKS[task + 1 :])
        assert (outcome.state, len(outcome.value)) == ("succeeded", before + after - 64)
        seen = {words[0] for words in EACH if words[0].encode() in outcome.value}
        assert seen == {*argv, *EACH[task]}
        assert b"private-" not in outcome.value[: before - 32]
