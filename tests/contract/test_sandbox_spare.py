"""A launcher that keeps a process ahead: who gets it, what it holds, when it ends."""

import os
import signal
from pathlib import Path

import pytest
from sandboxes import USER, Workshop, needs_bubblewrap, open_folder, until, workshop_ahead

from lender.sandbox.launcher import Launcher
from lender.sandbox.plan import Runtime
from lender.sandbox.processes import cgroup, subtree, tree
from lender.sandbox.processes.subtree import Subtree
from lender.sandbox.processes.tree import Root

__all__ = ["open_folder", "workshop_ahead"]  # fixtures
both = pytest.mark.parametrize("runtime", ["wasm", pytest.param("process", marks=needs_bubblewrap)])


@pytest.fixture
def workshop(workshop_ahead: Workshop) -> Workshop:
    return workshop_ahead


async def spare_of(workshop: Workshop, *others: Root) -> Root:
    """The one child of the launcher that is nobody's."""
    pid = workshop.launcher.pid
    await until(lambda: len(tree.children(pid)) == len(others) + 1, "there is one")
    (spare,) = tree.children(pid) - set(others)
    return spare


@both
async def test_the_next_launch_gets_it_and_another_takes_its_place(
    workshop: Workshop, runtime: Runtime
) -> None:
    assert not tree.children(workshop.launcher.pid), "none before there is work"
    first = await workshop.prepared(runtime, "hello")
    spare = await spare_of(workshop, *first.root_pids)
    second = await workshop.prepared(runtime, "hello")
    assert second.root_pids == (spare,)
    assert await spare_of(workshop, *first.root_pids, spare) != spare
    for sandbox in (first, second):
        assert (await sandbox.run(0)).value == b"hello"


async def test_it_holds_nothing_but_its_own_socket(workshop: Workshop) -> None:
    first = await workshop.prepared("wasm", "sleep")
    spare = await spare_of(workshop, *first.root_pids)
    wanted = ["/dev/null"] * 3 + ["socket"]
    await until(lambda: _descriptors(spare.pid) == wanted, "it has closed all others")
    assert os.getpgid(spare.pid) == spare.pid
    status = _status(spare.pid)
    assert "\nNoNewPrivs:\t1\n" in status
    assert USER is None or "\nUid:\t65534\t65534\t65534\t65534\n" in status


@needs_bubblewrap
async def test_it_outlives_a_sandbox_whose_orphans_are_swept(workshop: Workshop) -> None:
    sandbox = await workshop.prepared("process", "hello")
    spare = await spare_of(workshop, *sandbox.root_pids)
    await sandbox.close()
    assert tree.children(workshop.launcher.pid) == {spare}
    assert tree.alive(spare)


async def test_it_stands_in_the_cgroup_of_the_next_sandbox_before_there_is_one(
    open_folder: Path,
) -> None:
    launcher = await Launcher.start(drop_to=USER, spare=True)
    cgroups = subtree.claim(open_folder / "state", launcher.pid, USER)
    if cgroups is None:
        await launcher.close()
        pytest.skip("no cgroup v2 subtree is ours here: not root, and none delegated")
    made = Workshop(open_folder, launcher, cgroups)
    first = await made.prepared("wasm", "hello")
    assert (await first.run(0)).value == b"hello"
    leaf = await _leaf_ahead(cgroups)
    spare = cgroup.pids(leaf)
    second = await made.prepared("wasm", "hello")
    assert second.cgroup == leaf
    assert {root.pid for root in second.root_pids} == spare
    assert (await second.run(0)).value == b"hello"
    assert await _leaf_ahead(cgroups, leaf) != leaf, "so does the one behind it"
    for sandbox in (first, second):
        await sandbox.close()
    assert not leaf.exists(), "a closed sandbox removes its cgroup"
    await launcher.close()
    cgroups.close()
    assert not cgroups.path.exists()


async def test_without_it_a_launch_forks_as_ever(workshop: Workshop) -> None:
    first = await workshop.prepared("wasm", "hello")
    spare = await spare_of(workshop, *first.root_pids)
    os.kill(spare.pid, signal.SIGKILL)
    await until(lambda: tree.children(workshop.launcher.pid) == set(first.root_pids), "it is gone")
    second = await workshop.prepared("wasm", "hello")
    assert (await second.run(0)).value == b"hello"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_it_ends_with_the_launcher(workshop: Workshop, number: signal.Signals) -> None:
    first = await workshop.prepared("wasm", "hello")
    spare = await spare_of(workshop, *first.root_pids)
    os.kill(workshop.launcher.pid, number)
    await until(lambda: not tree.alive(spare), "it is gone")


async def _leaf_ahead(cgroups: Subtree, *others: Path) -> Path:
    """Where the process stands that is nobody's yet."""

    def found() -> list[Path]:
        leaves = [one for one in cgroups.leaf("").glob("ahead-*") if one not in others]
        return [one for one in leaves if len(cgroup.pids(one)) == 1]

    await until(lambda: bool(found()), "it stands in a leaf")
    return found()[0]


def _descriptors(pid: int) -> list[str]:
    found = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return sorted(one.partition(":")[0] for one in found)


def _status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()
