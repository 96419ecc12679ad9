"""Freeze, thaw and kill what sandboxes run, verified: by their cgroups, else by their trees.

Where a sandbox has a cgroup one write reaches everything in it at once. That is checked, and then
looked at from the other side: whatever belongs to its tree and stands outside of the cgroup is
swept. Standard library only: `lender pause` and `lender revoke` use it without the daemon.
"""

import os
import time
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from lender.sandbox.processes import autogroup, cgroup, tree
from lender.sandbox.processes.cgroup import Folder
from lender.sandbox.processes.tree import Root, StopReport

# Who is not done by then waits for the processor: the owner's own work has it.
_HURRY_AFTER_S = 0.0005
_HURRY_AGAIN_S = 0.01


class Target(Protocol):
    """What stands and falls together: a sandbox, or the record of one."""

    @property
    def roots(self) -> tuple[Root, ...]:
        """The processes on top of its trees."""
        ...

    @property
    def cgroup(self) -> Folder | None:
        """Its leaf; None where it has none."""
        ...


class Standing(NamedTuple):
    """A target of its own."""

    roots: tuple[Root, ...]
    cgroup: Folder | None = None


class _Share(NamedTuple):
    """What decides how much of the processor is left to those that are to stop or to die.

    Sessions count where no cgroup hands on the cpu controller, the subtrees of lenderds elsewhere.
    """

    sessions: set[int]
    subtrees: set[str]

    def hurry(self) -> None:
        autogroup.hurry(self.sessions)
        for folder in self.subtrees:
            cgroup.hurry(folder)

    def yield_again(self) -> None:
        autogroup.yield_again(self.sessions)
        for folder in self.subtrees:
            cgroup.yield_to_owner(folder)


def freeze(targets: Iterable[Target], timeout_s: float = 2.0) -> StopReport:
    """Make everything stand still; return once the kernel says so, or at the bound."""
    started, targets = time.monotonic(), tuple(targets)
    deadline = started + timeout_s
    share = _share(targets)
    leaves = _ordered(targets, "cgroup.freeze", "1")
    late = _wait(leaves, "frozen 1", deadline, share)
    inside = _inside(leaves)
    # What still forks has children that only the next look knows: nothing to verify then.
    outsiders = _loose(targets, inside) if late else _outside(targets, inside)
    if outsiders:
        share.hurry()
    outside = tree.freeze(outsiders, max(0.0, deadline - time.monotonic()))
    return _report(started, len(inside), outside, late)


def thaw(targets: Iterable[Target], timeout_s: float = 2.0) -> StopReport:
    """Let everything go on, at the priority that leaves the machine to its owner."""
    started, targets = time.monotonic(), tuple(targets)
    deadline = started + timeout_s
    _share(targets).yield_again()
    leaves = _ordered(targets, "cgroup.freeze", "0")
    late = [leaf for leaf in leaves if not cgroup.wait_until(leaf, "frozen 0", deadline)]
    inside = _inside(leaves)
    # A supervisor never stops itself: it was swept, and all below it was.
    swept = [r for t in targets for r in t.roots if r.pid not in inside or tree.stopped(r)]
    outside = tree.thaw(swept, max(0.0, deadline - time.monotonic()))
    return _report(started, len(inside), outside, late)


def kill(targets: Iterable[Target], timeout_s: float = 5.0) -> StopReport:
    """Kill everything; return once nothing is left, or at the bound. Empty cgroups are removed."""
    started, targets = time.monotonic(), tuple(targets)
    deadline = started + timeout_s
    share = _share(targets)
    # Who has used up its cores would only die in the next period of cpu.max.
    _ordered(targets, "cpu.max", "max")
    # Standing still, nothing of it can fork or move while we look who stands outside.
    leaves = _ordered(targets, "cgroup.freeze", "1")
    inside, known_at = _inside(leaves), cgroup.since_boot_s() if leaves else 0.0
    if outsiders := _outside(targets, inside):
        share.hurry()
    for leaf in leaves:
        cgroup.order(leaf, "cgroup.kill", "1")
    late = _wait(leaves, "populated 0", deadline, share)
    # A process leaves its cgroup a moment before its end shows in /proc.
    dying = [] if late else tree.wait_until_gone(inside, known_at, deadline)
    outside = tree.kill(outsiders, max(0.0, deadline - time.monotonic()))
    for leaf in leaves:
        cgroup.remove(leaf)
    share.yield_again()
    return _report(started, len(inside), outside, late, dying)


def alive(target: Target) -> bool:
    """Whether one of its roots lives."""
    return any(tree.alive(root) for root in target.roots)


def stands_still(target: Target) -> bool:
    """Whether it was told to stand still, by whichever way."""
    leaf = target.cgroup
    if leaf is not None and cgroup.wants_frozen(leaf):
        return True
    return any(tree.stopped(root) for root in target.roots)


def _share(targets: tuple[Target, ...]) -> _Share:
    return _Share(
        autogroup.sessions(root.pid for target in targets for root in target.roots),
        {_subtree_of(target.cgroup) for target in targets if target.cgroup is not None},
    )


def _subtree_of(leaf: Folder) -> str:
    return os.path.dirname(os.path.dirname(os.fspath(leaf)))


def _ordered(targets: tuple[Target, ...], file: str, value: str) -> list[Folder]:
    """Write the order to every leaf; return those that took it."""
    leaves = [t.cgroup for t in targets if t.cgroup is not None]
    return [leaf for leaf in leaves if cgroup.order(leaf, file, value)]


def _wait(leaves: list[Folder], event: str, deadline: float, share: _Share) -> list[Folder]:
    """Wait for all leaves; return those that were not done at the deadline."""
    soon, late = time.monotonic() + _HURRY_AFTER_S, leaves
    while late := [leaf for leaf in late if not cgroup.wait_until(leaf, event, soon)]:
        if soon >= deadline:
            break
        # To stop or to die takes a moment of processor time, and theirs is what the owner leaves.
        # The kernel may refuse it right now: asked again, it costs a look.
        share.hurry()
        soon = min(deadline, time.monotonic() + _HURRY_AGAIN_S)
    return late


def _inside(leaves: list[Folder]) -> set[int]:
    return {pid for leaf in leaves for pid in cgroup.pids(leaf)}


def _loose(targets: tuple[Target, ...], inside: set[int]) -> list[Root]:
    return [root for target in targets for root in target.roots if root.pid not in inside]


def _outside(targets: tuple[Target, ...], inside: set[int]) -> list[Root]:
    """Whatever belongs to the targets and stands in none of their cgroups."""
    loose = _loose(targets, inside)
    return [*loose, *tree.children_outside(inside)] if inside else loose


def _report(
    started: float,
    inside: int,
    outside: StopReport,
    late: list[Folder],
    dying: Iterable[int] = (),
) -> StopReport:
    left = [pid for leaf in late for pid in sorted(cgroup.pids(leaf))] + list(dying)
    return StopReport(
        verified=outside.verified and not late and not left,
        processes=inside + outside.processes,
        remaining=(*left, *outside.remaining),
        duration_s=time.monotonic() - started,
    )
