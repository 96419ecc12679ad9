"""A task neither sees nor writes the cgroups that stop it."""

from sandboxes import Workshop, needs_bubblewrap, open_folder, workshop

__all__ = ["open_folder", "workshop"]  # fixtures
pytestmark = needs_bubblewrap

LOOK = """
import ctypes, os
print("mounted", sum("cgroup" in line for line in open("/proc/self/mountinfo")))
print("sys", os.path.exists("/sys/fs/cgroup"))
libc = ctypes.CDLL(None, use_errno=True)
os.mkdir("cg")
for kind in (b"cgroup2", b"cgroup"):
    print("mount", libc.mount(b"none", b"cg", kind, 0, None))
for flags in (0x02000000, 0x10000000):  # CLONE_NEWCGROUP, CLONE_NEWUSER
    print("unshare", libc.unshare(flags))
for path in ("/proc/1/root/sys/fs/cgroup", "/proc/self/root/sys", "/proc/1/cwd/../sys/fs/cgroup"):
    print("reached", os.path.exists(path))
with open("/proc/self/cgroup") as lines:
    print("names", any("lender-" in line and line.startswith("0::") for line in lines))
"""


async def test_no_cgroup_is_in_reach(workshop: Workshop) -> None:
    script = f"exec python3 -I -S - <<'END'\n{LOOK}\nEND\n"
    sandbox = await workshop.prepared("process", script)
    outcome = await sandbox.run(0)
    lines = outcome.value.decode().split("\n")[:-1]
    assert lines == [
        "mounted 0",
        "sys False",
        *["mount -1"] * 2,
        *["unshare -1"] * 2,
        *["reached False"] * 3,
        "names False",
    ], outcome.stderr_tail
