"""What the kernel offers for comfort; nothing of it is needed to lend."""

from collections.abc import Iterator
from pathlib import Path

from lender.cli.checks.check import Check
from lender.sandbox.processes import cgroup, controllers
from lender.state.folder import StateFolder, read_pid

_V1_MEND = "boot with systemd.unified_cgroup_hierarchy=1"
_PI_MEND = "on a Raspberry Pi: cgroup_enable=memory in /boot/firmware/cmdline.txt, then reboot"
_DELEGATE_MEND = "start lenderd from a systemd unit with Delegate=yes"
_ALONE_MEND = f"{_DELEGATE_MEND}, or by: systemd-run --user --scope -p Delegate=yes lenderd"
_USER_MEND = (
    "systemctl edit user@.service, with Delegate=cpu memory pids io below [Service]; log in again"
)
# Less would have a pause wait for its turn: see `cgroup.yield_to_owner`.
_UNIT_MEND = "CPUWeight=10 in lenderd's unit"
_SLICE_MEND = "Slice=lender.slice in lenderd's unit, and CPUWeight=10 in that slice"
# What a controller limits, and what there is without it.
_LIMITS = {
    "cpu": ("cores", "a sandbox can take more of them than its job asked for"),
    "memory": ("memory", "it is watched instead"),
    "pids": ("processes", "each task's own limit holds (RLIMIT_NPROC)"),
}
_ORDINARY_WEIGHT = 100


def system(state: StateFolder) -> Iterator[Check]:
    """All of them."""
    yield from cgroups(state)
    yield from pressure()


def cgroups(
    state: StateFolder, mount: Path | None = None, cmdline: Path = Path("/proc/cmdline")
) -> Iterator[Check]:
    """Whether limits and freezing can be the kernel's work, for lenderd as it runs now."""
    mount = mount or cgroup.mount()
    if mount is None:
        text = "no cgroup v2: processes are frozen and killed one by one, and that is verified"
        yield Check("cgroup", "info", text, _V1_MEND)
        return
    offered = controllers.available(mount)
    if not offered & _LIMITS.keys():
        text = "cgroup v2 has no controllers here: version 1, or who runs this container, kept them"
        yield Check("cgroup.memory", "info", text, _V1_MEND)
    elif "memory" not in offered:
        off = "cgroup_disable=memory" in cmdline.read_text()
        why = " (cgroup_disable=memory on its command line)" if off else ""
        yield Check("cgroup.memory", "info", f"the kernel has no memory cgroup{why}", _PI_MEND)
    else:
        yield Check("cgroup", "ok", f"cgroup v2 with {', '.join(sorted(offered))}")
    root = read_pid(state) if state.path.exists() else None
    folder = None if root is None else cgroup.of(root.pid)
    if folder is not None:
        yield from delegation(folder, mount)


def delegation(folder: Path, mount: Path) -> Iterator[Check]:
    """What lenderd made of the cgroup that it was given.

    Args:
        folder: the cgroup that it stands in.
        mount: the topmost one.
    """
    own = folder.parent if folder.name == cgroup.DAEMON else folder
    jobs = next(own.glob(f"lender-*/{cgroup.JOBS}"), None)
    if jobs is None:
        text = "lenderd has no part of the cgroup tree of its own: it stops processes one by one"
        yield Check("cgroup.delegated", "info", text, _DELEGATE_MEND)
        return
    yield Check("cgroup.delegated", "ok", "lenderd gives each sandbox a cgroup of its own")
    enabled = controllers.enabled(jobs)
    for name in sorted(_LIMITS.keys() - enabled):
        what, instead = _LIMITS[name]
        text = f"the kernel does not limit the {what} of a sandbox, {instead}"
        yield Check(f"cgroup.limits.{name}", "info", text, _mend(name, own, mount))
    if limited := [_LIMITS[name][0] for name in sorted(_LIMITS.keys() & enabled)]:
        text = f"the kernel limits each sandbox's {', '.join(limited)}"
        yield Check("cgroup.limits", "ok", text)
    yield from _weight(own, mount)


def _mend(name: str, own: Path, mount: Path) -> str:
    """What keeps a controller away: the kernel, a manager above, or who stands beside lenderd."""
    if name not in controllers.available(mount):
        return ""  # said already
    if name in controllers.available(own):
        return _ALONE_MEND
    in_user_manager = any(part.startswith("user@") for part in own.parts)
    return _USER_MEND if in_user_manager else _DELEGATE_MEND


def _weight(own: Path, mount: Path) -> Iterator[Check]:
    """What all of lenderd's gets beside the owner's programs, once both want every core.

    Cgroups share the processor with their neighbours, level by level. Below a user's manager the
    neighbours are the owner's programs; elsewhere only the topmost cgroup has them for neighbours.
    """
    if own == mount:
        return
    top = mount / own.relative_to(mount).parts[0]
    among_users = top.name == "user.slice"
    folder = own if among_users else top
    try:
        weight = int((folder / "cpu.weight").read_text())
        idle = (folder / "cpu.idle").read_text().strip() == "1"
    except FileNotFoundError:
        return  # not shared by cgroup there, or a kernel before 5.15
    if idle or weight < _ORDINARY_WEIGHT:
        yield Check("cgroup.weight", "ok", f"{folder.name} leaves the processor to the owner")
        return
    text = f"while the machine is busy {folder.name} counts as much as any of the owner's programs"
    mend = _UNIT_MEND if among_users else _SLICE_MEND
    yield Check("cgroup.weight", "info", f"{text}, until lenderd steps back", mend)


def pressure(folder: Path = Path("/proc/pressure")) -> Iterator[Check]:
    """Whether the kernel says how long programs wait (PSI): the best sign of a busy machine."""
    try:
        (folder / "cpu").read_text()
    except OSError:
        mend = "psi=1 on the kernel's command line, then reboot"
        yield Check("pressure", "info", "the kernel reports no pressure", mend)
    else:
        yield Check("pressure", "ok", "the kernel reports pressure")
