"""Walls that stand before their job: who gets them, what is seen from inside, what is left."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from sandboxes import LIMITS, USER, Workshop, needs_bubblewrap, open_folder, until, workshop_ahead

from lender.sandbox.launcher import WallsWanted
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import Limits
from lender.sandbox.processes import tree
from lender.sandbox.processes.tree import Root
from lender.sandbox.walls import enter

__all__ = ["open_folder", "workshop_ahead"]  # fixtures
pytestmark = [
    needs_bubblewrap,
    pytest.mark.skipif(not Path(enter.__file__).with_name("enter").exists(), reason="make walls"),
]
# All that a task can see of where it is; no two sandboxes agree on device numbers and inodes.
_LOOK = r"""
pwd; id; hostname; env -0 | sort -z | tr '\0' '\n'; cat /proc/self/limits
cut -d' ' -f4- /proc/self/mountinfo | sed -e 's/ahead-[0-9]*//' -e 's/place-[0-9]*//' | sort
ls /proc/self/fd /dev / /work /tmp; grep -E 'Cap|Seccomp|NoNewPrivs' /proc/self/status
printf '<%s>' "$@"
"""
_WHERE = "readlink /proc/self/ns/net; printf left > found"


@dataclass
class Stand:
    """A workshop in which each sandbox has a working folder of its own."""

    workshop: Workshop
    place: Path

    @property
    def spare(self) -> set[Root]:
        """The launcher's child that is nobody's, with all below it."""
        root = tree.identify(self.workshop.launcher.pid)
        taken = tree.members(self.workshop.roots)
        return set(tree.members([root])) - {root, *taken}

    @property
    def ahead(self) -> list[Path]:
        """The working folders that are nobody's."""
        return list(self.place.glob("ahead-*"))

    def sandbox(self, script: str, limits: Limits = LIMITS, **inputs: Path) -> LeaseSandbox:
        """One that is not prepared, with two words behind its script."""
        made = self.workshop
        folder = self.place / f"place-{len(made.sandboxes)}"
        folder.mkdir(mode=0o700)
        if USER is not None:
            os.chown(folder, *USER)
        words, env = ("two", ""), {"COLOUR": "blue", "HOME": "/tmp"}
        plan = made.plan("process", script, arguments=words, env=env, inputs=inputs, limits=limits)
        sandbox = made.sandbox(plan._replace(scratch=folder))
        sandbox._places = self.place
        return sandbox

    async def value(self, sandbox: LeaseSandbox) -> bytes:
        """What its first task prints."""
        await sandbox.prepare()
        outcome = await sandbox.run(0)
        assert outcome.state == "succeeded", outcome.stderr_tail
        return outcome.value

    async def walls(self) -> set[Root]:
        """The processes behind which the next job is to run, once they stand."""

        def stand() -> bool:
            # The spare, bubblewrap, and its child, which has its namespaces and all its mounts.
            roots = (f"/proc/{one.pid}/root{enter.PLACE}" for one in self.spare)
            return len(self.spare) == 3 and any(map(os.path.lexists, roots))

        await until(stand, "its walls stand")
        return self.spare


@pytest.fixture
def stand(workshop_ahead: Workshop) -> Stand:
    place = workshop_ahead.private("places")
    place.chmod(0o711)
    return Stand(workshop_ahead, place)


async def test_behind_them_a_task_sees_what_it_would_see_behind_its_own(stand: Stand) -> None:
    own = await stand.value(stand.sandbox(_LOOK))
    standing = await stand.walls()
    sandbox = stand.sandbox(_LOOK)
    assert await stand.value(sandbox) == own
    assert set(sandbox.root_pids) < standing
    assert b"COLOUR=blue\n" in own
    assert own.endswith(b"<two><>")


async def test_they_serve_one_task_and_what_it_leaves_lies_in_its_folder(stand: Stand) -> None:
    await stand.value(stand.sandbox("true"))
    nets = {_net(root.pid) for root in await stand.walls()}
    sandbox = stand.sandbox(_WHERE)
    first = (await stand.value(sandbox)).strip()
    assert first in nets
    assert (sandbox._plan.scratch / "found").read_bytes() == b"left"
    assert (await sandbox.run(1)).value.strip() not in nets
    task = stand.sandbox("printf bad >&2; exit 3")
    await stand.walls()
    await task.prepare()
    outcome = await task.run(0)
    assert (outcome.exit_code, outcome.stderr_tail) == (3, b"bad")
    assert outcome.cpu_s > 0


@pytest.mark.parametrize("wants", ["an input", "less memory", "many words", "another runtime"])
async def test_who_wants_something_else_has_its_own(stand: Stand, wants: str) -> None:
    await stand.value(stand.sandbox("true"))
    met = await stand.walls()
    (folder,) = stand.ahead
    if wants == "another runtime":
        sandbox = await stand.workshop.prepared("wasm", "hello")
        assert (await sandbox.run(0)).value == b"hello"
    else:
        given = {"given": stand.workshop.file("given", b"text")} if wants == "an input" else {}
        less = LIMITS._replace(memory_bytes=48 << 20) if wants == "less memory" else LIMITS
        script = "cat given 2>/dev/null; printf done" + " " * (5000 if "words" in wants else 0)
        sandbox = stand.sandbox(script, less, **given)
        assert (await stand.value(sandbox)).endswith(b"done")
    assert not folder.exists()
    walls = met - set(sandbox.root_pids)
    await until(lambda: not any(map(tree.alive, walls)), "nothing of them is left")


async def test_a_limit_and_a_command_that_is_none_are_told_as_ever(stand: Stand) -> None:
    await stand.value(stand.sandbox("true"))
    for script, limit in (("hog", "memory"), ("flood", "output")):
        await stand.walls()
        sandbox = stand.sandbox(script)
        await sandbox.prepare()
        assert (await sandbox.run(0)).limit == limit
    await stand.walls()
    sandbox = stand.sandbox("true")
    sandbox._plan = sandbox._plan._replace(argv=("no-such-command",))
    await sandbox.prepare()
    assert (await sandbox.run(0)).error == "command not found: no-such-command"


@pytest.mark.parametrize("victim", ["the launcher", "the spare", "bubblewrap"])
async def test_nobody_behind_them_outlives_who_keeps_them(stand: Stand, victim: str) -> None:
    await stand.value(stand.sandbox("true"))
    met = await stand.walls()
    (spare,) = tree.children(stand.workshop.launcher.pid) & met
    (bubblewrap,) = tree.children(spare.pid)
    ended = {"the launcher": stand.workshop.launcher.pid, "the spare": spare.pid}
    os.kill(ended.get(victim, bubblewrap.pid), signal.SIGKILL)
    if victim == "bubblewrap":
        await until(lambda: not tree.alive(bubblewrap), "it is gone")
        assert await stand.value(stand.sandbox("printf done")) == b"done"
        met.remove(spare)
    await until(lambda: not any(map(tree.alive, met)), "they are gone")


async def test_what_nobody_needs_is_let_go(stand: Stand) -> None:
    launcher, memory_bytes = stand.workshop.launcher, LIMITS.memory_bytes
    first = stand.sandbox("true")
    first._places = None
    await stand.value(first)
    launcher.look_ahead(None, WallsWanted(stand.place, memory_bytes, kept_s=2))
    await until(lambda: bool(stand.ahead), "they stand")
    await until(lambda: len(stand.spare) == 1 and not stand.ahead, "they are gone")
    assert await stand.value(stand.sandbox("printf done")) == b"done"


def _net(pid: int) -> bytes:
    return os.fsencode(Path(f"/proc/{pid}/ns/net").readlink())
