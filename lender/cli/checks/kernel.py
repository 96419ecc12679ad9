"""What the kernel offers for comfort; nothing of it is needed to lend."""

from collections.abc import Iterator
from pathlib import Path

from lender.cli.checks.check import Check
from lender.sandbox.processes import cgroup
from lender.state.folder import StateFolder, read_pid

_PI_MEND = "on a Raspberry Pi: cgroup_enable=memory in /boot/firmware/cmdline.txt, then reboot"
_DELEGATE_MEND = "start lenderd from a systemd unit with Delegate=yes"


def cgroups(
    state: StateFolder, mount: Path | None = None, cmdline: Path = Path("/proc/cmdline")
) -> Iterator[Check]:
    """Whether limits and freezing can be the kernel's work, for lenderd as it runs now."""
    mount = mount or cgroup.mount()
    if mount is None:
        text = "no cgroup v2: processes are frozen and killed one by one, and that is verified"
        yield Check("cgroup", "info", text, "boot with systemd.unified_cgroup_hierarchy=1")
        return
    controllers = (mount / "cgroup.controllers").read_text().split()
    if "memory" not in controllers:
        off = "cgroup_disable=memory" in cmdline.read_text()
        why = " (cgroup_disable=memory on its command line)" if off else ""
        yield Check("cgroup.memory", "info", f"the kernel has no memory cgroup{why}", _PI_MEND)
    else:
        yield Check("cgroup", "ok", f"cgroup v2 with {', '.join(controllers)}")
    root = read_pid(state) if state.path.exists() else None
    if root is None:
        return
    folder = _cgroup_of(root.pid, mount)
    if folder is None:
        return
    if any(folder.glob(f"lender-*/{cgroup.JOBS}")) or any(
        folder.parent.glob(f"lender-*/{cgroup.JOBS}")
    ):
        yield Check("cgroup.delegated", "ok", "lenderd gives each sandbox a cgroup of its own")
    else:
        text = "lenderd has no part of the cgroup tree of its own: it stops processes one by one"
        yield Check("cgroup.delegated", "info", text, _DELEGATE_MEND)


def pressure(folder: Path = Path("/proc/pressure")) -> Iterator[Check]:
    """Whether the kernel says how long programs wait (PSI): the best sign of a busy machine."""
    try:
        (folder / "cpu").read_text()
    except OSError:
        mend = "psi=1 on the kernel's command line, then reboot"
        yield Check("pressure", "info", "the kernel reports no pressure", mend)
    else:
        yield Check("pressure", "ok", "the kernel reports pressure")


def _cgroup_of(pid: int, mount: Path) -> Path | None:
    """The cgroup v2 of a process: the line `0::/...` of proc_pid_cgroup(5)."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if line.startswith("0::/"):
            return mount / line[4:]
    return None
