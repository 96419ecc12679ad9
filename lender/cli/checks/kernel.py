"""What the kernel offers for comfort; nothing of it is needed to lend."""

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from lender.cli.checks import boot_line
from lender.cli.checks.check import Check
from lender.sandbox.processes import cgroup, controllers
from lender.state.folder import StateFolder, read_pid

_V1_MEND = "boot with systemd.unified_cgroup_hierarchy=1"
_MEMORY_ON = ("cgroup_enable=memory", "cgroup_memory=1")
"""The second is for Raspberry Pi kernels before 6.1; later ones pass over it."""
_DELEGATE_MEND = "start lenderd from a systemd unit with Delegate=yes"
_ALONE_MEND = f"{_DELEGATE_MEND}, or by: systemd-run --user --scope -p Delegate=yes lenderd"
_USER_MEND = (
    "systemctl edit user@.service, with Delegate=cpu memory pids io below [Service]; log in again"
)
# Less would have a pause wait for its turn: see `cgroup.yield_to_owner`.
_UNIT_MEND = "CPUWeight=10 in lenderd's unit"
_SLICE_MEND = "Slice=lender.slice in lenderd's unit, and CPUWeight=10 in that slice"
_BITS = 64
_BITS_MEND = "a 64-bit system, which a Raspberry Pi 3 and later can run"
# What a controller limits, and what there is without it.
_LIMITS = {
    "cpu": ("cores", "a sandbox can take more of them than its job asked for"),
    "memory": ("memory", "it is watched instead"),
    "pids": ("processes", "each task's own limit holds (RLIMIT_NPROC)"),
}
_ORDINARY_WEIGHT = 100


def system(state: StateFolder) -> Iterator[Check]:
    """All of them."""
    yield from word_size(platform.machine(), sys.maxsize.bit_length() + 1)
    yield from cgroups(state)
    yield from pressure()


def word_size(machine: str, bits: int) -> Iterator[Check]:
    """What a 32-bit system lacks; nothing to say of others.

    Args:
        machine: its kernel's name for it (`uname -m`).
        bits: of this Python.
    """
    if bits < _BITS:
        text = (
            f"this Python is of a 32-bit system (kernel {machine}): no wasm, as wasmtime has no "
            "build for it, and no filter of system calls around commands"
        )
        yield Check("system.32bit", "warning", text, _BITS_MEND)


def cgroups(
    state: StateFolder, mount: Path | None = None, root: Path = Path("/")
) -> Iterator[Check]:
    """Whether limits and freezing can be the kernel's work, for lenderd as it runs now.

    Args:
        state: of that lenderd, if there is one.
        mount: where cgroup v2 is mounted; None: look.
        root: of the file system, for what the machine says of itself.
    """
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
        off = "cgroup_disable=memory" in (root / "proc/cmdline").read_text()
        why = " (cgroup_disable=memory on its command line)" if off else ""
        text = f"the kernel has no memory cgroup{why}: a sandbox's memory is watched instead"
        yield Check("cgroup.memory", "info", text, boot_line.mend(_MEMORY_ON, root))
    else:
        yield Check("cgroup", "ok", f"cgroup v2 with {', '.join(sorted(offered))}")
    lenderd = read_pid(state) if state.path.exists() else None
    folder = None if lenderd is None else cgroup.of(lenderd.pid)
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


def pressure(root: Path = Path("/")) -> Iterator[Check]:
    """Whether the kernel says how long programs wait (PSI): the best sign of a busy machine.

    Args:
        root: of the file system.
    """
    try:
        (root / "proc/pressure/cpu").read_text()
    except OSError:
        text = "the kernel reports no pressure (PSI): a busy machine is seen later, by its cores"
        yield Check("pressure", "info", text, boot_line.mend(("psi=1",), root))
    else:
        yield Check("pressure", "ok", "the kernel reports pressure")
