"""What is written to a lease's cgroup, and what is read from it, on plain folders."""

import os
from pathlib import Path

import pytest

from lender.sandbox.plan import Limits
from lender.sandbox.processes import cgroup, controllers, subtree
from lender.sandbox.processes.controllers import Kept

LIMITS = Limits(2, 100 << 20, 5, 1 << 20, 4 << 20, 32)
ALL: frozenset[Kept] = frozenset({"cpu", "memory", "processes"})


def folder(path: Path, **files: str) -> Path:
    """A cgroup with these files; `__` in a name stands for a dot."""
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(content)
    return path


def leaf(path: Path, *without: str) -> Path:
    files = ("cpu.max", "memory.max", "memory.swap.max", "memory.oom.group", "pids.max")
    path.mkdir()
    for name in set(files) - set(without):
        (path / name).touch()
    return path


def read(path: Path) -> dict[str, str]:
    return {one.name: one.read_text() for one in path.iterdir()}


def test_a_lease_gets_what_its_job_asked_for_and_its_supervisor_a_little_more(
    tmp_path: Path,
) -> None:
    made = leaf(tmp_path / "L")
    controllers.limit(made, LIMITS, ALL)
    written = read(made)
    assert written.pop("cpu.max") == "20000 10000", "two cores in each period"
    assert 100 << 20 < int(written.pop("memory.max")) <= 180 << 20
    assert 32 < int(written.pop("pids.max")) <= 64
    assert written == {"memory.oom.group": "1", "memory.swap.max": "0"}


@pytest.mark.parametrize(
    ("keeps", "named"),
    [(set(), set()), ({"cpu"}, {"cpu.max"}), ({"processes"}, {"pids.max"})],
)
def test_a_limit_that_the_kernel_does_not_keep_is_left_alone(
    tmp_path: Path, keeps: set[Kept], named: set[str]
) -> None:
    made = leaf(tmp_path / "L")
    controllers.limit(made, LIMITS, frozenset(keeps))
    assert {name for name, content in read(made).items() if content} == named


def test_a_limit_that_is_refused_keeps_the_sandbox_from_starting(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"memory\.max"):
        controllers.limit(leaf(tmp_path / "L", "memory.max"), LIMITS, ALL)
    assert not (tmp_path / "L" / "memory.max").exists()


def test_without_swap_accounting_there_is_no_swap_to_forbid(tmp_path: Path) -> None:
    made = leaf(tmp_path / "L", "memory.swap.max")
    controllers.limit(made, LIMITS, ALL)
    assert read(made)["memory.oom.group"] == "1"


@pytest.mark.parametrize(
    ("memory", "pids", "named"),
    [
        (None, None, None),
        ("low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n", "max 0\n", None),
        ("low 0\nhigh 0\nmax 91\noom 1\noom_kill 3\noom_group_kill 1\n", "max 0\n", "memory"),
        ("max 0\noom 0\noom_kill 3\n", None, None),  # the whole machine was out of memory
        ("max 12\noom 0\noom_kill 0\n", "max 4\n", "processes"),  # pages were reclaimed in time
        ("oom 2\noom_kill 2\n", "max 4\n", "memory"),
        ("nonsense\n", "max\n", None),
    ],
)
def test_the_limit_that_was_hit_is_named(
    tmp_path: Path, memory: str | None, pids: str | None, named: str | None
) -> None:
    for name, content in (("memory.events", memory), ("pids.events", pids)):
        if content is not None:
            (tmp_path / name).write_text(content)
    assert controllers.hit(tmp_path) == named


def test_only_what_there_is_and_what_lacks_is_handed_on(tmp_path: Path) -> None:
    files = {"cgroup__controllers": "cpu io pids", "cgroup__subtree_control": "cpu pids"}
    own = folder(tmp_path, **files)
    controllers.enable(own, ("cpu", "memory"))
    assert (own / "cgroup.subtree_control").read_text() == "cpu pids", "nothing to add"
    controllers.enable(own, controllers.WANTED)
    assert (own / "cgroup.subtree_control").read_text().startswith("+io")


def test_the_kernel_keeps_what_is_handed_on_and_has_a_file(tmp_path: Path) -> None:
    jobs = folder(tmp_path, cgroup__subtree_control="cpu memory", memory__max="max", pids__max="1")
    assert controllers.kept_below(jobs) == {"memory"}, "no cpu.max: a kernel without bandwidth"
    assert controllers.kept_below(tmp_path / "none") == set()


def test_lenderd_does_not_move_away_from_the_owners_shell(tmp_path: Path) -> None:
    own = folder(tmp_path, cgroup__type="domain", cgroup__procs=f"1\n{os.getpid()}\n")
    assert not subtree._make_room(own)
    assert not (own / cgroup.DAEMON).exists()


def test_the_topmost_cgroup_may_keep_its_processes(tmp_path: Path) -> None:
    assert subtree._make_room(folder(tmp_path, cgroup__procs="1\n2\n"))


def test_what_is_to_stop_gets_an_ordinary_weight_and_gives_it_back(tmp_path: Path) -> None:
    own = folder(tmp_path, cpu__weight="7")
    assert cgroup.yield_to_owner(own)
    assert (own / "cpu.weight").read_text() == "1"
    cgroup.hurry(own)
    assert (own / "cpu.weight").read_text() == "100"
    assert not cgroup.yield_to_owner(tmp_path / "none")
